"""What the order of `edge-agent label` is worth: accuracy against the share of labelled frames.

The demo's robots (camera_fleet.py): four train, and accuracy is that on three that never do. At
first no frame has a label, and the model is version 0, as a new fleet has it: its head is zero and
certain of nothing. Then, again and again, a person labels BATCH frames on each robot, and the fleet
trains one exchange (FedAvg and the agent's trainer, with the settings that a new server has) from
the model so far, with all labels so far. Where a share of the frames is labelled, COUNTED further
exchanges are trained aside, and the model that comes out is measured.

    active   the frames in the order of the page: edge_agent/labeling/queue.py, by what the model
             of this moment is unsure of, by what it sees and says, and by time
    random   the frames in random order; the mean of several orders

Both arms have the same frames, exchanges and shuffles. Shares are of the frames that a robot may
train on; its held-out frames are in neither arm. Labels are right and cost the same in both.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.camera_fleet import EXCHANGES, Fleet, Robot, camera_fleet, fit
from benchmarks.lite0 import lite0_bundle
from benchmarks.measure import Result, arguments, report, say
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from edge_agent.labeling.advice import sight_of
from edge_agent.labeling.frames import name_of
from edge_agent.labeling.queue import Queue
from edge_agent.labeling.scoring import uncertainty, value
from edge_agent.labeling.views import thumbprint
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.engine import StagedModel
from fleet_model.signatures import FEATURES, TRUNK
from fleet_model.types import Checkpoint, Example, Prediction, Weights
from fleet_model.workload import Workload, rebuild

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORK = Path(__file__).resolve().parents[1] / "build" / "bench-active"
SHARES = (2, 5, 10, 20)  # percent of the frames
FEW, MANY = 5, 10  # percent: as good with so few by uncertainty as with so many at random?
BATCH = 3  # labels of a robot between two exchanges: twelve in the fleet
COUNTED = EXCHANGES  # before a model is measured
SEEDS, FRAMES, ORDERS = range(1, 6), 240, 3
SMALL = 64  # pixels a side, of a picture that becomes a thumbprint, as on the robot
Scores = Mapping[int, float]  # percent -> accuracy


class Order:
    """One robot's frames in the order in which a person is asked about them."""

    def __init__(self, robot: Robot, workload: Workload, trunk: StagedModel) -> None:
        """Look at every frame once, as the page does in the background."""
        self.examples = [example for example in robot.examples if not example.held_out]
        self._workload = workload
        self._names = [name_of(example.raw) for example in self.examples]
        self._views = [thumbprint(example.raw.reduced(SMALL)) for example in self.examples]
        inputs = (workload.encode(example.raw).inputs for example in self.examples)
        self._features = np.stack([trunk(one)[FEATURES] for one in inputs])  # (frames, 1280)

    def by_model(self) -> "Callable[[Weights, int], Sequence[Example]]":
        """Return what gives the next frames of the page, for the model of the moment."""
        queue, named = Queue(len(self._names)), dict(zip(self._names, self.examples, strict=True))

        def take(weights: Weights, count: int) -> Sequence[Example]:
            known = zip(self._names, self._views, self._features, strict=True)
            for found, (name, view, row) in zip(self._found(weights), known, strict=True):
                sight = sight_of({FEATURES: row}, found, self._workload.task.classes)
                queue.add(name, value(uncertainty(found), 0.0), view, sight)
            for name in self._names:
                queue.compare(name)
            taken = (queue.take() for _ in range(count))
            return [named[name] for name in taken if name is not None]

        return take

    def at_random(self, seed: int) -> "Callable[[Weights, int], Sequence[Example]]":
        """Return what gives the next frames of a random order."""
        shuffled = np.random.default_rng(seed).permutation(len(self.examples))
        left = [self.examples[place] for place in shuffled]

        def take(_: Weights, count: int) -> Sequence[Example]:
            taken, left[:count] = left[:count], []
            return taken

        return take

    def _found(self, weights: Weights) -> "Iterator[Sequence[Prediction]]":
        logits: NDArray[Any] = self._features @ weights["head/kernel"] + weights["head/bias"]
        return (self._workload.decode({"logits": row}, None) for row in logits)


@dataclass(frozen=True, eq=False)
class Fresh:
    """A fleet whose frames have no labels yet."""

    fleet: Fleet
    orders: Sequence[Order]  # of fleet.robots


