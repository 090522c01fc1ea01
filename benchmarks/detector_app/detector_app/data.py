"""A YOLO data set -> pictures in a square, and the maps that the head should answer."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

STRIDE = 8  # pixels of the square that a cell of the maps covers
SPREAD = 0.54 / 6  # of a thing's width and height: the deviation of its middle (arXiv:1909.00700)
GRAY = 114  # of the bars above and below a picture


def read_yolo(folder: Path, chosen: list[str], labels: list[str], size: int) -> tuple[Any, ...]:
    """Return what `model.fit` takes of the frames whose names are chosen.

    Args:
        folder: holds data.yaml, images and labels.
        chosen: names of files below images.
        labels: in the order of the model's maps.
        size: side of the square.

    Returns:
        images (n, size, size, 3) uint8 RGB; heat (n, G, G, classes); sides and, last, how much
        they count (n, G, G, 5)
    """
    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    grid = size // STRIDE
    images = np.full((len(chosen), size, size, 3), GRAY, np.uint8)
    heat = np.zeros((len(chosen), grid, grid, len(labels)), np.float32)
    sides = np.zeros((len(chosen), grid, grid, 5), np.float32)
    for number, name in enumerate(chosen):
        image = cv2.cvtColor(cv2.imread(str(folder / "images" / name)), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        scale = size / max(height, width)
        inner = round(width * scale), round(height * scale)
        left, top = (size - inner[0]) // 2, (size - inner[1]) // 2
        picture = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
        images[number, top : top + inner[1], left : left + inner[0]] = picture
        text = (folder / "labels" / name).with_suffix(".txt").read_text()
        rows = np.array([line.split() for line in text.splitlines()], np.float64).reshape(-1, 5)
        middle, span = rows[:, 1:3] * [width, height], rows[:, 3:5] * [width, height]
        boxes = np.concatenate([middle - span / 2, middle + span / 2], axis=1)
        boxes = boxes * scale + [left, top, left, top]
        classes = [labels.index(names[int(row[0])]) for row in rows]
        draw(boxes / STRIDE, classes, heat[number], sides[number])
    return images, heat, sides


def draw(boxes: Any, classes: list[int], heat: Any, sides: Any) -> None:
    """Draw the boxes of a frame into its maps.

    Args:
        boxes: (things, 4) x0, y0, x1, y1 in cells.
        classes: of the things.
        heat: (G, G, classes) gets 1 in the middle of a thing, less around it.
        sides: (G, G, 5) gets the logarithm of the way to the four sides, and how much it counts.
    """
    cells = np.arange(len(heat))
    for box, label in zip(boxes, classes, strict=True):
        x0, y0, x1, y1 = box
        middle = np.clip(np.floor([(x0 + x1) / 2, (y0 + y1) / 2]), 0, len(heat) - 1)
        deviation = np.maximum(np.array([x1 - x0, y1 - y0]) * SPREAD, 0.25)
        across, down = (
            np.exp(-((cells - m) ** 2) / (2 * d**2)) for m, d in zip(middle, deviation, strict=True)
        )
        bump = down[:, None] * across[None, :]
        bump[bump <= 0.01] = 0
        heat[..., label] = np.maximum(heat[..., label], bump)
        row, column = np.nonzero(bump > sides[..., 4])  # the closer of two things has a cell
        x, y = column + 0.5, row + 0.5
        ways = np.stack([x - x0, y - y0, x1 - x, y1 - y], axis=-1)
        sides[row, column, :4] = np.log(np.maximum(ways, 0.1))
        sides[row, column, 4] = bump[row, column]
