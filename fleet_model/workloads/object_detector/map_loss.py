"""What the detector's maps should be, and what it costs that they are not.

Gradients of the costs are written out: that of every step is computed on robots, and derived ones
have twice the operators.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

STRIDE = 8  # pixels of the square that a cell of the maps covers
SPREAD = 0.54 / 6  # of a thing's width and height: the deviation of its middle (arXiv:1909.00700)
FEW = 12  # boxes of a frame: most have no more


def map_loss(
    targets: Mapping[str, Any], maps: Mapping[str, Any], sample_weight: Any, share: float = 1.0
) -> Any:
    """Return the focal loss of heat for each thing, plus the mean loss of their sides.

    Heat: arXiv:1904.07850, equation 1, with alpha 2 and beta 4. Sides: the difference of
    logarithms, rounded at its bend, weighted by how near the middle a cell is.

    Args:
        targets: box (batch, things, 4) pixels of the square, class (batch, things). Boxes may
            reach out of it, or lie outside.
        maps: heat (batch, G, G, classes) logits, sides (batch, G, G, 4).
        sample_weight: (batch,).
        share: of a frame's cells that the maps show, above 0 to 1. Its things count by that much,
            wherever they are. Divided by the things in each part, which are few and vary, steps
            are less steady: a robot alone finds a fifth less (docs/decisions/0049-crops.md).
    """
    from keras import ops

    *_, grid, labels = maps["heat"].shape
    truth = truth_of(targets, grid, labels, sample_weight)
    weight = ops.reshape(sample_weight, (-1, 1, 1))
    things = share * ops.sum(ops.reshape(sample_weight, (-1, 1)) * truth.real)
    heat_loss = _focal(maps["heat"], truth.heat, weight[..., None])
    owned = weight * truth.share
    sides_loss = _distance(maps["sides"], truth.sides, owned[..., None])
    return heat_loss / ops.maximum(things, 1.0) + sides_loss / ops.maximum(ops.sum(owned), 1e-6)


class Truth:
    """What the maps should be, for each cell."""

    heat: Any  # (batch, G, G, classes) 1 in the middle of a thing, less around it
    share: Any  # (batch, G, G) how much the cell's sides count
    sides: Any  # (batch, G, G, 4) log of cells from the cell's middle to each side
    real: Any  # (batch, things) 1 where a row is a thing


def truth_of(targets: Mapping[str, Any], grid: int, labels: int, weight: Any = None) -> Truth:
    """Draw boxes into maps.

    The time grows with the rows, and nearly all are empty: FEW are drawn always, and all of them
    where a frame of the batch that counts has more.

    Args:
        targets: see `map_loss`.
        grid: cells of a side.
        labels: how many.
        weight: (batch,). A frame of weight 0 pads the batch: all its rows are boxes of class 0.
    """
    from keras import ops

    boxes, classes = targets["box"], targets["class"]
    truth = Truth()
    truth.real = ops.cast(classes >= 0, "float32")
    # Not in a branch: the fast kernels of LiteRT are for what is outside.
    few = _drawn(boxes[:, :FEW], classes[:, :FEW], grid, labels)
    more = truth.real[:, FEW:]
    more = more if weight is None else more * ops.reshape(weight, (-1, 1))
    truth.heat, truth.share, truth.sides = ops.cond(
        ops.any(more > 0),
        lambda: _drawn(boxes, classes, grid, labels),
        lambda: few,
    )
    return truth


def _drawn(boxes: Any, classes: Any, grid: int, labels: int) -> tuple[Any, Any, Any]:
    """Return heat, share and sides of `Truth`.

    Maps are drawn one behind the other and turned at the end, which LiteRT does faster than
    putting numbers of maps side by side.

    Args:
        boxes: (batch, things, 4) pixels of the square.
        classes: (batch, things).
        grid: cells of a side.
        labels: how many.
    """
    from keras import ops

    boxes = boxes / STRIDE  # cells
    cells = ops.arange(grid, dtype="float32")  # the middle of cell i is i + .5
    # Of a part of a frame a middle may lie outside: it is no thing to be found there.
    middle = ops.floor((boxes[..., :2] + boxes[..., 2:]) / 2)  # (batch, things, 2) its cell
    deviation = ops.maximum((boxes[..., 2:] - boxes[..., :2]) * SPREAD, 0.25)

    def along(axis: int) -> Any:
        away = cells - middle[..., axis : axis + 1]  # (batch, things, G)
        spread = deviation[..., axis : axis + 1]
        return ops.exp(-ops.square(away) / (2.0 * ops.square(spread)))

    real = ops.cast(classes >= 0, "float32")
    bump = (along(1) * real[..., None])[..., :, None] * along(0)[..., None, :]
    bump = ops.reshape(bump, (-1, boxes.shape[1], grid * grid))
    bump = bump * ops.cast(bump > 0.01, "float32")
    heat = ops.stack(
        [
            ops.max(bump * ops.cast(classes == label, "float32")[..., None], axis=1)
            for label in range(labels)
        ],
        axis=1,
    )
    # Of two things that claim a cell the closer one has it; of equals it learns the mean.
    share = ops.max(bump, axis=1)  # (batch, G * G)
    owner = ops.cast(bump >= share[:, None], "float32")
    owned = ops.matmul(ops.transpose(boxes, (0, 2, 1)), owner)  # (batch, 4, G * G)
    owned = owned / ops.sum(owner, axis=1, keepdims=True)
    at = np.stack(np.meshgrid(np.arange(grid), np.arange(grid)), 0) + 0.5  # x, y of each cell
    at = np.concatenate([at, at]).reshape(4, grid * grid).astype(np.float32)
    ways = (at - owned) * np.array([[1], [1], [-1], [-1]], np.float32)
    sides = ops.log(ops.maximum(ways, 0.1))
    return (
        ops.reshape(ops.transpose(heat, (0, 2, 1)), (-1, grid, grid, labels)),
        ops.reshape(share, (-1, grid, grid)),
        ops.reshape(ops.transpose(sides, (0, 2, 1)), (-1, grid, grid, 4)),
    )


def _focal(logits: Any, heat: Any, weight: Any) -> Any:
    """Return the focal loss of all cells, summed.

    In a middle that is -(1 - p)^2 log p, elsewhere -(1 - heat)^4 p^2 log(1 - p): the same of a
    logit whose sign is turned.

    Args:
        logits: (batch, G, G, classes) of p.
        heat: (batch, G, G, classes) 1 in a middle.
        weight: (batch, 1, 1, 1).
    """
    from keras import ops

    far = 1.0 - heat
    middle = ops.relu(1.0 - far * 2.0**24)  # the float32 before 1 is 1 - 2^-24
    counts = weight * (middle + ops.square(ops.square(far)))
    sign = 1.0 - 2.0 * middle

    def costs(logits: Any) -> tuple[Any, Any]:
        x = logits * sign
        wrong, right = ops.sigmoid(x), ops.sigmoid(-x)
        cost = ops.relu(x) - ops.log(ops.maximum(wrong, right))  # log(1 + e^x), for any x
        scale = counts * ops.square(wrong)
        return scale * cost, sign * scale * (2.0 * right * cost + wrong)

    return _summed(costs, logits)


def _distance(sides: Any, truth: Any, weight: Any) -> Any:
    """Return the difference of logarithms of sides, rounded at its bend, weighted and summed.

    Args:
        sides: (batch, G, G, 4).
        truth: (batch, G, G, 4).
        weight: (batch, G, G, 1).
    """
    from keras import ops

    def costs(sides: Any) -> tuple[Any, Any]:
        gap = sides - truth
        away = ops.sqrt(ops.square(gap) + 1e-2)
        return weight * (away - 0.1), weight * (gap / away)

    return _summed(costs, sides)


def _summed(costs: Callable[[Any], tuple[Any, Any]], x: Any) -> Any:
    """Return the sum of what `costs` gives for x; its second answer are the slopes, as x."""
    from keras import ops

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def total(x: Any) -> Any:
        values, slopes = costs(x)

        def gradient(*given: Any, upstream: Any = None) -> Any:
            return (given[0] if upstream is None else upstream) * slopes

        return ops.sum(values), gradient

    return total(x)
