"""scikit-learn's digits through the demo's trunk, dealt to twenty robots, four of them hostile.

1,797 scans of 8 x 8 pixels, ten classes. Robots train a softmax head on frozen features with the
optimizer of the agent; 500 pictures, drawn by the seed, measure.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.environments import environment
from cloud_server.aggregation.aggregator import build_aggregator
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.simulation.learning import Examples, descend
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.engine import StagedModel
from fleet_model.signatures import FEATURES, TRUNK
from fleet_model.types import Checkpoint, TrainConfig, Update, Weights
from fleet_model.weights import difference, l2_norm
from fleet_model.workload import rebuild

ROBOTS, CLASSES, MEASURED = 20, 10, 500
Floats = NDArray[np.floating[Any]]
_DUMP = (
    "import numpy, sklearn.datasets as d; one = d.load_digits(); "
    "numpy.savez('digits.npz', images=one.images, target=one.target)"
)


@dataclass(frozen=True, eq=False)
class Digits:
    """Features (n, width) float32, and the class of each."""

    features: Floats
    classes: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DigitFleet:
    """Who has which pictures."""

    robots: Sequence[Digits]
    measured: Digits

    def first(self) -> Checkpoint:
        """Return version 0: zeros."""
        width = self.measured.features.shape[1]
        kernel = np.zeros((width, CLASSES), np.float32)
        return Checkpoint(
            version=0, weights={"kernel": kernel, "bias": np.zeros(CLASSES, np.float32)}
        )

    def accuracy(self, weights: Weights) -> float:
        """Return the share of the measuring pictures that are named rightly."""
        logits = self.measured.features @ weights["kernel"] + weights["bias"]
        return float((logits.argmax(1) == self.measured.classes).mean())


def read_digits(work: Path, server_model: Path) -> Digits:
    """Return all digits as the trunk sees them; made once, half a minute."""
    cached = work / "digit_features.npz"
    if not cached.exists():
        python = environment("digits").bin / "python"
        subprocess.run([python, "-c", _DUMP], cwd=work, check=True)
        with np.load(work / "digits.npz") as raw:
            images, classes = raw["images"], raw["target"]
        spec = parse_trainer((server_model / TRAINER).read_bytes())
        inputs = rebuild(spec.workload).task.inputs
        trunk = StagedModel([server_model / TRUNK], inputs, None)
        side = inputs["image"].shape[0]
        features = [trunk({"image": _picture(one, side)})[FEATURES].reshape(-1) for one in images]
        np.savez(cached.with_suffix(".part.npz"), features=np.stack(features), classes=classes)
        cached.with_suffix(".part.npz").rename(cached)
    with np.load(cached) as made:
        return Digits(made["features"], made["classes"].astype(np.int64))


def _picture(scan: Floats, side: int) -> Floats:
    """Return a scan (8, 8) of 0..16 as an RGB picture (side, side, 3) of 0..255."""
    large = cv2.resize(
        scan.astype(np.float32) * 255 / 16, (side, side), interpolation=cv2.INTER_CUBIC
    )
    return np.repeat(np.clip(large, 0, 255)[..., None], 3, axis=2)


def digit_fleet(digits: Digits, seed: int, skew: float) -> DigitFleet:
    """Deal the pictures; each class is dealt by Dirichlet shares over the robots (1909.06335).

    Args:
        digits: all.
        seed: of the dealing.
        skew: 0.1: a robot has one or two classes; 100: all have the same.
    """
    rng = np.random.default_rng([seed, 77])
    order = rng.permutation(len(digits.classes))
    measured, rest = order[:MEASURED], order[MEASURED:]
    mixes = rng.dirichlet(np.full(CLASSES, skew), ROBOTS)  # (robots, classes)
    own: list[list[int]] = [[] for _ in range(ROBOTS)]
    for index in rest:
        chances = mixes[:, digits.classes[index]]
        own[rng.choice(ROBOTS, p=chances / chances.sum())].append(int(index))
    return DigitFleet(
        robots=[_part(digits, one) for one in own if one], measured=_part(digits, measured)
    )


def _part(digits: Digits, indices: Any) -> Digits:
    return Digits(digits.features[indices], digits.classes[indices])


def fit(own: Digits, start: Checkpoint, config: TrainConfig) -> Update:
    """Train one robot's head as the virtual robots of `cloud-server simulate` do."""
    kernel, bias, steps = descend(
        Examples(own.features, own.classes),
        start.weights["kernel"],
        start.weights["bias"],
        config,
        np.random.default_rng(config.seed),
    )
    return Update(
        robot="",
        base_version=start.version,
        weights=difference({"kernel": kernel, "bias": bias}, start.weights),
        num_examples=len(own.classes),
        num_steps=steps,
    )


