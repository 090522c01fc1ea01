"""Grips that a robot has recorded; here they are made up."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fleet_model.types import Example

PADS = 6  # rows and columns of touch sensors


class Grip(NamedTuple):
    """One recorded grip."""

    touch: np.ndarray  # (PADS, PADS) float32, 0..1
    pose: np.ndarray  # (3,) float32, radians
    force: np.ndarray  # (2,) float32, newtons that held it
    slips: bool


def recorded(seed: int, count: int) -> Iterator[Grip]:
    """Yield grips whose forces follow from touch and pose."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        touch = rng.random((PADS, PADS), np.float32)
        pose = rng.uniform(-1, 1, 3).astype(np.float32)
        force = np.array([touch[:3].mean() + pose[0], touch[3:].mean() - pose[1]], np.float32)
        yield Grip(touch, pose, force, bool(pose[2] > 0))


class Grips:
    """`[examples] source = "grips"`."""

    def __init__(self, seed: int, count: int) -> None:
        self._seed, self._count = seed, count
        self.left_out: dict[str, int] = {}

    def examples(self) -> Iterator[Example]:
        for number, grip in enumerate(recorded(self._seed, self._count)):
            yield Example(raw=grip, key=f"grip/{self._seed}/{number}", held_out=number % 4 == 0)
