"""A picture in layers: what can be seen of each, the boxes around that, and the paint.

A thing that would get no box, because too little of it can be seen or because it is too small, is
not painted either. So no picture shows a thing of a class that its labels do not have.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet_model.types import Box

WIDTH, HEIGHT = 640, 480  # pixels of every picture
LEAST_PX = 16  # of both sides of a box
LEAST_SHARE = 0.25  # of a thing's own pixels that can be seen, in the picture and not covered


@dataclass(frozen=True, eq=False)
class Layer:
    """A cut-out and where it lies; it may reach out of the picture."""

    label: str  # "" is clutter: painted, and in no box
    left: int  # pixels from the picture's left edge
    top: int
    color: NDArray[np.float32]  # (height, width, 3), BGR, 0 to 255
    alpha: NDArray[np.float32]  # (height, width), 0 to 1


class Seen(NamedTuple):
    """What is left of the layers."""

    layers: tuple[Layer, ...]  # to paint, from far to near
    boxes: tuple[Box, ...]
    shares: tuple[float, ...]  # of each box: how much of its thing can be seen
    left_out: tuple[str, ...]  # of each thing without a box: "outside", "hidden" or "small"


def look(layers: Sequence[Layer]) -> Seen:
    """Return what a viewer sees of things that lie over each other.

    Args:
        layers: from far to near.
    """
    covered = np.zeros((HEIGHT, WIDTH), bool)
    kept, left_out = list[tuple[Layer, Box | None, float]](), list[str]()
    for layer in reversed(layers):
        solid = layer.alpha > 0.5
        inside = solid[_own(layer)]
        below = covered[_place(layer)]
        visible = inside & ~below
        share = np.count_nonzero(visible) / max(np.count_nonzero(solid), 1)
        box = box_of(visible, layer)
        if reason := _reason(layer, inside, share, box):
            left_out.append(reason)
            continue
        below |= inside
        kept.append((layer, box if layer.label else None, share))
    kept.reverse()
    return Seen(
        tuple(layer for layer, _, _ in kept),
        tuple(box for _, box, _ in kept if box),
        tuple(share for _, box, share in kept if box),
        tuple(left_out),
    )


def box_of(visible: NDArray[np.bool_], layer: Layer) -> Box | None:
    """Return the box around the pixels of a mask that begins where the layer meets the picture."""
    rows, columns = (np.flatnonzero(visible.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    left, top = max(layer.left, 0), max(layer.top, 0)
    return Box(
        label=layer.label,
        x0=float(left + columns[0]),
        y0=float(top + rows[0]),
        x1=float(left + columns[-1] + 1),
        y1=float(top + rows[-1] + 1),
    )


def paint(picture: NDArray[np.float32], layers: Iterable[Layer]) -> None:
    """Lay the layers over a picture (HEIGHT, WIDTH, 3), in place, the first one first."""
    for layer in layers:
        below, own = picture[_place(layer)], _own(layer)
        below += (layer.color[own] - below) * layer.alpha[own][..., None]


def _reason(layer: Layer, inside: NDArray[np.bool_], share: float, box: Box | None) -> str:
    """Return why a thing gets no box; "" if it does, and for clutter."""
    if not layer.label:
        return ""
    if not inside.any():
        return "outside"
    if box is None or share < LEAST_SHARE:
        return "hidden"
    return "small" if min(box.x1 - box.x0, box.y1 - box.y0) < LEAST_PX else ""


def _place(layer: Layer) -> tuple[slice, slice]:
    """Return the part of the picture that the layer's rectangle covers."""
    height, width = layer.alpha.shape
    rows = slice(max(layer.top, 0), max(layer.top + height, 0))
    return rows, slice(max(layer.left, 0), max(layer.left + width, 0))


def _own(layer: Layer) -> tuple[slice, slice]:
    """Return the part of the layer that lies in the picture."""
    rows = slice(max(-layer.top, 0), max(HEIGHT - layer.top, 0))
    return rows, slice(max(-layer.left, 0), max(WIDTH - layer.left, 0))