HOSTILE, MAX_NORM_RATIO = 4, 10  # the ratio is that of [checks]
ATTACKS = ("none", "flipped", "scaled", "noise", "labels")
NAMED = "multi_krum, keep 16"
RULES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "fedavg": ("fedavg", {}),
    "norm_bounded": ("norm_bounded", {}),
    "median": ("median", {}),
    "trimmed_mean": ("trimmed_mean", {"share": 0.2}),
    "krum": ("krum", {"hostile": HOSTILE}),
    "multi_krum": ("multi_krum", {"hostile": HOSTILE}),
    NAMED: ("multi_krum", {"hostile": HOSTILE, "keep": ROBOTS - HOSTILE}),
}


def attack_row(fleet: DigitFleet, name: str, exchanges: int) -> Mapping[str, float]:
    """Return attack -> accuracy under one of RULES, with logit adjustment."""
    rule, options = RULES[name]
    return {
        attack: fleet.accuracy(learn(fleet, rule, options, 1.0, exchanges, attack))
        for attack in ATTACKS
    }


def learn(
    fleet: DigitFleet,
    rule: str,
    options: Mapping[str, Any],
    tau: float,
    exchanges: int,
    attack: str = "none",
) -> Weights:
    """Return what a fleet has learned; no robot counts for more than the median, as in [checks].

    Args:
        fleet: who takes part.
        rule: of [aggregation].
        options: of the rule.
        tau: logit adjustment.
        exchanges: rounds.
        attack: of the first four robots.
    """
    aggregator, checkpoint = build_aggregator(rule, options), fleet.first()
    for number in range(exchanges):
        configs = [
            TrainConfig(seed=1000 * number + robot, logit_adjustment=tau)
            for robot in range(len(fleet.robots))
        ]
        updates = [
            fit(own, checkpoint, config) for own, config in zip(fleet.robots, configs, strict=True)
        ]
        usual = float(np.median([l2_norm(one.weights) for one in updates[HOSTILE:]]))
        for robot in range(HOSTILE if attack != "none" else 0):
            own, honest = fleet.robots[robot], updates[robot]
            if attack == "labels":
                turned = Digits(own.features, CLASSES - 1 - own.classes)
                weights = fit(turned, checkpoint, configs[robot]).weights
            else:
                seed = [number, robot]
                weights = hostile(attack, honest.weights, MAX_NORM_RATIO * usual, seed)
            updates[robot] = replace(honest, weights=weights)
        checkpoint = aggregator.fold(checkpoint, contributions_of(updates))
    return checkpoint.weights


def hostile(attack: str, honest: Weights, longest: float, seed: Sequence[int]) -> Weights:
    """Return what a hostile robot sends in the place of its update.

    flipped: the opposite. scaled: the opposite, as long as the server lets it be. noise: a random
    direction of that length.
    """
    if attack == "flipped":
        return {name: -tensor for name, tensor in honest.items()}
    rng = np.random.default_rng(seed)
    weights = {
        name: -tensor if attack == "scaled" else rng.normal(0, 1, tensor.shape)
        for name, tensor in honest.items()
    }
    factor = longest / l2_norm(weights)
    return {name: (factor * tensor).astype(np.float32) for name, tensor in weights.items()}


def contributions_of(updates: Sequence[Update]) -> UpdatesInMemory:
    """Return a round as rules see it."""
    most = int(np.median([one.num_examples for one in updates]))
    return UpdatesInMemory(
        [
            (
                Contribution(
                    robot=f"r{robot:02}",
                    site="",
                    examples=min(one.num_examples, most),
                    norm=l2_norm(one.weights),
                    steps=one.num_steps,
                ),
                one,
            )
            for robot, one in enumerate(updates)
        ]
    )
