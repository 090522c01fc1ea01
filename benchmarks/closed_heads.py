"""Heads in closed form on the two tasks of heads.py: one exchange of sums, with the product's code.

    camera   what the agent's trainer tells (LiteRTTrainer.sums), packed, unpacked and checked as
             the server does it, then four rounds of gradients from the head that it makes
    digits   one exchange of all twenty robots, and of random halves of them, round after round

Labels are reversed on one robot after the other, taken away from all robots but one, or left as
they are: who is then left out of the head?
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.camera_fleet import EXCHANGES, Fleet, Robot, run
from benchmarks.digit_fleet import CLASSES, DigitFleet
from cloud_server.closed_form.solve import Solved
from cloud_server.rounds.sums_exchange import head_of
from cloud_server.state.learning_settings import CheckSettings
from edge_agent.training.own_sums import with_enough
from edge_agent.training.sent_sums import MIN_FRAMES
from edge_agent.training.trainer import NoExamplesError
from fleet_model.optimizer import log_shares
from fleet_model.sums.class_sums import ClassSums, class_sums
from fleet_model.sums.packing import GROUP, pack_sums, unpack_sums
from fleet_model.types import Checkpoint, Weights

METHOD, DIRECTIONS = "ridge", 16
KERNEL, BIAS = "head/kernel", "head/bias"
LABELS = 4  # of the camera


@dataclass(slots=True)
class Doubts:
    """Who was left out, over all cases."""

    flipped: list[bool] = field(default_factory=list)  # just the robot with reversed labels
    honest: list[bool] = field(default_factory=list)  # anybody, where all labels were right

    def rates(self) -> Mapping[str, float]:
        """Return the figures."""
        return {
            "flip_named": float(np.mean(self.flipped)),
            "false_removal": float(np.mean(self.honest)),
        }


def told_by(fleet: Fleet, without: int | None = None) -> Mapping[str, ClassSums]:
    """Return what the server knows of the robots after one exchange.

    Args:
        fleet: whose robots are asked.
        without: a label that they do not have; who has nothing else tells nothing.
    """
    told = {}
    for robot in fleet.robots:
        with suppress(NoExamplesError):
            told[robot.name] = _sums_of(robot, fleet, without)
    return told


def _sums_of(robot: Robot, fleet: Fleet, without: int | None) -> ClassSums:
    examples = [e for e in robot.examples if without is None or e.label != fleet.labels[without]]
    with TemporaryDirectory() as sent:
        config = replace(fleet.config, sums_directions=DIRECTIONS)
        update = robot.trainer.sums(fleet.first, examples, config, Path(sent))
    return unpack_sums(update.groups[GROUP], LABELS, fleet.features.shape[1])


def head(robots: Mapping[str, ClassSums]) -> Solved:
    """Return what the server makes of sums."""
    return head_of(robots, METHOD, CheckSettings(), "the benchmark")


def closed_start(fleet: Fleet) -> Checkpoint:
    """Return the checkpoint after one exchange of sums."""
    made = head(told_by(fleet))
    return Checkpoint(version=1, weights={KERNEL: made.kernel, BIAS: made.bias})


def closed_then_gradients(fleet: Fleet, start: Checkpoint, shuffle: int) -> Weights:
    """Return what is learned in as many exchanges as the other arms have, the sums being one."""
    return run("adjusted", fleet, shuffle, start, EXCHANGES - 1)


def own_accuracy(fleet: Fleet, weights: Weights, tau: float) -> float:
    """Return the mean accuracy on the robots' own held-out frames.

    Args:
        fleet: whose robots that train measure.
        weights: of the head.
        tau: 1: each robot adds the shares of its own labels, 0: it does not.
    """
    found = []
    for robot in fleet.robots:
        trained = [example.label for example in robot.examples if not example.held_out]
        counts = np.array([trained.count(label) for label in fleet.labels])
        own = {**weights, BIAS: weights[BIAS] + log_shares(counts, tau)}
        measured = robot.trainer.evaluate(Checkpoint(version=0, weights=own), robot.examples)
        found.append(measured.metrics["accuracy"])
    return float(np.mean(found))


def turned(sums: ClassSums) -> ClassSums:
    """Return the sums of a robot that reverses its labels: the same frames under other names."""
    return replace(sums, counts=sums.counts[::-1].copy(), means=sums.means[::-1].copy())


def count_doubts(fleet: Fleet, doubts: Doubts) -> None:
    """Reverse labels, take labels away, change nothing; count who is left out."""
    honest = told_by(fleet)
    doubts.honest.append(bool(head(honest).doubts))
    for name, own in honest.items():
        made = head({**honest, name: turned(own)})
        doubts.flipped.append([doubt.robot for doubt in made.doubts] == [name])
    for label in range(LABELS):
        less = told_by(fleet, without=label)
        for name, own in honest.items():
            if own.counts[label] >= MIN_FRAMES:
                doubts.honest.append(bool(head({**less, name: own}).doubts))


def digit_sums(fleet: DigitFleet) -> tuple[Mapping[str, ClassSums], float]:
    """Return what the server knows of each robot after one exchange, and the most kB of one."""
    told, most = {}, 0
    labels = [str(label) for label in range(CLASSES)]
    for number, robot in enumerate(fleet.robots):
        keys = [str(index) for index in range(len(robot.classes))]
        enough, _ = with_enough(keys, robot.classes.tolist(), labels, {})
        picked = np.array([str(label) in enough for label in robot.classes])
        if not picked.any():
            continue
        tensors = pack_sums(
            class_sums(robot.features[picked], robot.classes[picked], CLASSES, DIRECTIONS)
        )
        most = max(most, sum(tensor.nbytes for tensor in tensors.values()))
        told[f"r{number:02}"] = unpack_sums(tensors, CLASSES, robot.features.shape[1])
    return told, most / 1000


def digit_accuracy(fleet: DigitFleet, told: Mapping[str, ClassSums]) -> float:
    """Return the accuracy of the head that these sums make."""
    made = head(told)
    return fleet.accuracy({"kernel": made.kernel, "bias": made.bias})


def halves(
    fleet: DigitFleet, told: Mapping[str, ClassSums], rounds: Sequence[int], seed: int
) -> Sequence[float]:
    """Return the accuracy after so many rounds, each of half of the robots, drawn at random."""
    rng, seen, found = np.random.default_rng([seed, 5]), dict[str, ClassSums](), []
    for number in range(1, max(rounds) + 1):
        for robot in rng.permutation(len(fleet.robots))[: len(fleet.robots) // 2]:
            if (name := f"r{robot:02}") in told:
                seen[name] = told[name]
        if number in rounds:
            found.append(digit_accuracy(fleet, seen))
    return found
