"""What training costs on a robot: our agent with LiteRT, with Keras, and stock Flower with Keras.

The same work in all arms: one bag of camera frames, EfficientNet-Lite0 at 128 pixels with a frozen
trunk, a linear head trained by SGD with momentum on features that are computed once, batch 32, the
same number of epochs. Every message meets an idle robot: stock Flower starts a process for each
message, and ours is told to end its training process at once, so it starts one, too.

One robot of one arm at a time, from an environment of its own (environments.py), arms in turn. Its
server runs in the environment of this interpreter, so they share no page but those of libpython
and libc, which count partly. Quantities, the same for all arms:

  idle_mb, peak_mb     summed PSS of the robot's process tree, sampled from outside every 0.1 s: the
                       larger median of the times before and after training; the highest sample
  start_to_first_step  from the kernel's start of the process that trains a message to the end of
                       its first optimizer step, on frames that it has trained on before: ours
                       keeps their features on disk between processes, a stock app computes them
                       again; imports, model and frames are inside
  new_frames           the same for the first message of a new bag, where all compute features
  cold_start           from the start of the node until the server takes it for online, plus
                       new_frames
  step_time            median time from the end of one optimizer step to the end of the next
  update_bytes         arrays in the reply
  environment_mb       files of site-packages and bin without compiled bytecode

Memory is sampled in the first message, whose only time is new_frames, in all arms. Stock Flower
sends its head alone, as a careful user would; stock_model_bytes is what its tutorials send.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

from benchmarks.environments import Environment, environment, sources_digest
from benchmarks.fleets import ROOT, OurFleet, StockFleet, free_port, move
from benchmarks.measure import (
    Comparison,
    Limit,
    Result,
    arguments,
    median,
    memory_samples,
    report,
    say,
)
from benchmarks.services import Services, run_python
from cloud_server.state.history import ClosedRounds

WORK = ROOT / "build" / "bench" / "agent_cost"
HERE = Path(__file__).resolve().parent
LABELS = "circle,square,star,triangle"
EPOCHS, BATCH = 20, 32
IDLE_S = 4.0  # a look at an idle robot; its first half is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    frames: int
    messages: int  # timed, after the one whose memory is sampled
    repeats: int  # turns of all arms


FULL, QUICK = Size(frames=200, messages=3, repeats=2), Size(frames=200, messages=1, repeats=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one arm costs."""

    idle_mb: float
    peak_mb: float
    ready_s: float
    start_to_first_step_s: float
    new_frames_s: float
    step_ms: float
    update_bytes: float


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="one turn and one timed message, environments kept: minutes")
    size = QUICK if options.quick else FULL
    environments = {name: environment(name) for name in ("agent", "keras", "stock")}
    inputs = prepare(size.frames)
    arms: dict[str, Callable[[], Cost]] = {
        "litert": lambda: our_arm("litert", environments["agent"], inputs, size),
        "keras": lambda: our_arm("keras", environments["keras"], inputs, size),
        "stock": lambda: stock_arm(environments["stock"], inputs, size),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in arms}
    for turn in range(size.repeats):
        for name, measure in arms.items():
            costs[name].append(measure())
            say(f"agent_cost: turn {turn + 1}, {name}: {costs[name][-1]}")
    middle = {name: middle_of(list_) for name, list_ in costs.items()}
    report(result(middle, environments, inputs.model.stat().st_size), as_json=options.json)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What all arms work on."""

    bag: Path
    server: Path  # an initialized server directory, copied for every turn
    model: Path  # the same network as a .keras file, for stock Flower


def prepare(frames: int) -> Inputs:
    """Make bag, server directory and Keras file, or take those of an earlier run of this code."""
    server_dir = WORK / f"inputs-{frames}-{sources_digest()[:12]}"
    inputs = Inputs(
        server_dir / "bags/hall-1/r1", server_dir / "server", server_dir / "model.keras"
    )
    if inputs.model.exists():
        return inputs
    shutil.rmtree(WORK, ignore_errors=True)
    server_dir.mkdir(parents=True)
    say("agent_cost: making bag, server directory and Keras model")
    robot = ("--robots", "hall-1/r1", "--prior", "uniform", "--frames", str(frames))
    run_python("datasets/robot_camera.py", server_dir / "bags", *robot)
    what = ("--workload", "image-classifier", "--labels", LABELS)
    run_python("-m", "cloud_server.cli", "init", str(inputs.server), *what)
    build = (
        "from fleet_model.workloads.image_classifier import ImageClassifier as C; import sys; "
        "from fleet_model.workloads.image_classifier.keras_model import ImageClassifierModel as M; "
        "M(C(sys.argv[1].split(','))).build().save(sys.argv[2])"
    )
    run_python("-c", build, LABELS, str(inputs.model))
    return inputs


def our_arm(trainer: str, made: Environment, inputs: Inputs, size: Size) -> Cost:
    """Measure one start of our agent."""
    work = _fresh(WORK / f"turn-{trainer}")
    shutil.copytree(inputs.server, work / "server")
    move(work / "server", free_port())
    stamps, robot = work / "steps.txt", work / "robot"
    server = {
        "FLEETLEARN_TRAINING__EPOCHS": str(EPOCHS),
        "FLEETLEARN_TRAINING__BATCH_SIZE": str(BATCH),
        "FLEETLEARN_ROUNDS__QUORUM": "1",
    }
    settings = {
        "EDGE_AGENT_TRAINING__TRAINER": trainer,
        "EDGE_AGENT_TRAINING__IDLE_S": "0.01",  # every message meets an idle robot
        "PYTHONPATH": str(HERE / "step_stamps"),
        "STEP_STAMPS": str(stamps),
    }
    with Services(work / "logs") as services:
        fleet = OurFleet.start(services, work / "server", server)
        fleet.enroll("r1", robot, inputs.bag)
        node = fleet.run_agent("agent", robot, [made.bin / "edge-agent"], settings)
        before = _idle_mb(node.pid)
        with memory_samples(node.pid) as samples:
            run = fleet.admin.start_run(1 + size.messages)["id"]
            services.wait("a round", lambda: fleet.rounds_closed() >= 1)
        services.wait("the published model", lambda: fleet.follows(robot, run))
        after = _idle_mb(node.pid)
        *_, last = ClosedRounds(fleet.server_dir)
    return Cost(
        idle_mb=max(before, after),
        peak_mb=max(samples),
        ready_s=node.ready_s,
        update_bytes=last.robots[0].update_bytes,
        **step_times(stamps),
    )


def stock_arm(made: Environment, inputs: Inputs, size: Size) -> Cost:
    """Measure one start of `flower-supernode`."""
    work = _fresh(WORK / "turn-stock")
    stamps, closed = work / "steps.txt", work / "rounds.txt"
    with Services(work / "logs") as services:
        fleet = StockFleet.start(services, work, free_port())
        config = f'bag="{inputs.bag}" model="{inputs.model}"'
        environment_ = {"STEP_STAMPS": str(stamps)}
        node = fleet.run_supernode("supernode", made.bin, config, environment_)
        before = _idle_mb(node.pid)
        rounds = 1 + size.messages
        with memory_samples(node.pid) as samples:
            fleet.run_app(
                HERE / "camera_app",
                f'num-server-rounds={rounds} epochs={EPOCHS} batch-size={BATCH} stamps="{closed}"',
            )
            services.wait("a round", lambda: _lines(closed) >= 2)  # the first is round 0
        services.wait("all rounds", lambda: closed.with_suffix(".json").exists())
        after = _idle_mb(node.pid)
    return Cost(
        idle_mb=max(before, after),
        peak_mb=max(samples),
        ready_s=node.ready_s,
        update_bytes=json.loads(closed.with_suffix(".json").read_text())["array-bytes"],
        **step_times(stamps),
    )


def step_times(file: Path) -> Mapping[str, float]:
    """Return new_frames_s of the first message, the other times of those after it."""
    (first_start, first_ends), *messages = read_stamps(file)
    steps = [after - before for _, ends in messages for before, after in pairwise(ends)]
    return {
        "new_frames_s": first_ends[0] - first_start,
        "start_to_first_step_s": median([ends[0] - start for start, ends in messages]),
        "step_ms": median(steps) * 1e3,
    }


def read_stamps(file: Path) -> list[tuple[float, list[float]]]:
    """Return (start of the process, ends of its steps) of each process, in seconds since boot."""
    processes: dict[int, tuple[float, list[float]]] = {}
    for line in file.read_text().splitlines():
        pid, start, end = line.split()
        processes.setdefault(int(pid), (float(start), []))[1].append(float(end))
    return list(processes.values())


def middle_of(costs: list[Cost]) -> Cost:
    """Return the median of each quantity."""
    return Cost(**{f.name: median([getattr(c, f.name) for c in costs]) for f in fields(Cost)})


def result(
    costs: Mapping[str, Cost], environments: Mapping[str, Environment], model_bytes: int
) -> Result:
    """Put figures and ratios together."""
    sizes = {name: made.size_mb() for name, made in environments.items()}
    ours, stock = costs["litert"], costs["stock"]
    figures = _figures("", ours, sizes["agent"])
    # pip knows no setting that leaves out the uv program, which flwr asks for and nothing here uses
    figures["environment_pip_mb"] = (
        sizes["agent"] - environments["agent"].uv_mb() + environments["stock"].uv_mb()
    )
    figures |= _figures("keras_", costs["keras"], sizes["keras"])
    figures |= _figures("stock_", stock, sizes["stock"]) | {"stock_model_bytes": model_bytes}
    return Result(
        benchmark="agent_cost",
        comparisons=[
            Comparison("idle_rss", "MB", ours.idle_mb, stock.idle_mb),
            Comparison("peak_rss", "MB", ours.peak_mb, stock.peak_mb, 3),
            Comparison(
                "start_to_first_step", "s",
                ours.start_to_first_step_s, stock.start_to_first_step_s, 8,
            ),
            Comparison("new_frames", "s", ours.new_frames_s, stock.new_frames_s),
            Comparison("cold_start", "s", _cold(ours), _cold(stock)),
            Comparison("step_time", "ms", ours.step_ms, stock.step_ms, 4),
            Comparison("update_bytes", "B", ours.update_bytes, stock.update_bytes),
            Comparison("environment_size", "MB", sizes["agent"], sizes["stock"], 3.5),
        ],
        figures=figures,
        limits=[
            Limit("idle_mb", 140),
            Limit("peak_mb", 320),
            Limit("update_bytes", 60_000),
            Limit("environment_mb", 450),
        ],
    )  # fmt: skip


def _figures(prefix: str, cost: Cost, environment_mb: float) -> dict[str, float]:
    values = {f.name: float(getattr(cost, f.name)) for f in fields(Cost)}
    values |= {"cold_start_s": _cold(cost), "environment_mb": environment_mb}
    return {prefix + name: value for name, value in values.items()}


def _cold(cost: Cost) -> float:
    return cost.ready_s + cost.new_frames_s


def _idle_mb(pid: int) -> float:
    """Return the median memory of a robot that has nothing to do."""
    with memory_samples(pid) as samples:
        time.sleep(IDLE_S)
    return median(samples[len(samples) // 2 :])


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


def _fresh(work: Path) -> Path:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


if __name__ == "__main__":
    main()
