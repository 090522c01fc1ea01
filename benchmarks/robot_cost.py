"""What one robot costs while it trains: our agent, and stock Flower's supernode with an app.

A robot of an environment of its own meets 1 + n messages and is idle before each. Its memory is
sampled in the first one; agent_cost.py says what the quantities are.
"""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

from benchmarks.environments import Environment
from benchmarks.fleets import OurFleet, StockFleet, free_port, move
from benchmarks.measure import median, memory_samples
from benchmarks.round_time import fresh
from benchmarks.services import Services
from cloud_server.state.history import ClosedRounds

HERE = Path(__file__).resolve().parent
IDLE_S = 4.0  # a look at an idle robot; its first half is left out
PATIENCE_S = 1800.0  # our training steps aside for everything else that runs


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

    @property
    def cold_start_s(self) -> float:
        """From the start of the node to the first step on frames that are new to it."""
        return self.ready_s + self.new_frames_s


def our_robot(
    work: Path,
    made: Environment,
    server_dir: Path,
    examples: Path,
    server: Mapping[str, str],
    agent: Mapping[str, str],
    messages: int,
) -> Cost:
    """Measure one start of our agent.

    Args:
        work: made anew; `server` in it is then the directory of the server that has ended.
        made: what the robot runs in.
        server_dir: an initialized server directory, copied.
        examples: the robot's, a bag or a data set.
        server: settings of the server, FLEETLEARN_*.
        agent: settings of the agent, EDGE_AGENT_*.
        messages: that are timed, after the first.
    """
    fresh(work)
    shutil.copytree(server_dir, work / "server")
    move(work / "server", free_port())
    stamps, robot = work / "steps.txt", work / "robot"
    settings = {
        "EDGE_AGENT_TRAINING__IDLE_S": "0.01",  # every message meets an idle robot
        "PYTHONPATH": str(HERE / "step_stamps"),
        "STEP_STAMPS": str(stamps),
        **agent,
    }
    with Services(work / "logs") as services:
        quorum = {"FLEETLEARN_ROUNDS__QUORUM": "1"}
        fleet = OurFleet.start(services, work / "server", {**quorum, **server})
        fleet.enroll("r1", robot, examples)
        node = fleet.run_agent("agent", robot, [made.bin / "edge-agent"], settings)
        before = _idle_mb(node.pid)
        with memory_samples(node.pid) as samples:
            run = fleet.admin.start_run(1 + messages)["id"]
            services.wait("a round", lambda: fleet.rounds_closed() >= 1, patience_s=PATIENCE_S)
        services.wait(
            "the published model", lambda: fleet.follows(robot, run), patience_s=PATIENCE_S
        )
        after = _idle_mb(node.pid)
        *_, last = ClosedRounds(fleet.server_dir)
    return Cost(
        idle_mb=max(before, after),
        peak_mb=max(samples),
        ready_s=node.ready_s,
        update_bytes=last.robots[0].update_bytes,
        **step_times(stamps),
    )


def stock_robot(
    work: Path, made: Environment, app: Path, node_config: str, run_config: str, messages: int
) -> Cost:
    """Measure one start of `flower-supernode`.

    Args:
        work: made anew.
        made: what the robot runs in.
        app: a Flower app that writes `stamps` when a round closes, and STEP_STAMPS.
        node_config: of the supernode.
        run_config: of the app, beside the number of rounds and `stamps`.
        messages: that are timed, after the first.
    """
    fresh(work)
    stamps, closed = work / "steps.txt", work / "rounds.txt"
    with Services(work / "logs") as services:
        fleet = StockFleet.start(services, work, free_port())
        node = fleet.run_supernode("supernode", made.bin, node_config, {"STEP_STAMPS": str(stamps)})
        before = _idle_mb(node.pid)
        with memory_samples(node.pid) as samples:
            config = f'num-server-rounds={1 + messages} stamps="{closed}" {run_config}'
            fleet.run_app(app, config)
            services.wait(
                "a round", lambda: _lines(closed) >= 2, patience_s=PATIENCE_S
            )  # the first is round 0
        services.wait(
            "all rounds", lambda: closed.with_suffix(".json").exists(), patience_s=PATIENCE_S
        )
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


def cost_figures(prefix: str, cost: Cost, environment_mb: float) -> dict[str, float]:
    """Return every quantity of an arm by its name."""
    values = {f.name: float(getattr(cost, f.name)) for f in fields(Cost)}
    values |= {"cold_start_s": cost.cold_start_s, "environment_mb": environment_mb}
    return {prefix + name: value for name, value in values.items()}


def _idle_mb(pid: int) -> float:
    """Return the median memory of a robot that has nothing to do."""
    with memory_samples(pid) as samples:
        time.sleep(IDLE_S)
    return median(samples[len(samples) // 2 :])


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0
