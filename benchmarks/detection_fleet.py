"""Robots that learn boxes: each alone, all frames in one place, and together.

    scenes      rendered rooms (rendered_scenes.py)
    composites  drawings on photographs (composites.py); unseen robots meet other drawings

All arms have the agent's LiteRT trainer on what `cloud-server init --workload object-detector`
writes, and as many epochs over their own frames; ROUNDS of them with EPOCHS each:

    single     each of the four robots that train has a model of its own
    central    one model learns from the frames of all: what sending frames away would give
    federated  FedAvg; updates are coded in int8 and read again, as they travel

What is measured is map50 on three robots that never train and meet all classes equally often.
"""

import os
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks import composites, rendered_scenes
from benchmarks.bytes_on_wire import travelled
from benchmarks.measure import say
from benchmarks.scenes.data_set import TRAINING, UNSEEN
from benchmarks.services import run_python
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings
from edge_agent.examples.example_store import ExampleStore
from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.bundle import TRAINER, TrainerSpec, parse_trainer
from fleet_model.compression.codec import INT8, Codec
from fleet_model.engine import TFLiteEngine
from fleet_model.types import Checkpoint, Example, TrainConfig, Update
from fleet_model.weights import write_weights

SIZE, ROUNDS, EPOCHS = 256, 10, 2
LABELS = {"scenes": rendered_scenes.LABELS, "composites": composites.LABELS}
ARMS = ("federated", "central", "single")
THREADS = 1  # of each trainer: every core has a job


@dataclass(frozen=True, slots=True)
class Job:
    """One arm on one fleet; equal jobs give equal results."""

    arm: str
    data: str  # a key of LABELS
    seed: int  # of the fleet
    work: Path
    frames: int  # of a robot that trains; one that does not has half as many
    rounds: int = ROUNDS

    @property
    def server(self) -> ServerDirectory:
        """Return where the detector is that all arms begin with."""
        return ServerDirectory(self.work / f"server-{self.data}")

    @property
    def folder(self) -> Path:
        """Return where the fleet's data sets are."""
        return self.work / f"{self.data}-{self.frames}" / str(self.seed)

    @property
    def learned(self) -> Path:
        """Return the file of what the arm has learned."""
        return self.folder / f"{self.arm}.safetensors"


