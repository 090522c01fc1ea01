"""The camera's robots train the last block of EfficientNet-Lite0: whole, and with adapters.

Four robots of camera_fleet.py train with the agent's LiteRT trainer on what `cloud-server init
--trainable last-block` writes, without and with `--adapter lora`, and FedAvg folds. A robot has
some of its frames only: a step of 32 takes 0.15 s of one core.

    whole         all tensors of the last block and the head, in float32
    lora          adapters of rank 8, the head and what has no adapter, in float32
    lora_int8     the same with `rounds.compression = "int8"`: what an update leaves out comes later

Adapters learn more slowly, so they get twice as many rounds, and the bytes of all of them count
(bytes.py). That was fixed before any seed was measured so.
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.bytes_on_wire import Size, rounds, size_of
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
from fleet_model.signatures import BASE
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
ROUNDS: Mapping[str, int] = {"whole": 5, "lora": 10, "lora_int8": 10}
QUICK: Mapping[str, int] = dict.fromkeys(ARMS, 1)
THREADS = 1  # of each trainer and of NumPy beside it: every core has an arm
Curves = Mapping[str, Sequence[Sequence[float]]]  # arm -> one a seed: accuracy after each round


@dataclass(frozen=True, slots=True)
class Job:
    """One arm on one seed of the camera."""

    arm: str
    bags: Path  # a folder of camera_fleet.record
    work: Path
    frames: int  # of a robot, to train with
    rounds: int


def block_curves(
    work: Path, seeds: range, recorded: int, frames: int, counts: Mapping[str, int] = ROUNDS
) -> Curves:
    """Return arm -> for each seed, the accuracy on robots that never train, after each round.

    Args:
        work: where servers and bags are, and are made unless they are there.
        seeds: of the camera.
        recorded: frames of a robot's bag.
        frames: of them, with how many a robot trains; evenly spread over the bag.
        counts: arm -> rounds.
    """
    for folder, options in FOLDERS.items():
        lite0_bundle(work / folder, *options)
    jobs = [
        Job(arm, record(work, seed, recorded), work, frames, counts[arm])
        for seed in seeds
        for arm in ARMS
    ]
    curves: dict[str, list[Sequence[float]]] = {arm: [] for arm in ARMS}
    # A process for each core; the trainers share nothing, and each has one thread.
    os.environ["OPENBLAS_NUM_THREADS"] = str(THREADS)  # read when a process loads NumPy
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), max_tasks_per_child=1) as pool:
        for job, curve in zip(jobs, pool.map(run, jobs), strict=True):
            curves[job.arm].append(curve)
            row = " ".join(f"{accuracy:.3f}" for accuracy in curve)
            say(f"last block, seed {job.bags.name}: {job.arm} {row}")
    return curves


def block_sizes(work: Path) -> Mapping[str, Size]:
    """Return arm -> bytes of the messages of a round."""
    firsts = {f: Checkpoints(ServerDirectory(work / f / "server").checkpoints) for f in FOLDERS}
    return {arm: size_of(firsts[f].load(0).weights, codec) for arm, (f, codec) in ARMS.items()}


def base_bytes(work: Path) -> int:
    """Return the bytes of the kernels that adapters add to: a robot fetches them once."""
    folder, _ = ARMS[OURS]
    return (ServerDirectory(work / folder / "server").model / BASE).stat().st_size


def run(job: Job) -> Sequence[float]:
    """Return the accuracy of one arm after each round."""
    folder, codec = ARMS[job.arm]
    server = ServerDirectory(job.work / folder / "server")
    spec = parse_trainer((server.model / TRAINER).read_bytes())
    labels = rebuild(spec.workload).task.classes
    own = {robot: _examples(job.bags, robot, labels) for robot in (*TRAINING, *UNSEEN)}
    *trainers, judge = [LiteRTTrainer(spec, server.model, THREADS) for _ in (*TRAINING, "judge")]
    config = TrainConfig(**load_settings(server.settings).training.model_dump())

    def fit(number: int, start: Checkpoint) -> Update:
        robot = TRAINING[number]
        seed = start.version ^ zlib.crc32(robot.encode())  # mixed as the agent does it
        examples = spread(own[robot], job.frames)
        return trainers[number].fit(start, examples, replace(config, seed=seed))

    seen = [
        replace(one, held_out=True, key=f"{robot}/{one.key}")
        for robot in UNSEEN
        for one in own[robot]
    ]
    first = Checkpoints(server.checkpoints).load(0)
    made = rounds(codec, len(TRAINING), first, fit, job.rounds)
    return [judge.evaluate(one, seen).metrics["accuracy"] for one in made]


def spread(examples: Sequence[Example], count: int) -> Sequence[Example]:
    """Return `count` of the examples that are not held out, evenly spread; else all."""
    own = [one for one in examples if not one.held_out]
    if len(own) <= count:
        return own
    return [own[index] for index in np.linspace(0, len(own) - 1, count).astype(int)]


def _examples(bags: Path, robot: str, labels: Sequence[str]) -> tuple[Example, ...]:
    return tuple(ExampleStore([bags / robot], "", "/camera/label", labels).examples())
