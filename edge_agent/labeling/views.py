"""A thumbprint of a picture: so few numbers that thousands of views can be compared."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fleet_model.types import RgbImage, Tensor

SIDE = 8  # cells a side
SIZE = SIDE * SIDE * 3  # numbers of a thumbprint
FULL = 0.25  # mean difference, of 0..1, from which on two views have nothing in common


def thumbprint(picture: "RgbImage") -> "Tensor":
    """Return the mean color of 8 x 8 cells: (SIZE,) float32, 0..1."""
    import cv2

    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).reshape(-1) / 255


def view_distances(views: "Tensor", view: "Tensor") -> "Tensor":
    """Return how far each of `views`, (n, SIZE), is from one: (n,), 0 is the same, 1 is far."""
    return np.asarray(np.minimum(np.abs(views - view).mean(axis=1) / FULL, 1.0))
