"""Seconds of one federated round: a model of 1 MB, two robots, TLS, robots known by their keys.

Training adds a constant in all arms, so a round costs what the federation costs: asking, moving the
model down and the updates up, averaging, keeping the result.

  ours            `cloud-server start`, two agents (`edge-agent run`) with a plug-in trainer, polls
                  and settings as they come; the checkpoint of every round is on disk
  stock           flower-superlink, two flower-supernode, `flwr run`, FedAvg, training only: our
                  robots measure inside the train call, so this is the fair and harder peer
  stock_evaluate  the same with FedAvg's default, an evaluation by every robot after training

A round lasts from one closing to the next; the first, which starts processes, is start-up and is
counted from the order for the run. Nothing but one arm runs at a time, arms in turn. --quick makes
one turn with fewer rounds and leaves out stock_evaluate.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.fleets import BIN, ROOT, OurFleet, StockFleet, free_port
from benchmarks.measure import (
    Comparison,
    Result,
    arguments,
    boot_time_s,
    median,
    report,
    say,
)
from benchmarks.services import Services
from cloud_server.state.certificates import make_secrets
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history import ClosedRounds
from cloud_server.state.learning_settings import TrainingSettings
from cloud_server.state.settings import NetworkSettings, server_toml
from fleet_model.bundle import (
    TRAINER,
    Manifest,
    TensorSpec,
    TrainerSpec,
    WorkloadSpec,
    entry_of,
    parse_trainer,
    to_json,
)
from fleet_model.types import Checkpoint

WORK = ROOT / "build" / "bench" / "round_time"
HERE = Path(__file__).resolve().parent
PARAMETERS = 250_000  # float32: 1 MB
PLUGIN = "benchmarks.constant_trainer:ConstantTrainer"
ROBOTS = ("r1", "r2")
AGENT = (sys.executable, "-m", "edge_agent.cli")


@dataclass(frozen=True, slots=True)
class Times:
    """One start of one fleet."""

    startup_s: float  # from the order for a run to the first closed round
    rounds_s: Sequence[float]  # those after it


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="one turn, fewer rounds, no evaluation arm")
    times: dict[str, list[Times]] = {"ours": [], "stock": [], "stock_evaluate": []}
    for turn in range(1 if options.quick else 2):
        times["ours"].append(ours(rounds=6))
        times["stock"].append(stock(rounds=3 if options.quick else 4, evaluate=False))
        if not options.quick:
            times["stock_evaluate"].append(stock(rounds=4, evaluate=True))
        say(f"round_time: turn {turn + 1}: { ({k: v[-1] for k, v in times.items() if v}) }")
    report(result(times), as_json=options.json)


def ours(rounds: int) -> Times:
    """Run our server and two agents."""
    work = fresh(WORK / "ours")
    server_dir = ServerDirectory(work / "server")
    make_server(server_dir, free_port())
    settings = {"EDGE_AGENT_TRAINING__TRAINER": PLUGIN, "PYTHONPATH": str(ROOT)}
    with Services(work / "logs") as services:
        fleet = OurFleet.start(services, server_dir.root, {})
        for name in ROBOTS:
            fleet.enroll(name, work / name, examples=work)
            fleet.run_agent(name, work / name, AGENT, settings)
        closings = [boot_time_s()]
        fleet.admin.start_run(rounds)
        for closed in range(1, rounds + 1):
            services.wait("a round", lambda n=closed: fleet.rounds_closed() >= n, step_s=0.01)
            closings.append(boot_time_s())
        for record in ClosedRounds(server_dir):
            outcomes = [robot.outcome.kind for robot in record.robots]
            if outcomes != ["accepted"] * len(ROBOTS):
                raise RuntimeError(f"our round went wrong: {outcomes}")
    return times_of(closings)


def make_server(server_dir: ServerDirectory, port: int, parameters: int = PARAMETERS) -> None:
    """Write what `cloud-server init` writes, for a model of one tensor and without TensorFlow."""
    network = NetworkSettings(port=port)
    make_secrets(server_dir, network.names, datetime.now(timezone.utc))
    server_dir.kit.mkdir()
    shutil.copy(server_dir.certificates / "ca.crt", server_dir.kit)
    kit = f'address = "127.0.0.1:{port}"\nchannel = "stable"\n'
    (server_dir.kit / "kit.toml").write_text(kit)
    content = b"nothing: the plug-in adds a constant\n"
    trainer = to_json(
        TrainerSpec(
            workload=WorkloadSpec(name="image-classifier", config={"labels": ["a", "b"]}),
            trainable="head",
            tensors={"tensor": TensorSpec(shape=(parameters,))},
            batch_size=1,
            files={"nothing.txt": entry_of(content)},
            parts={PLUGIN: ("nothing.txt",)},
        )
    )
    for directory in (server_dir.model, server_dir.store / "objects", server_dir.checkpoints):
        directory.mkdir(parents=True)
    (server_dir.model / TRAINER).write_bytes(trainer)
    for file in (trainer, content):
        (server_dir.store / "objects" / entry_of(file).sha256).write_bytes(file)
    # A version that no channel offers: the server deletes files that no version needs.
    manifest = Manifest(
        version=0, created_at="2026-01-01T00:00:00+00:00", labels=("a", "b"), inputs={}, engines={},
        workload=parse_trainer(trainer).workload, trainer=entry_of(trainer), files={},
    )  # fmt: skip
    (server_dir.store / "versions").mkdir()
    (server_dir.store / "versions" / f"{manifest.version:06d}.json").write_bytes(to_json(manifest))
    weights = {"tensor": np.zeros(parameters, np.float32)}
    Checkpoints(server_dir.checkpoints).save(Checkpoint(version=0, weights=weights))
    server_dir.settings.write_text(server_toml(network, TrainingSettings()))


def stock(rounds: int, *, evaluate: bool) -> Times:
    """Run a SuperLink and two SuperNodes."""
    work = fresh(WORK / "stock")
    stamps = work / "rounds.txt"
    with Services(work / "logs") as services:
        fleet = StockFleet.start(services, work, free_port())
        for name in ROBOTS:
            fleet.run_supernode(name, BIN, "number=1", {})
        share = 1.0 if evaluate else 0.0
        begin = boot_time_s()
        fleet.run_app(
            HERE / "constant_app",
            f"num-server-rounds={rounds} parameters={PARAMETERS} fraction-evaluate={share} "
            f'stamps="{stamps}"',
        )
        services.wait("all rounds", lambda: len(read_closings(stamps)) > rounds)
    return times_of([begin, *read_closings(stamps)[1:]])  # the first is before round 1


def read_closings(file: Path) -> list[float]:
    """Return the closings that constant_app has noted, in seconds since boot."""
    return [json.loads(line) for line in file.read_text().split()] if file.exists() else []


def times_of(closings: Sequence[float]) -> Times:
    """Split [order, first closing, second closing, ...]."""
    first, *others = (after - before for before, after in pairwise(closings))
    return Times(startup_s=first, rounds_s=others)


def result(times: dict[str, list[Times]]) -> Result:
    """Return medians over all rounds of all turns, and ratios."""
    figures = {}
    for arm, starts in times.items():
        if starts:
            rounds = [seconds for start in starts for seconds in start.rounds_s]
            figures[f"{arm}_round_s"] = median(rounds)
            figures[f"{arm}_startup_s"] = median([start.startup_s for start in starts])
    comparisons = [
        Comparison("round_time", "s", figures["ours_round_s"], figures["stock_round_s"], 5)
    ]
    if times["stock_evaluate"]:
        with_evaluation = figures["stock_evaluate_round_s"]
        comparisons.append(
            Comparison("round_time_evaluate", "s", figures["ours_round_s"], with_evaluation)
        )
    comparisons.append(
        Comparison("startup", "s", figures["ours_startup_s"], figures["stock_startup_s"])
    )
    return Result(benchmark="round_time", comparisons=comparisons, figures=figures)


def fresh(work: Path) -> Path:
    """Return an empty folder."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


if __name__ == "__main__":
    main()
