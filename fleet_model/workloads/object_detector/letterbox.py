"""Fit a frame of any shape into the square that a model takes, and take boxes back out of it."""

from typing import NamedTuple, Protocol

import numpy as np

from fleet_model.types import RgbImage, Tensor
from fleet_model.workloads.scaling import scaled

GRAY = 114  # of the bars: as YOLOv5 and its successors have them


class Placed(Protocol):
    """Where a frame lies in what a model takes."""

    def outside(self, boxes: Tensor) -> Tensor:
        """Return boxes of the input in pixels of the frame, cut off at its edges: (boxes, 4)."""
        ...


class Letterbox(NamedTuple):
    """Where a frame lies in the square: square = frame * scale + (left, top)."""

    scale: float  # pixels of the square for one of the frame
    left: int  # pixels of the square
    top: int
    width: int  # of the frame, pixels
    height: int

    @classmethod
    def of(cls, width: int, height: int, size: int) -> "Letterbox":
        """Return how a frame is fitted into a square of `size` pixels: whole, in the middle."""
        scale = size / max(width, height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(scale, (size - inner[0]) // 2, (size - inner[1]) // 2, width, height)

    def picture(self, image: RgbImage, size: int) -> RgbImage:
        """Return a picture of the frame, of any scale, in the square: (size, size, 3) uint8."""
        inner = max(1, round(self.width * self.scale)), max(1, round(self.height * self.scale))
        square = np.full((size, size, 3), GRAY, np.uint8)
        square[self.top : self.top + inner[1], self.left : self.left + inner[0]] = scaled(
            image, *inner
        )
        return square

    def inside(self, boxes: Tensor) -> Tensor:
        """Return boxes of the frame as they lie in the square.

        Args:
            boxes: (boxes, 4) x0, y0, x1, y1 in pixels of the frame.
        """
        return np.asarray(boxes * self.scale + np.array([self.left, self.top] * 2))

    def outside(self, boxes: Tensor) -> Tensor:
        """Return boxes of the square in pixels of the frame, cut off at its edges: (boxes, 4)."""
        back = (boxes - np.array([self.left, self.top] * 2)) / self.scale
        return np.asarray(np.clip(back, 0, [self.width, self.height] * 2))
