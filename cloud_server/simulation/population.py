"""Who the virtual robots are: how much data of which labels, how fast, when switched off."""

from dataclasses import dataclass

import numpy as np

from fleet_model.types import Tensor

SPELL_S = 1800.0  # a robot is switched on or off for so long, then it is drawn anew
# Spreads of the lognormal draws: of a hundred robots the 90th has 6 times the examples of the 10th,
# 3.6 times its speed and 7.8 times its bandwidth.
EXAMPLES_SPREAD, SPEED_SPREAD, BANDWIDTH_SPREAD = 0.7, 0.5, 0.8
FEWEST_EXAMPLES = 8
_OFF, _DROP, _LATER = 1, 2, 3  # streams of chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What the fleet is like; medians over its robots."""

    robots: int = 100
    off: float = 0.1  # share of the time that a robot is switched off, in spells of SPELL_S
    drop: float = 0.02  # chance that a robot that is asked goes away before it has answered
    skew: float = 0.5  # Dirichlet: 0.1 one or two labels a robot, 100 the same mix on all
    examples: int = 200
    examples_per_s: float = 100.0  # forward and backward, of the trained part
    mbit_per_s: float = 20.0  # of its network, each way
    seed: int = 0


class Population:
    """All robots as columns: a few dozen bytes each, and everything else follows from the seed."""

    def __init__(self, traits: Traits, labels: int) -> None:
        rng = np.random.default_rng([traits.seed, 3])
        count = traits.robots
        examples = traits.examples * rng.lognormal(0, EXAMPLES_SPREAD, count)
        self.examples = np.maximum(examples, FEWEST_EXAMPLES).astype(np.int64)
        self.examples_per_s = traits.examples_per_s * rng.lognormal(0, SPEED_SPREAD, count)
        self.bytes_per_s = traits.mbit_per_s * 125_000 * rng.lognormal(0, BANDWIDTH_SPREAD, count)
        self.mix = rng.dirichlet(np.full(labels, traits.skew), count)  # (robots, labels)
        # A tiny skew underflows to no label at all on some robots: those get an even mix.
        self.mix[~np.isfinite(self.mix).all(axis=1)] = 1 / labels
        self._phase_s = rng.uniform(0, SPELL_S, count)
        self._numbers = np.arange(count, dtype=np.uint64)
        self._traits = traits

    def __len__(self) -> int:
        return self._traits.robots

    def online(self, now_s: float) -> Tensor:
        """Return the numbers of the robots that are switched on, ascending."""
        spells = ((now_s + self._phase_s) // SPELL_S).astype(np.uint64)
        off = _chance(self._traits.seed, _OFF, self._numbers, spells) < self._traits.off
        numbers: Tensor = np.flatnonzero(~off)
        return numbers

    def work_s(self, robot: int, epochs: int) -> float:
        """Return the seconds that one training takes."""
        return float(self.examples[robot] * epochs / self.examples_per_s[robot])

    def transfer_s(self, robot: int, size_bytes: float) -> float:
        """Return the seconds that a message takes one way."""
        return float(size_bytes / self.bytes_per_s[robot])

    def gone(self, robots: Tensor, questions: Tensor) -> Tensor:
        """Return per question how far (0..1) its robot gets before it goes away; NaN if it stays.

        `questions` are numbers that the fleet has not used before: they are what is drawn by.
        """
        seed, numbers = self._traits.seed, robots.astype(np.uint64)
        goes = _chance(seed, _DROP, numbers, questions) < self._traits.drop
        share: Tensor = np.where(goes, _chance(seed, _LATER, numbers, questions), np.nan)
        return share


def _chance(seed: int, stream: int, robots: Tensor, moments: Tensor) -> Tensor:
    """Return one number in [0, 1) per pair: always the same one, in any order, nothing stored."""
    key = np.uint64((seed * 8 + stream) % 2**64)
    mixed = _mix(_mix(_mix(np.full(1, key)) ^ robots) ^ moments)
    chance: Tensor = (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
    return chance


def _mix(x: Tensor) -> Tensor:
    """Return SplitMix64's output for state x (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Tensor = x ^ (x >> np.uint64(31))
    return mixed
