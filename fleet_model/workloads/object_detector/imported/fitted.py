"""Fit a frame of any shape into the input of another tool's model, and take boxes back out."""

from typing import NamedTuple

import numpy as np

from fleet_model.types import RgbImage, Tensor
from fleet_model.workloads.object_detector.imported.reading import Fit
from fleet_model.workloads.scaling import scaled


class Fitted(NamedTuple):
    """Where a frame lies in the input: input = frame * (x_scale, y_scale) + (left, top)."""

    x_scale: float  # pixels of the input for one of the frame
    y_scale: float
    left: int  # pixels of the input
    top: int
    width: int  # of the frame, pixels
    height: int

    @classmethod
    def of(cls, fit: Fit, frame: tuple[int, int], size: tuple[int, int]) -> "Fitted":
        """Return how a frame is fitted.

        Args:
            fit: "letterbox" whole in the middle, "corner" whole in the upper left one, "stretch"
                over all of the input.
            frame: its width and height, pixels.
            size: width and height of the input, pixels.
        """
        x_scale, y_scale = size[0] / frame[0], size[1] / frame[1]
        if fit != "stretch":
            x_scale = y_scale = min(x_scale, y_scale)
        inner = _inner(x_scale, y_scale, frame)
        middle = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
        left, top = middle if fit == "letterbox" else (0, 0)
        return cls(x_scale, y_scale, left, top, *frame)

    def picture(self, image: RgbImage, size: tuple[int, int], gray: int) -> RgbImage:
        """Return a picture of the frame, of any scale, in the input: (height, width, 3) uint8."""
        inner = _inner(self.x_scale, self.y_scale, (self.width, self.height))
        whole = np.full((size[1], size[0], 3), gray, np.uint8)
        inside = whole[self.top : self.top + inner[1], self.left : self.left + inner[0]]
        inside[:] = scaled(image, *inner)
        return whole

    def inside(self, boxes: Tensor) -> Tensor:
        """Return boxes of the frame, (boxes, 4) x0, y0, x1, y1, as they lie in the input."""
        return np.asarray(boxes * self._scales + self._corner)

    def outside(self, boxes: Tensor) -> Tensor:
        """Return boxes of the input in pixels of the frame, cut off at its edges: (boxes, 4)."""
        back = (boxes - self._corner) / self._scales
        return np.asarray(np.clip(back, 0, [self.width, self.height] * 2))

    @property
    def _scales(self) -> Tensor:
        return np.array([self.x_scale, self.y_scale] * 2)

    @property
    def _corner(self) -> Tensor:
        return np.array([self.left, self.top] * 2)


def _inner(x_scale: float, y_scale: float, frame: tuple[int, int]) -> tuple[int, int]:
    return max(1, round(frame[0] * x_scale)), max(1, round(frame[1] * y_scale))
