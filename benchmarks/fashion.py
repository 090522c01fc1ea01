"""Fashion-MNIST (Zalando 2017, MIT license), dealt to robots so that they see different classes.

70,000 pictures of 28 x 28 pixels, ten classes, from the Debian package dataset-fashion-mnist, which
is unpacked below build/ without root. One fixed permutation says which of the 60,000 training
pictures a benchmark trains with; tuning takes others, and never sees the test pictures.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.debian import unpacked

PACKAGE, INSTALLED = "dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")
CLASSES = 10
LEAST = 10  # pictures of a robot: the dealing is repeated until all have so many
PARTS = ("train", "t10k")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Grey pictures (n, 28, 28) uint8, and the class of each."""

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)

    def part(self, rows: Any) -> "Pictures":
        """Return some of them."""
        return Pictures(self.pixels[rows], self.classes[rows])


def read_fashion(work: Path) -> tuple[Pictures, Pictures]:
    """Return the 60,000 training pictures in a fixed order, and the 10,000 test pictures."""
    cached = work / "fashion.npz"
    if not cached.exists():
        folder = unpacked(PACKAGE, INSTALLED)
        work.mkdir(parents=True, exist_ok=True)
        arrays = {}
        for part in PARTS:
            arrays[f"{part}_pixels"] = _idx(folder / f"{part}-images-idx3-ubyte.gz")
            arrays[f"{part}_classes"] = _idx(folder / f"{part}-labels-idx1-ubyte.gz")
        aside = cached.with_suffix(".part.npz")
        np.savez(aside, **arrays)
        aside.rename(cached)
    with np.load(cached) as made:
        train, test = (
            Pictures(made[f"{part}_pixels"], made[f"{part}_classes"].astype(np.int64))
            for part in PARTS
        )
    return train.part(np.random.default_rng(0).permutation(len(train))), test


def _idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes: 0, 0, 8, axes, then the length of each axis, big-endian."""
    with gzip.open(path) as file:
        content = file.read()
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def deal(
    classes: NDArray[np.int64], robots: int, skew: float, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return who gets which pictures: of each class every robot gets a Dirichlet share.

    The partition of arXiv:2102.02079, section 4.1, which most papers use: it is drawn again until
    no robot has fewer than LEAST pictures.

    Args:
        classes: of all pictures.
        robots: to deal to.
        skew: the Dirichlet parameter; 0.1: a robot has mostly two or three classes.
        rng: draws.

    Returns:
        The rows of each robot, in random order; all together every row once.
    """
    while True:
        own: list[list[NDArray[np.int64]]] = [[] for _ in range(robots)]
        for name in range(CLASSES):
            rows = rng.permutation(np.flatnonzero(classes == name))
            shares = rng.dirichlet(np.full(robots, skew))
            cuts = np.round(np.cumsum(shares)[:-1] * len(rows)).astype(int)
            for parts, rows_of in zip(own, np.split(rows, cuts), strict=True):
                parts.append(rows_of)
        dealt = [rng.permutation(np.concatenate(parts)) for parts in own]
        if min(map(len, dealt)) >= LEAST:
            return dealt
