"""What each robot would reach alone: a federation of one, with the same steps, split, seeds.

    python deploy/demo/single_robot.py build/demo --rounds 5

Prints JSON: accuracy of every single-robot model on every unseen robot's bag, and what the first
and the published model reach on the training robots' held-out frames. It reads all bags, which no
server ever does: it exists to have something honest to compare with.
"""

import argparse
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_fleet import name_of

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
from fleet_model.types import Checkpoint, Example, TrainConfig, Weights
from fleet_model.workload import Workload, rebuild


@dataclass(frozen=True, eq=False)
class Data:
    """One robot's examples, and the frozen features of those that measure."""

    examples: tuple[Example, ...]
    features: NDArray[np.float32]  # (measured, 1280)
    targets: NDArray[np.int64]  # (measured,)


def main() -> None:
    """Train every robot alone, print JSON."""
    parser = argparse.ArgumentParser(description="Compare with robots that train alone.")
    parser.add_argument("demo", type=Path)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--training", required=True, help="robots, comma-separated: hall-1/r1,..")
    parser.add_argument("--unseen", required=True)
    arguments = parser.parse_args()
    server_dir = ServerDirectory(arguments.demo / "server")
    spec = parse_trainer((server_dir.model / TRAINER).read_bytes())
    workload = rebuild(spec.workload)
    trunk = StagedModel([server_dir.model / TRUNK], workload.task.inputs, None)
    config = TrainConfig(**load_settings(server_dir.settings).training.model_dump())
    checkpoints = Checkpoints(server_dir.checkpoints)
    first, published = checkpoints.load(0), checkpoints.latest()

    bags = {r: arguments.demo / "bags" / r for r in arguments.training.split(",")}
    data = {robot: read(bag, workload, trunk, held_out=True) for robot, bag in bags.items()}
    unseen = {
        robot: read(arguments.demo / "bags" / robot, workload, trunk, held_out=False)
        for robot in arguments.unseen.split(",")
    }
    alone: dict[str, Mapping[str, float]] = {}
    for robot, mine in data.items():
        trainer = LiteRTTrainer(spec, server_dir.model, num_threads=2)
        weights = train_alone(trainer, mine.examples, first, config, robot, arguments.rounds)
        alone[name_of(robot)] = {
            name_of(other): accuracy(weights, theirs) for other, theirs in unseen.items()
        }
    print(
        json.dumps(
            {
                "single_robot": alone,
                "held_out": {
                    name_of(robot): {
                        "before": accuracy(first.weights, mine),
                        "after": accuracy(published.weights, mine),
                    }
                    for robot, mine in data.items()
                },
                "workload": {
                    key: value for key, value in spec.workload.config.items() if key != "labels"
                },
                "label_counts": {
                    name_of(robot): Counter(e.label for e in mine.examples)
                    for robot, mine in data.items()
                },
            }
        )
    )


def train_alone(
    trainer: LiteRTTrainer,
    examples: Iterable[Example],
    checkpoint: Checkpoint,
    config: TrainConfig,
    robot: str,
    rounds: int,
) -> Weights:
    """Run the federation's own rounds with one robot: FedAvg of one update is that update."""
    aggregator = FedAvg()
    for _ in range(rounds):
        seed = checkpoint.version ^ zlib.crc32(name_of(robot).encode())  # as the agent's
        update = trainer.fit(checkpoint, examples, replace(config, seed=seed))
        alone = Contribution(robot=robot, site="", examples=update.num_examples)
        checkpoint = aggregator.fold(checkpoint, UpdatesInMemory([(alone, update)]))
    return checkpoint.weights


def read(bag: Path, workload: Workload, trunk: StagedModel, *, held_out: bool) -> Data:
    """Read a bag as an agent does; measure on its held-out frames, or on all of them."""
    store = ExampleStore([bag], "", "/camera/label", workload.task.classes)
    examples = tuple(store.examples())
    measured = [e for e in examples if e.held_out or not held_out]
    features = np.stack([trunk(workload.encode(e.raw).inputs)[FEATURES] for e in measured])
    targets = np.array([workload.target(e).tensors["class"] for e in measured])
    return Data(examples, features, targets)


def accuracy(weights: Weights, data: Data) -> float:
    """Return the share of frames whose best logit is the true label's."""
    logits: NDArray[Any] = data.features @ weights["head/kernel"] + weights["head/bias"]
    return round(float((logits.argmax(1) == data.targets).mean()), 4)  # (measured, labels)


if __name__ == "__main__":
    main()