def prepare(jobs: Sequence[Job]) -> None:
    """Make the servers and data sets that are not there yet."""
    for server, labels in sorted({(job.server.root, LABELS[job.data]) for job in jobs}):
        if not server.exists():
            run_python(
                "-m", "cloud_server.cli", "init", server, "--workload", "object-detector",
                "--labels", ",".join(labels), "--image-size", str(SIZE),
            )  # fmt: skip
    for job in {job.folder: job for job in jobs}.values():
        say(f"{job.data}, seed {job.seed}: frames of {len(TRAINING) + len(UNSEEN)} robots")
        if job.data == "scenes":
            rendered_scenes.render_fleet(job.folder, job.frames, job.frames // 2, job.seed)
        else:
            _compose(job)


def scores(jobs: Sequence[Job]) -> Mapping[Job, Sequence[float]]:
    """Return the mean map50 on unseen robots of each job's models, of which "single" has four."""
    found = {}
    # The trainers share nothing; each process ends after its job and gives its memory back.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), max_tasks_per_child=1) as pool:
        for job, values in zip(jobs, pool.map(run, jobs), strict=True):
            found[job] = values
            text = ", ".join(f"{value:.3f}" for value in values)
            say(f"{job.data}, seed {job.seed}: {job.arm} {text}")
    return found


def run(job: Job) -> Sequence[float]:
    """Learn as the arm says; see `scores`."""
    fleet = Fleet(job)
    if job.arm == "federated":
        made = [fleet.together()]
        write_weights(job.learned, made[0].weights)
    elif job.arm == "central":
        made = [fleet.alone(TRAINING)]
    else:
        made = [fleet.alone([robot]) for robot in TRAINING]
    return [fleet.unseen(one) for one in made]


def engine_scores(job: Job) -> Mapping[str, float]:
    """Return precision -> map50 on unseen robots of what a job has learned, published."""
    from cloud_server.models.export import BundleJob, run_export

    fleet, found = Fleet(job), {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle")
        run_export(
            BundleJob(
                model=job.server.model, weights=job.learned, version=1,
                created_at="2026-12-01T00:00:00Z", directory=bundle,
            )
        )  # fmt: skip
        for precision in ("fp32", "int8"):
            engine = TFLiteEngine(bundle, precision, num_threads=os.cpu_count())
            found[precision] = float(np.mean([_answered(engine, fleet.own(r)) for r in UNSEEN]))
    return found


class Fleet:
    """The robots of a job: their examples, and a trainer for each, which keeps its features."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._own: dict[str, list[Example]] = {}
        self._trainers: dict[str, LiteRTTrainer] = defaultdict(
            lambda: LiteRTTrainer(self._spec, job.server.model, THREADS)
        )

    @cached_property
    def _spec(self) -> TrainerSpec:
        return parse_trainer((self._job.server.model / TRAINER).read_bytes())

    @cached_property
    def _config(self) -> TrainConfig:
        settings = load_settings(self._job.server.settings).training.model_dump()
        return replace(TrainConfig(**settings), epochs=EPOCHS)

    @cached_property
    def _first(self) -> Checkpoint:
        return Checkpoints(self._job.server.checkpoints).load(0)

    def own(self, robot: str) -> Sequence[Example]:
        """Return a robot's examples."""
        if robot not in self._own:
            labels = list(LABELS[self._job.data])
            store = ExampleStore([place_of(self._job, robot)], "", "", labels, boxes=True)
            self._own[robot] = [replace(e, key=f"{robot}/{e.key}") for e in store.examples()]
        return self._own[robot]

    def alone(self, robots: Sequence[str]) -> Checkpoint:
        """Return what one model learns from the frames of these robots."""
        made, examples = self._first, [one for robot in robots for one in self.own(robot)]
        for _ in range(self._job.rounds):
            update = self._fit(made, examples, "+".join(robots))
            weights = {name: w + update.weights[name] for name, w in made.weights.items()}
            made = replace(made, version=made.version + 1, weights=weights)
        return made

    def together(self) -> Checkpoint:
        """Return what the fleet learns."""
        made, codec = self._first, Codec(INT8)
        with tempfile.TemporaryDirectory() as states:
            for _ in range(self._job.rounds):
                pairs = []
                for robot in TRAINING:
                    own = self._fit(made, self.own(robot), robot)
                    state = Path(states, robot.replace("/", "-"))
                    update = travelled(state, made, own, codec)
                    about = Contribution(robot=robot, site="", examples=own.num_examples)
                    pairs.append((about, update))
                made = FedAvg().fold(made, UpdatesInMemory(pairs))
        return made

    def unseen(self, made: Checkpoint) -> float:
        """Return the mean map50 on the robots that never train."""
        found = []
        for robot in UNSEEN:
            seen = [replace(one, held_out=True) for one in self.own(robot)]
            found.append(self._trainers[robot].evaluate(made, seen).metrics["map50"])
        return float(np.mean(found))

    def _fit(self, start: Checkpoint, examples: Sequence[Example], who: str) -> Update:
        seed = start.version ^ zlib.crc32(who.encode())  # mixed as the agent does it
        return self._trainers[who].fit(start, examples, replace(self._config, seed=seed))


def place_of(job: Job, robot: str) -> Path:
    """Return the folder of a robot's data set."""
    return job.folder / robot.replace("/", "-")


def _compose(job: Job) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    robots = [(r, job.frames, "dirichlet") for r in TRAINING]
    robots += [(r, job.frames // 2, "uniform") for r in UNSEEN]

    def write(robot: str, frames: int, prior: str) -> None:
        if not (place := place_of(job, robot)).exists():
            run_python(
                "-m", "benchmarks.composites", place, "--robot", robot, "--frames", str(frames),
                "--seed", str(job.seed), "--prior", prior,
            )  # fmt: skip

    composites.unpacked(composites.PACKAGE, composites.STAMPS)  # once, before several ask for it
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for one in [pool.submit(write, *robot) for robot in robots]:
            one.result()


def _answered(engine: TFLiteEngine, examples: Sequence[Example]) -> float:
    """Return the map50 of what an engine answers."""
    answers = [engine.answer(one.raw).outputs for one in examples]
    truth = [engine.workload.target(one).tensors for one in examples]
    outputs, targets = (
        {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        for rows in (answers, truth)
    )
    return float(engine.workload.measure(outputs, targets)["map50"])
