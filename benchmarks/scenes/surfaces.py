"""Floors and walls: made by formula, or from photographs that scikit-image carries in its wheel."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
FLOOR_PX = 1024  # of a square that is laid side by side
PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket")  # pictures on walls
GROUNDS = ("brick", "grass", "gravel")


@cache
def photo(name: str) -> NDArray[np.uint8]:
    """Return a photograph as BGR (height, width, 3)."""
    import skimage

    # `skimage.data` reads the same pixels, and loads SciPy first: 0.4 s.
    (file,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
    return np.asarray(cv2.imread(str(file)), np.uint8)


def clouds(rng: np.random.Generator, height: int, width: int, cells: int = 4) -> Floats:
    """Return smooth noise of several scales, about -1 to 1, that fits to itself side by side."""
    total = np.zeros((height, width), np.float32)
    for octave in range(5):
        grid = rng.uniform(-1, 1, (cells << octave,) * 2).astype(np.float32)
        wrapped = np.pad(grid, 2, mode="wrap")
        scale = np.array([height, width]) / len(grid)
        large = cv2.resize(wrapped, None, fx=scale[1], fy=scale[0], interpolation=cv2.INTER_CUBIC)
        top, left = (2 * scale).astype(int)
        total += large[top : top + height, left : left + width] / 1.7**octave
    return total


def paint_of(rng: np.random.Generator, low: float = 70, high: float = 215) -> Floats:
    """Return a color that floors and walls have: not very saturated, BGR."""
    gray, tint = rng.uniform(low, high), rng.uniform(-0.25, 0.25)
    color = gray * np.array([1 - tint, 1 + rng.uniform(-0.08, 0.08), 1 + tint])
    return np.clip(color, 15, 240).astype(np.float32)


def planks(rng: np.random.Generator) -> Floats:
    """Wooden boards: each with its own tone, with grain along it."""
    rows, size = int(rng.integers(6, 13)), FLOOR_PX
    wood = np.array([75, 115, 165]) * rng.uniform(0.5, 1.25) * rng.uniform(0.85, 1.15, 3)
    made = np.empty((size, size, 3), np.float32)
    grain = cv2.GaussianBlur(rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), 28, None, 1)
    grain += 0.15 * clouds(rng, size, size, 8)
    edges = np.linspace(0, size, rows + 1).astype(int)
    for top, bottom in pairwise(edges):
        cut = int(rng.integers(size))
        tones = np.where(np.arange(size) < cut, *rng.uniform(0.8, 1.15, 2))
        board = tones[None, :, None] * (1 + 0.5 * np.roll(grain[top:bottom], cut, 1)[..., None])
        made[top:bottom] = wood * board
        made[top : top + 3] *= 0.55
        made[top:bottom, cut : cut + 3] *= 0.6
    return made


def tiles(rng: np.random.Generator) -> Floats:
    """Square tiles with joints; some floors have two colors of them."""
    count, size = int(rng.integers(3, 9)), FLOOR_PX
    side = size // count
    colors = [paint_of(rng)] * 2
    if rng.random() < 0.5:
        colors[1] = paint_of(rng, 40, 230)
    made = np.empty((size, size, 3), np.float32)
    made[:] = paint_of(rng, 40, 120)
    marble = clouds(rng, size, size, 6)
    for row in range(count):
        for column in range(count):
            where = np.s_[
                row * side + 3 : (row + 1) * side, column * side + 3 : (column + 1) * side
            ]
            veins = 1 + 0.07 * marble[where][..., None]
            made[where] = colors[(row + column) % 2] * rng.uniform(0.94, 1.06) * veins
    return made


def carpet(rng: np.random.Generator) -> Floats:
    """Woven or speckled floor, with stripes or without."""
    size, rows = FLOOR_PX, int(rng.integers(5, 20))
    thread = cv2.GaussianBlur(rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), 1.1)
    made = paint_of(rng, 45, 160) * (1 + rng.uniform(0.2, 0.6) * thread[..., None])
    if rng.random() < 0.6:
        stripe = (np.arange(size) * rows // size) % 2 == 0
        made[stripe] = made[stripe] * 0.5 + paint_of(rng) * 0.5
    return made.astype(np.float32)


def concrete(rng: np.random.Generator) -> Floats:
    """Gray screed with stains, cracks and colored lines."""
    size = FLOOR_PX
    cloud = clouds(rng, size, size, 3)
    made = paint_of(rng, 80, 190) * (1 + 0.13 * cloud[..., None])
    made += rng.normal(0, 4, (size, size, 1))
    made = np.ascontiguousarray(made, np.float32)
    for _ in range(int(rng.integers(0, 5))):
        start = rng.integers(0, size, 2)
        steps = np.cumsum(rng.integers(-22, 23, (18, 2)) + rng.integers(-14, 15, 2), 0)
        cv2.polylines(made, [(start + steps).astype(np.int32)], False, (60, 60, 60), 2, cv2.LINE_AA)
    if rng.random() < 0.5:
        row, color = int(rng.integers(size)), [(40, 190, 230), (220, 220, 220), (200, 110, 40)]
        cv2.line(made, (0, row), (size, row), color[int(rng.integers(3))], 26)
    return made


def ground(rng: np.random.Generator) -> Floats:
    """A photographed ground, tinted."""
    picture = photo(str(rng.choice(GROUNDS)))
    square = cv2.resize(picture, (FLOOR_PX // 2,) * 2, interpolation=cv2.INTER_AREA)
    half = np.hstack([square, square[:, ::-1]])
    made = np.vstack([half, half[::-1]]).astype(np.float32)
    return np.asarray(made * rng.uniform(0.6, 1.1) * rng.uniform(0.85, 1.15, 3), np.float32)


FLOORS: tuple[Callable[[np.random.Generator], Floats], ...] = (
    planks, tiles, carpet, concrete, ground,
)  # fmt: skip


def draw_wall(rng: np.random.Generator, width: int, height: int) -> Floats:
    """Return a wall (height, width, 3): paint, and what stands and hangs at it.

    All of it is clutter: photographs, cupboards, doors, windows, signs of one color.
    """
    made = np.empty((height, width, 3), np.float32)
    made[:] = paint_of(rng, 90, 225)
    kind = rng.integers(3)
    if kind == 1:  # masonry
        masonry = photo("brick").astype(np.float32)
        rows, columns = -(-height // 256), -(-width // 256)
        small = np.tile(cv2.resize(masonry, (256, 256)), (rows, columns, 1))
        made = small[:height, :width] / 150 * made
    elif kind == 2:  # two colors
        made[int(height * rng.uniform(0.4, 0.7)) :] = paint_of(rng, 60, 200)
    made *= 1 + 0.05 * clouds(rng, height, width)[..., None]
    for _ in range(int(rng.integers(width // 130, width // 60 + 2))):
        _hang(made, rng)
    skirting = int(rng.integers(5, 16))
    made[-skirting:] = paint_of(rng, 40, 230)
    return np.ascontiguousarray(made, np.float32)


def _hang(wall: Floats, rng: np.random.Generator) -> None:
    """Put one piece of clutter onto a wall, in place."""
    height, width = wall.shape[:2]
    kind = str(rng.choice(["photo", "photo", "cupboard", "door", "window", "sign"]))
    wide = int({"door": 115, "cupboard": rng.integers(60, 220)}.get(kind, rng.integers(40, 150)))
    high = int({"door": 250, "cupboard": rng.integers(50, 200)}.get(kind, rng.integers(40, 120)))
    high = min(high, height - 20)
    left = int(rng.integers(-wide // 2, max(width - wide // 2, 1)))
    stands = kind in ("door", "cupboard")
    top = height - high if stands else int(rng.integers(10, max(height - high - 40, 11)))
    part: Any = wall[top : top + high, max(left, 0) : left + wide]
    if not part.size:
        return
    if kind == "photo":
        part[:] = _crop(rng, *part.shape[:2])
    elif kind == "window":
        part[:] = np.linspace(235, 200, len(part))[:, None, None] * np.array([1, 0.97, 0.92])
        part[:, part.shape[1] // 2 - 2 : part.shape[1] // 2 + 2] = 90
    else:
        part[:] = paint_of(rng, 30, 230) * (rng.uniform(0.4, 1.6, 3) if kind == "sign" else 1)
        if kind == "cupboard":
            for row in np.linspace(0, len(part), int(rng.integers(2, 6)), dtype=int)[1:-1]:
                part[row : row + 3] *= 0.5
    frame = np.clip(paint_of(rng, 20, 240), 0, 255).tolist()
    cv2.rectangle(wall, (left, top), (left + wide, top + high), frame, int(rng.integers(1, 5)))


def _crop(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Return a part of one of the photographs in this size."""
    picture = photo(str(rng.choice(PHOTOS)))
    scale = rng.uniform(0.4, 0.95) * min(picture.shape[0] / height, picture.shape[1] / width)
    rows, columns = max(int(height * scale), 2), max(int(width * scale), 2)
    top = int(rng.integers(0, picture.shape[0] - rows + 1))
    left = int(rng.integers(0, picture.shape[1] - columns + 1))
    part = picture[top : top + rows, left : left + columns]
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
