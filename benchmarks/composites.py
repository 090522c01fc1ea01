"""Frames with boxes made of drawings on photographs, one robot's; unseen robots see other drawings.

usage: python -m benchmarks.composites OUT --robot hall-1/r1 --frames 240 --seed 1

The drawings are photographic stamps with alpha of the Debian package tuxpaint-stamps-default
(GPL-2), which is unpacked below build/ without root and never becomes part of this repository. The
photographs are those that scikit-image carries in its wheel. The robot's name and the seed decide
every byte.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.debian import unpacked
from benchmarks.scenes.data_set import (
    TRAINING,
    Shot,
    class_shares,
    command_line,
    drives,
    generator,
    write_set,
)  # fmt: skip
from benchmarks.scenes.layers import HEIGHT, WIDTH, Layer, look, paint
from benchmarks.scenes.lens import Lens, draw_lens, expose
from benchmarks.scenes.surfaces import photo

PACKAGE, STAMPS = "tuxpaint-stamps-default", Path("/usr/share/tuxpaint/stamps")
FOLDERS = {
    "bird": "animals/birds",
    "flower": "plants/flowers",
    "fruit": "food/fruit",
    "mammal": "animals/mammals",
    "roadsign": "town/roadsigns",
    "tool": "household/tools",
    "vegetable": "food/vegetables",
    "vehicle": "vehicles",
}
LABELS = tuple(FOLDERS)
FOR_TRAINING = 0.7  # of the drawings of a class
PHOTOS = {  # without anything that is a class
    True: ("astronaut", "brick", "coffee", "grass", "ihc", "page"),
    False: ("camera", "clock_motion", "coins", "gravel", "retina", "text"),
}
SIDES_PX = (20, 330)  # of a drawing's longer side
MOST = 8

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Robot:
    """What one robot has of its own."""

    drawings: Mapping[str, Sequence[Path]]  # label -> files
    photos: Sequence[str]
    lens: Lens
    crowd: float  # drawings in a frame, on average; one more than this
    sun: NDArray[np.float64]  # (2,) pixels that shadows reach right and down, for 100 of a drawing
    shares: NDArray[np.float64]  # of LABELS


def draw_robot(name: str, seed: int, root: Path, prior: str = "dirichlet") -> Robot:
    """Draw the robot `site/name`: those of TRAINING see other drawings than all others.

    Args:
        name: of site and robot.
        seed: of the fleet.
        root: folder of the stamps.
        prior: see `class_shares`.
    """
    trains = name in TRAINING
    lamps = generator(seed, "site", name.partition("/")[0]).uniform(0.85, 1.15, 3)
    rng = generator(seed, "robot", name)
    return Robot(
        drawings={label: split(files_of(root / FOLDERS[label]), trains=trains) for label in LABELS},
        photos=tuple(map(str, rng.choice(PHOTOS[trains], 3, replace=False))),
        lens=draw_lens(rng, lamps),
        crowd=rng.uniform(1.5, 4),
        sun=rng.uniform(-10, 10, 2),
        shares=class_shares(rng, len(LABELS), prior),
    )


def files_of(folder: Path) -> list[Path]:
    """Return the drawings with alpha below a folder, without mirrored and turned copies."""
    files = (file for file in folder.rglob("*.png") if not re.search("mirror|flip", file.name))
    return sorted(file for file in files if _has_alpha(file))


def split(files: Sequence[Path], *, trains: bool) -> list[Path]:
    """Return the part of the drawings that is for training, or the rest; no drawing is in both.

    Files whose names begin with the same word (apple_red, apple-cut) are taken for one drawing. The
    same ones are for training with every seed.
    """
    drawings = sorted({drawing_of(file) for file in files})
    order = generator("drawings", *drawings).permutation(len(drawings))
    chosen = {drawings[place] for place in order[: round(FOR_TRAINING * len(drawings))]}
    return [file for file in files if (drawing_of(file) in chosen) == trains]


def drawing_of(file: Path) -> str:
    """Return the word by which a file is the same drawing as others."""
    return re.split(r"[^a-z]", file.stem.lower().lstrip("0123456789_-"))[0]


@lru_cache(maxsize=100)
def cut_out(file: Path) -> NDArray[np.uint8]:
    """Return a drawing, as (height, width, 4) BGRA around what is not transparent."""
    content = np.asarray(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), np.uint8)
    rows, columns = (np.flatnonzero((content[..., 3] > 127).any(axis)) for axis in (1, 0))
    part = content[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(2 * SIDES_PX[1] / max(part.shape[:2]), 1.0)
    return np.asarray(cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def _has_alpha(file: Path) -> bool:
    """Return whether a PNG says, in bytes 24 and 25, that it has 8 bits of RGB and alpha."""
    with file.open("rb") as stream:
        return stream.read(26)[24:] == b"\x08\x06"


@dataclass(frozen=True, eq=False)
class Pasted:
    """A drawing and how it moves through a drive."""

    label: str
    picture: NDArray[np.uint8]  # (height, width, 4), BGRA
    side_px: float  # of its longer side, in the first frame
    turn: float  # degrees
    light: Floats  # (3,) factor
    at: NDArray[np.float64]  # (2,) its center's column and row in the first frame

    def layer(self, zoom: float, moved: NDArray[np.float64]) -> Layer:
        """Return it, enlarged around the middle of the picture and then moved by pixels."""
        scale = self.side_px * zoom / max(self.picture.shape[:2])
        small = self.picture
        if scale < 0.7:  # before it is turned: turning takes single pixels
            small = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            scale = 1.0
        high, wide = small.shape[:2]
        side = int(np.ceil(np.hypot(high, wide) * scale)) + 2
        turn = cv2.getRotationMatrix2D((wide / 2, high / 2), self.turn, scale)
        turn[:, 2] += side / 2 - np.array([wide / 2, high / 2])
        small = small.astype(np.float32)
        alpha = small[..., 3:] / 255
        premultiplied = np.concatenate([small[..., :3] * alpha, alpha], 2)
        made = cv2.warpAffine(premultiplied, turn, (side, side), flags=cv2.INTER_LINEAR)
        cover = np.clip(made[..., 3], 0, 1)
        color = made[..., :3] / np.maximum(cover, 1e-3)[..., None] * self.light
        middle = np.array([WIDTH, HEIGHT]) / 2
        left, top = np.round((self.at - middle) * zoom + middle + moved - side / 2).astype(int)
        return Layer(self.label, int(left), int(top), color, cover)


class Drive:
    """A few frames of the same drawings on the same photograph."""

    def __init__(self, robot: Robot, rng: np.random.Generator, *, empty: bool) -> None:
        """Draw what is seen; `empty`: nothing but the photograph."""
        self._robot, self._rng = robot, rng
        self._photo = photo(str(rng.choice(robot.photos)))
        high, wide = self._photo.shape[:2]
        self._crop_px = rng.uniform(0.45, 0.9) * min(high, wide * HEIGHT / WIDTH)  # its height
        self._corner = rng.uniform(0.1, 0.9, 2)  # of the free play, x and y
        self._tint = rng.uniform(0.75, 1.1, 3).astype(np.float32)
        self._drift = rng.normal(0, 7, 2)  # pixels for each frame
        self._zoom = rng.normal(1, 0.02)
        self._pasted = list[Pasted]()
        for _ in range(0 if empty else min(1 + int(rng.poisson(robot.crowd)), MOST)):
            self._paste()

    def shot(self, frame: int) -> Shot:
        """Take the picture of one frame."""
        zoom, moved = self._zoom**frame, self._drift * frame
        seen = look([one.layer(zoom, moved) for one in self._pasted])
        scene = self._background(zoom, moved)
        for layer in seen.layers:
            paint(scene, [self._shadow(layer), layer])
        lens = self._robot.lens
        return Shot(expose(scene, lens, self._rng), seen.boxes, seen.shares, seen.left_out)

    def _paste(self) -> None:
        """Add a drawing in front of the others; half of them lie over another one."""
        robot, rng = self._robot, self._rng
        label = LABELS[rng.choice(len(LABELS), p=robot.shares)]
        files = robot.drawings[label]
        picture = cut_out(files[rng.integers(len(files))])
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        at = rng.uniform(0.05, 0.95, 2) * (WIDTH, HEIGHT)
        if self._pasted and rng.random() < 0.5:
            other = self._pasted[rng.integers(len(self._pasted))]
            at = other.at + rng.normal(0, 0.4, 2) * other.side_px
        side_px = float(np.exp(rng.uniform(*np.log(SIDES_PX))))
        light = (rng.uniform(0.6, 1.1) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
        self._pasted.append(Pasted(label, picture, side_px, rng.normal(0, 14), light, at))

    def _background(self, zoom: float, moved: NDArray[np.float64]) -> Floats:
        high, wide = self._photo.shape[:2]
        scale = self._crop_px / HEIGHT / zoom
        size = np.array([WIDTH, HEIGHT]) * scale
        left, top = self._corner * (np.array([wide, high]) - size) - moved * scale
        part = np.array([[scale, 0, left], [0, scale, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        made = cv2.warpAffine(
            self._photo, part, (WIDTH, HEIGHT), flags=flags, borderMode=cv2.BORDER_REFLECT
        )
        return np.asarray(made * self._tint, np.float32)

    def _shadow(self, layer: Layer) -> Layer:
        side = max(layer.alpha.shape)
        right, down = np.round(self._robot.sun * side / 100).astype(int)
        soft = cv2.GaussianBlur(layer.alpha, (0, 0), max(side / 40, 0.8)) * np.float32(0.45)
        dark = np.zeros_like(layer.color)
        return Layer("", layer.left + int(right), layer.top + int(down), dark, soft)


def shots(name: str, robot: Robot, frames: int, seed: int) -> Iterator[Shot]:
    """Yield a robot's frames in the order of time."""
    for number, (length, empty) in enumerate(drives(frames, generator(seed, "drives", name))):
        drive = Drive(robot, generator(seed, "drive", name, number), empty=empty)
        yield from map(drive.shot, range(length))


def write_composites(
    out: Path, robot: str, frames: int, seed: int, prior: str = "dirichlet"
) -> dict[str, Any]:
    """Write one robot's data set; return what is in it, see `write_set`."""
    drawn = draw_robot(robot, seed, unpacked(PACKAGE, STAMPS), prior)
    return write_set(out, robot, frames, seed, shots(robot, drawn, frames, seed))


if __name__ == "__main__":
    command_line(__doc__, write_composites)
