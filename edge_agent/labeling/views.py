"""What a view is like in so few numbers that thousands can be compared: colors, or features."""

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from fleet_model.types import RgbImage, Tensor, Tensors

SIDE = 8  # cells a side
SIZE = SIDE * SIDE * 3  # numbers of a thumbprint
FULL = 0.25  # mean difference, of 0..1, from which on two views have nothing in common
ROW = 128  # numbers that features become; distances change by 6 % (deviation, 1280 of Lite0)


class Sight(NamedTuple):
    """What a model makes of a frame."""

    row: "Tensor"  # what it sees: (ROW,) float32 of length 1, see `feature_row`
    scores: "Tensor"  # what it says: (classes,) float32, see scoring.scores_of


def thumbprint(picture: "RgbImage") -> "Tensor":
    """Return the mean color of 8 x 8 cells: (SIZE,) float32, 0..1."""
    import cv2

    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).reshape(-1) / 255


def view_distances(views: "Tensor", view: "Tensor") -> "Tensor":
    """Return how far each of `views`, (n, SIZE), is from one: (n,), 0 is the same, 1 is far."""
    return np.asarray(np.minimum(np.abs(views - view).mean(axis=1) / FULL, 1.0))


def feature_row(features: "Tensors") -> "Tensor | None":
    """Return features as one row of length 1, (ROW,) float32; None where a model tells none.

    Of maps the mean over all places counts: what is seen, not where. The row is then projected at
    random, which keeps distances (Johnson and Lindenstrauss 1984), always by the same numbers.

    Args:
        features: as fleet_model.engine.Answer has them, channels last.
    """
    named = (tensor for _, tensor in sorted(features.items()) if tensor.ndim)
    means = [np.reshape(one, (-1, one.shape[-1])).mean(axis=0, dtype=np.float32) for one in named]
    if not means:
        return None
    whole = np.concatenate(means)
    row = whole @ _projection(len(whole))
    length = float(np.linalg.norm(row))
    return row / np.float32(length) if 0 < length < np.inf else None


def feature_distances(rows: "Tensor", row: "Tensor", far: float) -> "Tensor":
    """Return how far each of `rows`, (n, ROW), is from one: (n,), 0 is the same, 1 is far.

    Args:
        rows: of length 1.
        row: the one.
        far: distance from which on two have nothing in common; see `typical_distance`.
    """
    apart = np.sqrt(np.maximum(2 - 2 * (rows @ row), 0))
    return np.asarray(np.minimum(apart / max(far, _LEAST_FAR), 1.0))


def answer_distances(scores: "Tensor", one: "Tensor") -> "Tensor":
    """Return how far what a model says of frames is from what it says of one: (n,), 1 is far.

    Of classes the total variation: what `scoring.disagreement` is of two models and one frame.

    Args:
        scores: (n, classes).
        one: (classes,).
    """
    return np.asarray(np.minimum(np.abs(scores - one).sum(axis=1) / 2, 1.0))


def typical_distance(total: "Tensor", count: int) -> float:
    """Return the root mean square of the distances between rows of length 1.

    Features of one network are half of all pairs 1.15 apart (EfficientNet-Lite0, the robot camera),
    those of another 0.58 (the detector, rendered rooms): what is far, they have to say themselves.

    Args:
        total: sum of the rows, (ROW,).
        count: of the rows, 1 or more.
    """
    return float(np.sqrt(max(2 - 2 * np.sum((total / count) ** 2), 0.0)))


_LEAST_FAR = 1e-3  # where all rows are nearly the same, rounding must not tell them apart


@lru_cache(maxsize=2)  # one model and the next
def _projection(numbers: int) -> "Tensor":
    drawn = np.random.default_rng(0).standard_normal((numbers, ROW))
    return np.asarray(drawn / np.sqrt(ROW), np.float32)
