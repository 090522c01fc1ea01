"""What a view is like in so few numbers that thousands can be compared: colors, or features."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fleet_model.types import RgbImage, Tensor, Tensors

SIDE = 8  # cells a side
SIZE = SIDE * SIDE * 3  # numbers of a thumbprint
FULL = 0.25  # mean difference, of 0..1, from which on two views have nothing in common
# Between features of length 1, the same for them. Of EfficientNet-Lite0 on the robot camera frames
# that follow each other are 0.48 apart, and half of all pairs more than 1.18.
FAR = 1.0


def thumbprint(picture: "RgbImage") -> "Tensor":
    """Return the mean color of 8 x 8 cells: (SIZE,) float32, 0..1."""
    import cv2

    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).reshape(-1) / 255


def view_distances(views: "Tensor", view: "Tensor") -> "Tensor":
    """Return how far each of `views`, (n, SIZE), is from one: (n,), 0 is the same, 1 is far."""
    return np.asarray(np.minimum(np.abs(views - view).mean(axis=1) / FULL, 1.0))


def features_of(features: "Tensors") -> "Tensor | None":
    """Return features in one row of length 1, maps by their means; None where a model tells none.

    Args:
        features: see fleet_model.engine.Answer.
    """
    rows = [
        np.asarray(tensor, np.float32).reshape(-1, tensor.shape[-1]).mean(axis=0)
        for _, tensor in sorted(features.items())
        if tensor.ndim
    ]
    if not rows:
        return None
    row = np.concatenate(rows)
    length = float(np.linalg.norm(row))
    return row / length if 0 < length < np.inf else None


def feature_distances(rows: "Tensor", row: "Tensor") -> "Tensor":
    """Return how far each of `rows`, (n, numbers), is from one: (n,), 0 is the same, 1 is far."""
    apart = np.sqrt(np.maximum(2 - 2 * (rows @ row), 0))
    return np.asarray(np.minimum(apart / FAR, 1.0))