def fresh_fleet(work: Path, seed: int, frames: int = FRAMES) -> Fresh:
    """Record the bags of one seed unless they are there, and look at them."""
    fleet = camera_fleet(work, seed, frames)
    model = work / "lite0" / "server" / "model"
    workload = rebuild(parse_trainer((model / TRAINER).read_bytes()).workload)
    trunk = StagedModel([model / TRUNK], workload.task.inputs, None)
    return Fresh(fleet, [Order(robot, workload, trunk) for robot in fleet.robots])


def curve(
    fresh: Fresh, takes: Sequence[Callable[[Weights, int], Sequence[Example]]], shuffle: int
) -> Scores:
    """Return the accuracy at each of SHARES.

    Args:
        fresh: the fleet.
        takes: for each robot, what gives the next frames.
        shuffle: of the examples, in training.
    """
    checkpoint, scores = fresh.fleet.first, {}
    labelled: list[list[Example]] = [[] for _ in takes]
    for percent in SHARES:
        wanted = [round(percent / 100 * len(order.examples)) for order in fresh.orders]
        while any(len(own) < most for own, most in zip(labelled, wanted, strict=True)):
            for own, most, take in zip(labelled, wanted, takes, strict=True):
                own += take(checkpoint.weights, min(BATCH, most - len(own)))
            checkpoint = exchange(fresh.fleet, labelled, checkpoint, shuffle)
        aside = checkpoint
        for _ in range(COUNTED):
            aside = exchange(fresh.fleet, labelled, aside, shuffle)
        scores[percent] = fresh.fleet.accuracy(aside.weights)
    return scores


def exchange(
    fleet: Fleet, labelled: Sequence[Sequence[Example]], start: Checkpoint, shuffle: int
) -> Checkpoint:
    """Return what the robots that have labels make of a checkpoint in one exchange."""
    pairs = []
    for robot, own in zip(fleet.robots, labelled, strict=True):
        if own:
            update = fit(replace(robot, examples=tuple(own)), start, fleet.config, shuffle)
            about = Contribution(robot=robot.name, site="", examples=update.num_examples)
            pairs.append((about, update))
    return FedAvg().fold(start, UpdatesInMemory(pairs))


def seed_curves(fresh: Fresh, seed: int, orders: int = ORDERS) -> tuple[Scores, Scores]:
    """Return the curve by uncertainty, and the mean of those of several random orders."""
    active = curve(fresh, [order.by_model() for order in fresh.orders], shuffle=seed)
    drawn = []
    for number in range(orders):
        takes = [
            order.at_random(1000 * seed + 10 * number + place)
            for place, order in enumerate(fresh.orders)
        ]
        drawn.append(curve(fresh, takes, shuffle=seed))
    return active, {p: statistics.mean(one[p] for one in drawn) for p in SHARES}


def figures_of(curves: Mapping[int, tuple[Scores, Scores]]) -> Mapping[str, float]:
    """Return the gain, its value on each seed, and the means of the curves.

    Args:
        curves: seed -> (by uncertainty, at random).
    """
    gains = {seed: active[FEW] - random[MANY] for seed, (active, random) in curves.items()}
    figures = {"active_gain": statistics.mean(gains.values())}
    figures |= {f"active_gain_seed_{seed}": gain for seed, gain in gains.items()}
    for place, arm in enumerate(("active", "random")):
        for percent in SHARES:
            points = [pair[place][percent] for pair in curves.values()]
            figures[f"{arm}_accuracy_{percent}"] = statistics.mean(points)
    return figures


def active_gain(
    work: Path = WORK, seeds: Sequence[int] = SEEDS, frames: int = FRAMES, orders: int = ORDERS
) -> Mapping[str, float]:
    """Measure.

    Args:
        work: folder for bags and the model; what is there already is used.
        seeds: of the camera.
        frames: of each robot.
        orders: random ones, whose mean is compared with.

    Returns:
        `active_gain`, the accuracy with FEW percent by uncertainty minus that with MANY at random,
        mean over the seeds; further figures beside it.
    """
    lite0_bundle(work / "lite0")
    curves = {}
    for seed in seeds:
        active, random = curves[seed] = seed_curves(fresh_fleet(work, seed, frames), seed, orders)
        told = (f"{p} %: {active[p]:.3f} against {random[p]:.3f}" for p in SHARES)
        say(f"seed {seed}: {', '.join(told)}")
    return figures_of(curves)


def main() -> None:
    """Measure, print."""
    options = arguments(__doc__ or "", quick="one seed, 120 frames a robot, one random order")
    quick = options.quick
    figures = active_gain(
        WORK, SEEDS[:1] if quick else SEEDS, 120 if quick else FRAMES, 1 if quick else ORDERS
    )
    result = Result(benchmark="active_labels", comparisons=[], figures=figures)
    report(result, as_json=options.json)


if __name__ == "__main__":
    main()
