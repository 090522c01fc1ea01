"""What learning and running a detector costs on a robot, beside stock Flower with Keras.

The same work in all arms: one robot of rendered_scenes.py, 256 pixels, eight classes, frozen
EfficientNet-Lite0, the same head from the same numbers, Adam with clipping, batch 8,
four epochs a message, the same frames held out.

    ours      `edge-agent run` with `trainer = "litert"`, `rounds.compression = "int8"`; blocks of
              the trunk are kept on disk in float16
    stock     `flower-supernode` with detector_app: the trunk answers once a message, the truth of
              a frame is drawn once, and both stay in memory
    uncached  the same app, but the trunk answers in every step

Every message meets an idle robot. agent_cost.py says what the quantities are, and
detection_latency.py how one frame is timed. `map50` is measured by the same code for the heads of
all arms, on frames of a robot that has not trained. One robot's is chance: the mean of five counts.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.environments import environment, sources_digest
from benchmarks.fleets import ROOT
from benchmarks.lite0 import unpack
from benchmarks.measure import Comparison, Limit, Result, arguments, report, say
from benchmarks.rendered_scenes import LABELS, render
from benchmarks.robot_cost import Cost, cost_figures, middle_of, our_robot, stock_robot
from benchmarks.services import base_environment, run_python
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from edge_agent.examples.example_store import ExampleStore
from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.types import Checkpoint, Example, Weights

WORK = ROOT / "build" / "bench" / "detection_cost"
HERE = Path(__file__).resolve().parent
ROBOT, UNSEEN, SIZE = "hall-1/r1", "hall-3/r1", 256
EPOCHS, BATCH, RATE, CLIP = 4, 8, 0.001, 10.0
TENSORFLOW = ("tensorflow", "keras", "torch", "jax")  # packages that a robot has none of
MOST_BYTES, MOST_MB = 150_000, 320
FASTER, SMALLER, QUICKER = 3, 3, 2  # promised: latency, memory, step


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    messages: int  # timed, after the one whose memory is sampled
    seeds: Sequence[int]  # of the halls and what is in them; a turn of the arms each
    answers: int  # timed of each engine
    frames: int  # of the robot, and of the one that has not trained
    once: tuple[str, ...]  # arms that take the first turn alone


FULL = Size(messages=3, seeds=range(1, 6), answers=100, frames=240, once=("uncached",))
QUICK_ANSWERS = 40


@dataclass(frozen=True)
class Inputs:
    """What all arms work on, below one folder."""

    root: Path

    @property
    def server(self) -> Path:
        """An initialized server directory, copied for every turn."""
        return self.root / "server"

    @property
    def bundle(self) -> Path:
        """Version 0 as robots have it."""
        return self.root / "bundle"

    @property
    def model(self) -> Path:
        """The same network as a .keras file."""
        return self.root / "model.keras"

    @property
    def head(self) -> Path:
        """The numbers that all arms start from: .npz."""
        return self.root / "head.npz"

    def frames(self, seed: int) -> "Frames":
        """Return what the robots of a turn have seen."""
        return Frames(self.root / f"seed-{seed}")

    @cached_property
    def trainer(self) -> LiteRTTrainer:
        """What measures heads."""
        made = ServerDirectory(self.server)
        return LiteRTTrainer(parse_trainer((made.model / TRAINER).read_bytes()), made.model)

    def map50(self, weights: Weights, frames: "Frames") -> float:
        """Return how well a head finds what is in the frames of the robot that has not trained."""
        made = Checkpoint(version=1, weights=weights)
        others = [replace(one, held_out=True) for one in examples_of(frames.unseen)]
        return self.trainer.evaluate(made, others).metrics["map50"]


@dataclass(frozen=True)
class Frames:
    """What the robots of a turn have seen, below one folder."""

    root: Path

    @property
    def robot(self) -> Path:
        """The data set of the one that trains."""
        return self.root / "frames"

    @property
    def unseen(self) -> Path:
        """The data set of one that does not."""
        return self.root / "unseen"

    @property
    def chosen(self) -> Path:
        """Names of frames to train on, and the labels: JSON."""
        return self.root / "frames.json"


def costs(work: Path, size: Size = FULL) -> tuple[dict[str, float], list[Comparison]]:
    """Measure; return figures by name, and ratios.

    Args:
        work: a folder; inputs of an earlier run of the same code are taken from it.
        size: how much.
    """
    environments = {name: environment(name) for name in ("agent", "stock")}
    inputs = prepare(work, size)
    found: dict[str, list[tuple[Cost, float]]] = {}
    for turn, seed in enumerate(size.seeds):
        for name in ("ours", "stock", *(() if turn else size.once)):
            arms = found.setdefault(name, [])
            arms.append(
                our_arm(work, inputs, inputs.frames(seed), size)
                if name == "ours"
                else stock_arm(work, inputs, inputs.frames(seed), size, name)
            )
            say(f"detection_cost: turn {turn + 1}, {name}: {arms[-1]}")
    cost = {name: middle_of([one for one, _ in arms]) for name, arms in found.items()}
    map50 = {name: float(np.mean([value for _, value in arms])) for name, arms in found.items()}
    spent = latency(inputs, size.answers)
    figures = cost_figures("", cost["ours"], environments["agent"].size_mb())
    figures["frameworks_on_robot"] = float(frameworks(environments["agent"].root))
    figures |= cost_figures("stock_", cost["stock"], environments["stock"].size_mb())
    if uncached := cost.get("uncached"):
        figures |= {"uncached_step_ms": uncached.step_ms, "uncached_peak_mb": uncached.peak_mb}
    figures |= milliseconds(spent)
    figures |= {f"map50_{name}": value for name, value in map50.items()}
    figures["map_difference"] = abs(map50["ours"] - map50["stock"])
    return figures, ratios(cost["ours"], cost["stock"], spent)


def ratios(ours: Cost, stock: Cost, spent: Mapping[str, float]) -> list[Comparison]:
    """Return peer / ours, with what this project promises."""
    return [
        Comparison("peak_rss", "MB", ours.peak_mb, stock.peak_mb, SMALLER),
        Comparison("step_time", "ms", ours.step_ms, stock.step_ms, QUICKER),
        Comparison("to_first_step", "s", ours.start_to_first_step_s, stock.start_to_first_step_s),
        *latency_ratios(spent),
    ]


def latency_ratios(spent: Mapping[str, float]) -> list[Comparison]:
    """Return Keras / ours of one frame."""
    return [
        Comparison("latency_vs_keras", "ms", spent["int8"], spent["tf_function"], FASTER),
        Comparison("latency_fp32", "ms", spent["fp32"], spent["tf_function"]),
        Comparison("latency_vs_predict", "ms", spent["int8"], spent["predict"]),
    ]


def milliseconds(spent: Mapping[str, float]) -> dict[str, float]:
    """Return the figures of one frame."""
    return {f"{name}_ms": value for name, value in spent.items()}


LIMITS: Sequence[Limit] = (  # of a whole run
    Limit("update_bytes", MOST_BYTES),
    Limit("peak_mb", MOST_MB),
    Limit("frameworks_on_robot", 0),
    Limit("map_difference", 0.02),
)


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="one frame through engines and Keras; nothing trains")
    if options.quick:
        inputs = Inputs(WORK / "quick")
        shutil.rmtree(inputs.root, ignore_errors=True)
        write_server(inputs)
        spent = latency(inputs, QUICK_ANSWERS)
        limits: Sequence[Limit] = ()
        figures, compared = milliseconds(spent), latency_ratios(spent)
    else:
        (figures, compared), limits = costs(WORK), LIMITS
    result = Result(
        benchmark="detection_cost", comparisons=compared, figures=figures, limits=limits
    )
    report(result, as_json=options.json)


def prepare(work: Path, size: Size) -> Inputs:
    """Make data sets, server directory and files, or take those of an earlier run of this code."""
    inputs = Inputs(work / f"inputs-{sources_digest()[:12]}-{size.frames}")
    if inputs.head.exists():
        return inputs
    shutil.rmtree(inputs.root, ignore_errors=True)
    inputs.root.mkdir(parents=True)
    say("detection_cost: rendering frames, making server directory and Keras model")
    for seed in size.seeds:
        frames = inputs.frames(seed)
        render(frames.robot, ROBOT, size.frames, seed, "uniform")
        render(frames.unseen, UNSEEN, size.frames, seed, "uniform")
        trained = [one for one in examples_of(frames.robot) if not one.held_out]
        names = [f"{key_stamp(one.key)}.jpg" for one in trained]
        frames.chosen.write_text(json.dumps({"train": names, "labels": LABELS}))
    write_server(inputs)
    build = (
        "from fleet_model.workloads.object_detector import ObjectDetector as D; import sys; "
        "from fleet_model.workloads.object_detector.keras_model import ObjectDetectorModel as M; "
        "M(D(sys.argv[1].split(','), int(sys.argv[2]))).build().save(sys.argv[3])"
    )
    run_python("-c", build, ",".join(LABELS), SIZE, inputs.model)
    np.savez(inputs.head, **first_weights(inputs.server))
    return inputs


def write_server(inputs: Inputs) -> None:
    """Make the server directory, and version 0 as robots have it."""
    inputs.root.mkdir(parents=True, exist_ok=True)
    what = ("--workload", "object-detector", "--labels", ",".join(LABELS), "--image-size", SIZE)
    run_python("-m", "cloud_server.cli", "init", inputs.server, *what)
    unpack(inputs.server / "store", inputs.bundle)


def examples_of(folder: Path) -> list[Example]:
    """Return what an agent makes of a data set."""
    return list(ExampleStore([folder], "", "", list(LABELS), boxes=True).examples())


def our_arm(work: Path, inputs: Inputs, frames: Frames, size: Size) -> tuple[Cost, float]:
    """Return what our agent costs, and how well its head finds boxes."""
    place = work / "turn-ours"
    server = {
        "FLEETLEARN_TRAINING__EPOCHS": str(EPOCHS),
        "FLEETLEARN_TRAINING__BATCH_SIZE": str(BATCH),
        "FLEETLEARN_TRAINING__LEARNING_RATE": str(RATE),
        "FLEETLEARN_TRAINING__ADAPTIVE": "0.999",
        "FLEETLEARN_TRAINING__CLIP_NORM": str(CLIP),
        "FLEETLEARN_ROUNDS__COMPRESSION": "int8",
    }
    agent = {"EDGE_AGENT_TRAINING__TRAINER": "litert"}
    made = environment("agent")
    cost = our_robot(place, made, inputs.server, frames.robot, server, agent, size.messages)
    last = Checkpoints(ServerDirectory(place / "server").checkpoints).latest()
    return cost, inputs.map50(last.weights, frames)


def stock_arm(
    work: Path, inputs: Inputs, frames: Frames, size: Size, name: str
) -> tuple[Cost, float]:
    """Return what stock Flower costs, and how well its head finds boxes."""
    place = work / f"turn-{name}"
    node = f'data="{frames.robot}" frames="{frames.chosen}" model="{inputs.model}"'
    run = (
        f"epochs={EPOCHS} batch-size={BATCH} learning-rate={RATE} clip-norm={CLIP} "
        f'cached={str(name == "stock").lower()} head="{inputs.head}"'
    )
    app, made = HERE / "detector_app", environment("stock")
    cost = stock_robot(place, made, app, node, run, size.messages)
    with np.load(place / "rounds.npz") as last:
        return cost, inputs.map50({key: last[key] for key in last}, frames)


def latency(inputs: Inputs, answers: int) -> dict[str, float]:
    """Return milliseconds of a frame: see detection_latency.py."""
    command = [sys.executable, "-m", "benchmarks.detection_latency", inputs.server, inputs.bundle]
    done = subprocess.run(
        [*map(str, command), str(answers)], cwd=ROOT, env=base_environment(), check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def frameworks(root: Path) -> int:
    """Return how many packages of TENSORFLOW an environment has."""
    (packages,) = root.glob("lib/python3*/site-packages")
    return sum((packages / name).exists() for name in TENSORFLOW)


def first_weights(server: Path) -> Weights:
    """Return the head of version 0."""
    return Checkpoints(ServerDirectory(server).checkpoints).load(0).weights


def key_stamp(key: str) -> str:
    """Return the name of an example's frame: keys are FOLDER/TOPIC/STAMP-DIGEST."""
    return key.rpartition("/")[2].partition("-")[0]


if __name__ == "__main__":
    main()
