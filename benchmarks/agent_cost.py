"""What training costs on a robot: our agent with LiteRT, with Keras, and stock Flower with Keras.

The same work in all arms: one bag of camera frames, EfficientNet-Lite0 at 128 pixels with a frozen
trunk, a linear head trained by SGD with momentum on features that are computed once, batch 32, the
same number of epochs. Every message meets an idle robot: stock Flower starts a process for each
message, and ours is told to end its training process at once, so it starts one, too.

One robot of one arm at a time, from an environment of its own (environments.py), arms in turn. Its
server runs in the environment of this interpreter, so they share no page but those of libpython
and libc, which count partly. Quantities, the same for all arms (robot_cost.py):

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

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import Environment, environment, sources_digest
from benchmarks.fleets import ROOT
from benchmarks.measure import Comparison, Limit, Result, arguments, report, say
from benchmarks.robot_cost import Cost, cost_figures, middle_of, our_robot, stock_robot
from benchmarks.services import run_python

WORK = ROOT / "build" / "bench" / "agent_cost"
HERE = Path(__file__).resolve().parent
LABELS = "circle,square,star,triangle"
EPOCHS, BATCH = 20, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    frames: int
    messages: int  # timed, after the one whose memory is sampled
    repeats: int  # turns of all arms


FULL, QUICK = Size(frames=200, messages=3, repeats=2), Size(frames=200, messages=1, repeats=1)


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
    server = {
        "FLEETLEARN_TRAINING__EPOCHS": str(EPOCHS),
        "FLEETLEARN_TRAINING__BATCH_SIZE": str(BATCH),
    }
    agent = {"EDGE_AGENT_TRAINING__TRAINER": trainer}
    work = WORK / f"turn-{trainer}"
    return our_robot(work, made, inputs.server, inputs.bag, server, agent, size.messages)


def stock_arm(made: Environment, inputs: Inputs, size: Size) -> Cost:
    """Measure one start of `flower-supernode`."""
    node = f'bag="{inputs.bag}" model="{inputs.model}"'
    run = f"epochs={EPOCHS} batch-size={BATCH}"
    return stock_robot(WORK / "turn-stock", made, HERE / "camera_app", node, run, size.messages)


def result(
    costs: Mapping[str, Cost], environments: Mapping[str, Environment], model_bytes: int
) -> Result:
    """Put figures and ratios together."""
    sizes = {name: made.size_mb() for name, made in environments.items()}
    ours, stock = costs["litert"], costs["stock"]
    figures = cost_figures("", ours, sizes["agent"])
    # pip knows no setting that leaves out the uv program, which flwr asks for and nothing here uses
    figures["environment_pip_mb"] = (
        sizes["agent"] - environments["agent"].uv_mb() + environments["stock"].uv_mb()
    )
    figures |= cost_figures("keras_", costs["keras"], sizes["keras"])
    figures |= cost_figures("stock_", stock, sizes["stock"]) | {"stock_model_bytes": model_bytes}
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
            Comparison("cold_start", "s", ours.cold_start_s, stock.cold_start_s),
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


if __name__ == "__main__":
    main()
