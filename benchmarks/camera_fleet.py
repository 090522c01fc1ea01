"""The demo's robots for one seed of the camera: four train, accuracy is that on three others.

All arms have the same bags, held-out frames, trunk, checkpoints, exchanges and shuffles, and each
robot's part is the LiteRT trainer of the agent:

    fedavg    `aggregation.rule = "fedavg"`
    adjusted  the same with `training.logit_adjustment = 1`
    flower    the strategy FedAvg of the flwr that is installed, over the same robots
    central   one robot that has all frames, with as many epochs
"""

import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.environments import ROOT
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings
from edge_agent.examples.example_store import ExampleStore
from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.engine import StagedModel
from fleet_model.signatures import FEATURES, TRUNK
from fleet_model.types import Checkpoint, Example, TrainConfig, Update, Weights
from fleet_model.workload import rebuild

TRAINING = ("hall-1/r1", "hall-1/r2", "hall-2/r1", "hall-2/r2")
UNSEEN = ("hall-1/r3", "hall-2/r3", "hall-3/r1")
EXCHANGES = 5
ARMS = ("fedavg", "adjusted", "flower", "central")


@dataclass(frozen=True, eq=False)
class Robot:
    """One that trains."""

    name: str
    examples: tuple[Example, ...]
    trainer: LiteRTTrainer  # keeps the features of what it has seen


@dataclass(frozen=True, eq=False)
class Fleet:
    """The robots of one seed, and what measures."""

    robots: Sequence[Robot]
    everything: Robot
    features: NDArray[np.float32]  # (frames of robots that never train, 1280)
    classes: NDArray[np.int64]
    first: Checkpoint
    config: TrainConfig
    labels: Sequence[str]

    def accuracy(self, weights: Weights) -> float:
        """Return the share of frames whose best logit is the true label's."""
        logits: NDArray[Any] = self.features @ weights["head/kernel"] + weights["head/bias"]
        return float((logits.argmax(1) == self.classes).mean())


def record(work: Path, seed: int, frames: int) -> Path:
    """Return the folder of the bags of one seed, recorded unless they are there."""
    bags = work / f"bags-{frames}" / str(seed)
    for robots, prior in ((TRAINING, "dirichlet"), (UNSEEN, "uniform")):
        if missing := [robot for robot in robots if not (bags / robot).exists()]:
            subprocess.run(
                [
                    sys.executable, ROOT / "datasets" / "robot_camera.py", bags, "--robots",
                    ",".join(missing), "--frames", str(frames), "--seed", str(seed),
                    "--prior", prior,
                ],
                check=True, stderr=subprocess.DEVNULL,
            )  # fmt: skip
    return bags


def camera_fleet(work: Path, seed: int, frames: int) -> Fleet:
    """Record the bags of one seed unless they are there, and read them as robots do."""
    bags = record(work, seed, frames)
    server = ServerDirectory(work / "lite0" / "server")
    spec = parse_trainer((server.model / TRAINER).read_bytes())
    workload = rebuild(spec.workload)
    labels = workload.task.classes
    own = {
        robot: tuple(ExampleStore([bags / robot], "", "/camera/label", labels).examples())
        for robot in (*TRAINING, *UNSEEN)
    }
    trunk = StagedModel([server.model / TRUNK], workload.task.inputs, None)
    seen = [example for robot in UNSEEN for example in own[robot]]
    everything = [replace(e, key=f"{r}/{e.key}") for r in TRAINING for e in own[r]]
    return Fleet(
        robots=[Robot(r, own[r], LiteRTTrainer(spec, server.model)) for r in TRAINING],
        everything=Robot("all", tuple(everything), LiteRTTrainer(spec, server.model)),
        features=np.stack([trunk(workload.encode(e.raw).inputs)[FEATURES] for e in seen]),
        classes=np.array([workload.target(e).tensors["class"] for e in seen]),
        first=Checkpoints(server.checkpoints).load(0),
        config=TrainConfig(**load_settings(server.settings).training.model_dump()),
        labels=labels,
    )


def run(
    arm: str,
    fleet: Fleet,
    shuffle: int,
    start: Checkpoint | None = None,
    exchanges: int = EXCHANGES,
) -> Weights:
    """Return what an arm has learned after the exchanges."""
    config = replace(fleet.config, logit_adjustment=1.0 if arm == "adjusted" else 0.0)
    if arm == "flower":
        return flower(fleet, lambda robot, start: fit(robot, start, config, shuffle))
    robots = [fleet.everything] if arm == "central" else fleet.robots
    checkpoint = start or fleet.first
    for _ in range(exchanges):
        pairs = []
        for robot in robots:
            update = fit(robot, checkpoint, config, shuffle)
            about = Contribution(robot=robot.name, site="", examples=update.num_examples)
            pairs.append((about, update))
        checkpoint = FedAvg().fold(checkpoint, UpdatesInMemory(pairs))
    return checkpoint.weights


def fit(robot: Robot, start: Checkpoint, config: TrainConfig, shuffle: int) -> Update:
    """Train one robot for one exchange; the seed is mixed as the agent does it."""
    seed = (start.version + 1000 * shuffle) ^ zlib.crc32(robot.name.encode())
    return robot.trainer.fit(start, robot.examples, replace(config, seed=seed))


def flower(fleet: Fleet, work: Callable[[Robot, Checkpoint], Update]) -> Weights:
    """Let Flower's own FedAvg run the exchanges, its ClientApp called in this process."""
    from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp.strategy import FedAvg as FlowerFedAvg

    from benchmarks.direct_grid import DirectGrid

    versions = rounds(len(fleet.robots))
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content.array_records["arrays"]
        weights = {name: array.numpy() for name, array in arrays.items()}
        robot = fleet.robots[int(context.node_config["partition-id"])]
        update = work(robot, Checkpoint(version=next(versions), weights=weights))
        content = {
            "arrays": ArrayRecord(
                {name: Array(weights[name] + update.weights[name]) for name in weights}
            ),
            "metrics": MetricRecord({"num-examples": update.num_examples}),
        }
        return Message(RecordDict(content), reply_to=message)

    strategy = FlowerFedAvg(fraction_evaluate=0.0, min_available_nodes=len(fleet.robots))
    first = ArrayRecord({name: Array(w) for name, w in fleet.first.weights.items()})
    grid = DirectGrid(app, len(fleet.robots))
    made = strategy.start(grid=grid, initial_arrays=first, num_rounds=EXCHANGES)
    return {name: array.numpy() for name, array in made.arrays.items()}


def rounds(robots: int) -> Iterator[int]:
    """Yield the version that each question of Flower's begins with."""
    for version in range(EXCHANGES):
        yield from [version] * robots
