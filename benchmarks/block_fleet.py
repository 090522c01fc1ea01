"""The camera's robots train the last block of EfficientNet-Lite0: whole, and with adapters.

Four robots of camera_fleet.py train with the agent's LiteRT trainer on what `cloud-server init
--trainable last-block` writes, without and with `--adapter lora`, and FedAvg folds. A robot has
some of its frames only: a step of 32 takes 0.15 s of one core.

    whole         all tensors of the last block and the head, in float32
    lora          adapters of rank 8, the head and what has no adapter, in float32
    lora_int8     the same with `rounds.compression = "int8"`: what an update leaves out comes later
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.bytes_on_wire import Size, learn, size_of
from benchmarks.camera_fleet import TRAINING, UNSEEN, record
from benchmarks.lite0 import lite0_bundle
from benchmarks.measure import say
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings
from edge_agent.examples.example_store import ExampleStore
from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.compression.codec import INT8, Codec
from fleet_model.types import FLOAT32, Checkpoint, Example, TrainConfig, Update
from fleet_model.workload import rebuild

FOLDERS: Mapping[str, Sequence[str]] = {  # below the work folder -> options of init
    "block": ("--trainable", "last-block"),
    "block-lora": ("--trainable", "last-block", "--adapter", "lora"),
}
ARMS = {
    "whole": ("block", Codec(FLOAT32)),
    "lora": ("block-lora", Codec(FLOAT32)),
    "lora_int8": ("block-lora", Codec(INT8)),
}
OURS, SAME, PEER = "lora_int8", "lora", "whole"  # as above
THREADS = 1  # of each trainer: every core has an arm


@dataclass(frozen=True, slots=True)
class Job:
    """One arm on one seed of the camera."""

    arm: str
    bags: Path  # a folder of camera_fleet.record
    work: Path
    frames: int  # of a robot, to train with


def block_scores(
    work: Path, seeds: range, recorded: int, frames: int
) -> Mapping[str, Sequence[float]]:
    """Return arm -> accuracy on robots that never train, one a seed.

    Args:
        work: where servers and bags are, and are made unless they are there.
        seeds: of the camera.
        recorded: frames of a robot's bag.
        frames: of them, with how many a robot trains; evenly spread over the bag.
    """
    for folder, options in FOLDERS.items():
        lite0_bundle(work / folder, *options)
    jobs = [Job(arm, record(work, s, recorded), work, frames) for s in seeds for arm in ARMS]
    scores: dict[str, list[float]] = {arm: [] for arm in ARMS}
    # A process for each core; the trainers share nothing, and each has one thread.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), max_tasks_per_child=1) as pool:
        for job, accuracy in zip(jobs, pool.map(run, jobs), strict=True):
            scores[job.arm].append(accuracy)
            say(f"last block, seed {job.bags.name}: {job.arm} {accuracy:.3f}")
    return scores


def block_sizes(work: Path) -> Mapping[str, Size]:
    """Return arm -> bytes of the messages of a round."""
    firsts = {f: Checkpoints(ServerDirectory(work / f / "server").checkpoints) for f in FOLDERS}
    return {arm: size_of(firsts[f].load(0).weights, codec) for arm, (f, codec) in ARMS.items()}


def run(job: Job) -> float:
    """Return the accuracy of one arm after the rounds."""
    folder, codec = ARMS[job.arm]
    server = ServerDirectory(job.work / folder / "server")
    spec = parse_trainer((server.model / TRAINER).read_bytes())
    labels = rebuild(spec.workload).task.classes
    own = {robot: _examples(job.bags, robot, labels) for robot in (*TRAINING, *UNSEEN)}
    trainers = [LiteRTTrainer(spec, server.model, THREADS) for _ in TRAINING]
    config = TrainConfig(**load_settings(server.settings).training.model_dump())

    def fit(number: int, start: Checkpoint) -> Update:
        robot = TRAINING[number]
        seed = start.version ^ zlib.crc32(robot.encode())  # mixed as the agent does it
        examples = spread(own[robot], job.frames)
        return trainers[number].fit(start, examples, replace(config, seed=seed))

    first = Checkpoints(server.checkpoints).load(0)
    learned = learn(codec, len(TRAINING), first, fit)
    seen = [
        replace(one, held_out=True, key=f"{robot}/{one.key}")
        for robot in UNSEEN
        for one in own[robot]
    ]
    made = replace(first, weights=learned)
    return LiteRTTrainer(spec, server.model, THREADS).evaluate(made, seen).metrics["accuracy"]


def spread(examples: Sequence[Example], count: int) -> Sequence[Example]:
    """Return `count` of the examples that are not held out, evenly spread; else all."""
    own = [one for one in examples if not one.held_out]
    if len(own) <= count:
        return own
    return [own[index] for index in np.linspace(0, len(own) - 1, count).astype(int)]


def _examples(bags: Path, robot: str, labels: Sequence[str]) -> tuple[Example, ...]:
    return tuple(ExampleStore([bags / robot], "", "/camera/label", labels).examples())
