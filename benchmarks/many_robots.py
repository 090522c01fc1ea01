"""A server of 1,000 robots: rounds, memory, and what it costs while they are idle.

Robots speak TLS on loopback from a few processes (benchmarks.idle_robots) and train nothing: an
update is 25.6 kB of random numbers, a head of EfficientNet-Lite0 with five labels.

  ours    `cloud-server start` of this tree
  before  the same of commit 87262d4, checked out beside it, on the same files and robots
  stock   flower-superlink with a database file, `flwr run`, FedAvg without an evaluation phase

Robots start a tenth of a second apart. 87262d4 takes about a second a robot, so it is measured with
100. An arm that cannot serve all robots, or needs more than 300 s for a round, is measured with 300
or 100, stock Flower also with 50 or 20: `stock_robots` says how many it served. Ratios count in
proportion to an arm's number: that favors the others, whose seconds a robot grow with it. Both of
ours get limits that let so many robots come from one address. A round lasts from one closing to the
next; the first, which starts a run, does not count. Memory is the largest proportional set size
(PSS) of the server's process tree during rounds. The share of a core is the processor time of that
tree while all robots are online and nothing happens. A round reaches a robot when the robot has the
whole request: counted from the closing of the round before, where 20 of the idle robots are asked
(`reach`), and where all are (`reach_all`). --quick: 12 robots, no stock arm.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.fleets import StockFleet, free_port, listening
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
from benchmarks.older_tree import COMMIT, checkout, run
from benchmarks.round_time import HERE, fresh, read_closings
from benchmarks.services import ROOT, Services
from cloud_server.cli.admin_client import AdminClient
from cloud_server.state.directory import ServerDirectory
from fleet_model.protocol.proof import make_key

WORK = ROOT / "build" / "bench" / "many_robots"
PROCESSES = 4
APART_S = 0.1  # between two robots' starts
FEW = 20  # robots of a round that meets many idle ones
PARAMETERS = 1280 * 5 + 5
SETTLE_S = 10.0  # after the last robot has come online
ONLINE_S = 200.0  # after the last robot has started
PATIENCE_S = 300.0  # of a round
LIMITS = {
    "FLEETLEARN_LIMITS__MAX_CONNECTIONS": "8192",
    "FLEETLEARN_LIMITS__MAX_CONNECTIONS_PER_ADDRESS": "8192",
    "FLEETLEARN_LIMITS__REQUESTS_PER_S": "100000",
    "FLEETLEARN_LIMITS__REFUSALS_PER_S": "1000",
    "FLEETLEARN_ROUNDS__DEADLINE_S": "1800",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    robots: Sequence[int] = (1000, 300, 100)  # tried in turn
    before: Sequence[int] = (100,)  # the same at 87262d4
    stock: Sequence[int] = (1000, 300, 100, 50, 20)  # the same at stock Flower; empty: no such arm
    rounds: int = 3  # of all robots
    few_rounds: int = 5  # of FEW
    idle_s: float = 60.0


QUICK = Sizes(robots=(12,), before=(12,), stock=(), rounds=2, few_rounds=2, idle_s=5.0)


@dataclass(frozen=True, slots=True)
class Arm:
    """One of our servers: its tree and its files."""

    name: str
    tree: Path
    root: Path
    port: int

    @contextmanager
    def serving(self, robots: int, keys: Path, settings: Mapping[str, str]) -> "Iterator[Run]":
        """Start the server and the robots, and wait until all are online."""
        work = fresh(WORK / self.name)
        shutil.copytree(self.root, work / "server")
        server_dir = ServerDirectory(work / "server")
        serve = [sys.executable, "-m", "cloud_server.cli", "start", server_dir.root]
        with Services(work / "logs") as services:
            environment = {"PYTHONPATH": str(self.tree), **LIMITS, **settings}
            services.start("cloud-server", serve, environment)
            services.wait("the server's start", lambda: listening(self.port))
            ca = server_dir.certificates / "ca.crt"
            files = start_robots(services, work, self.port, ca, keys, robots)
            wait_for(services, files, robots)
            yield Run(services, server_dir, files)


@dataclass(frozen=True, slots=True)
class Run:
    """A server with its robots."""

    services: Services
    server_dir: ServerDirectory
    notes: Sequence[Path]

    def rounds(self, count: int) -> list[float]:
        """Run rounds; return when the run was ordered and each of them closed, Unix time."""
        stamps, history = [time.time()], self.server_dir.history
        AdminClient(self.server_dir).start_run(count)
        for closed in range(1, count + 1):
            self.services.wait(
                f"round {closed}",
                lambda n=closed: history.exists() and history.read_bytes().count(b"\n") >= n,
                step_s=0.02,
                patience_s=PATIENCE_S,
            )
            stamps.append(time.time())
        for line in history.read_text().splitlines():
            if wrong := [r for r in json.loads(line)["robots"] if r["outcome"] != "accepted"]:
                raise RuntimeError(f"a round went wrong: {wrong[:3]}")
        return stamps

    def reached(self, stamps: Sequence[float]) -> list[float]:
        """Return the seconds from the closing before until each robot had its request."""
        asked = sorted(note["at"] for note in read(self.notes) if note["event"] == "asked")
        return [at - max(s for s in stamps if s <= at) for at in asked if at > stamps[0]]


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="12 robots, no stock arm")
    sizes = QUICK if options.quick else Sizes()
    shutil.rmtree(WORK, ignore_errors=True)
    keys = make_keys(WORK / "keys", max(sizes.robots))
    arms: dict[str, Callable[[int], dict[str, float]]] = {
        arm.name: partial(ours, arm, keys, sizes) for arm in make_arms(keys)
    }
    if sizes.stock:
        arms["stock"] = partial(stock, keys, sizes)
    numbers = {"before": sizes.before, "stock": sizes.stock}
    found = {
        name: as_many_as_it_serves(name, arm, numbers.get(name, sizes.robots))
        for name, arm in arms.items()
    }
    report(result(found, max(sizes.robots)), as_json=options.json)


def as_many_as_it_serves(
    name: str, arm: Callable[[int], dict[str, float]], numbers: Sequence[int]
) -> dict[str, float]:
    """Return the figures of an arm, and `robots`: how many it served; 0 and no figures if none."""
    for robots in numbers:
        try:
            figures = {"robots": robots, **arm(robots)}
        except (TimeoutError, RuntimeError) as error:
            say(f"many_robots: {name} with {robots} robots: {str(error)[:500]}")
        else:
            say(f"many_robots: {name}: {figures}")
            return figures
    return {"robots": 0}


def ours(arm: Arm, keys: Path, sizes: Sizes, robots: int) -> dict[str, float]:
    """Measure one of our servers."""
    return {**idle(arm, keys, sizes, robots), **busy(arm, keys, sizes, robots)}


def make_arms(keys: Path) -> list[Arm]:
    """Let the older commit write a server directory, and give it to both."""
    tree, port = checkout(WORK / COMMIT), free_port()
    root = WORK / "data"
    run(tree, [HERE / "many_robots_data.py", root, port, keys])
    return [Arm("ours", ROOT, root, port), Arm("before", tree, root, port)]


def make_keys(directory: Path, robots: int) -> Path:
    """Make a private key a robot."""
    directory.mkdir(parents=True)
    for number in range(robots):
        make_key(directory / f"r{number:04d}.key")
    return directory


def start_robots(
    services: Services, work: Path, port: int, ca: Path, keys: Path, robots: int, *more: str
) -> list[Path]:
    """Start the processes that play all robots; return the files in which they note things."""
    files = []
    for part in range(PROCESSES):
        first, end = robots * part // PROCESSES, robots * (part + 1) // PROCESSES
        files.append(work / f"notes-{part}.jsonl")
        command = [
            sys.executable, "-m", "benchmarks.idle_robots", "--address", f"127.0.0.1:{port}",
            "--ca", ca, "--notes", files[-1], "--keys", keys, "--first", first,
            "--robots", end - first, "--apart-s", PROCESSES * APART_S, *more,
        ]  # fmt: skip
        services.start(f"robots-{part}", command, {"PYTHONPATH": str(ROOT)})
    return files


def wait_for(services: Services, files: Sequence[Path], robots: int) -> None:
    """Wait until all robots are online."""
    services.wait(
        f"{robots} robots",
        lambda: count(files, "online") >= robots,
        step_s=1.0,
        patience_s=APART_S * robots + ONLINE_S,
    )


def idle(arm: Arm, keys: Path, sizes: Sizes, robots: int) -> dict[str, float]:
    """Measure what idle robots cost, and how soon rounds of a few reach them."""
    few = str(min(FEW, robots // 3))
    settings = {"FLEETLEARN_ROUNDS__TARGET": few, "FLEETLEARN_ROUNDS__QUORUM": few}
    with arm.serving(robots, keys, settings) as server:
        share = idle_share(server.services.pid("cloud-server"), sizes.idle_s)
        reached = sorted(server.reached(server.rounds(sizes.few_rounds)))
    return {
        "idle_cpu_share": share,
        "reach_p95_s": reached[int(0.95 * len(reached))],
        "reach_worst_s": reached[-1],
    }


def busy(arm: Arm, keys: Path, sizes: Sizes, robots: int) -> dict[str, float]:
    """Measure rounds of all robots."""
    settings = {"FLEETLEARN_ROUNDS__QUORUM": str(robots)}
    with (
        arm.serving(robots, keys, settings) as server,
        memory_samples(server.services.pid("cloud-server")) as samples,
    ):
        stamps = server.rounds(sizes.rounds)
        reached = sorted(server.reached(stamps[1:]))
    return {
        "round_s": median([after - before for before, after in pairwise(stamps[1:])]),
        "mb": max(samples),
        "reach_all_p50_s": median(reached),
        "reach_all_worst_s": reached[-1],
    }


def stock(keys: Path, sizes: Sizes, robots: int) -> dict[str, float]:
    """Measure stock Flower with so many robots."""
    work = fresh(WORK / "stock")
    stamps = work / "rounds.txt"
    with Services(work / "logs") as services:
        fleet = StockFleet.start(
            services, work, free_port(), keys=sorted(keys.glob("*.pub"))[:robots]
        )
        ca = ServerDirectory(work).certificates / "ca.crt"
        files = start_robots(services, work, fleet.port, ca, keys, robots, "--stock")
        wait_for(services, files, robots)
        pid = services.pid("superlink")
        share = idle_share(pid, sizes.idle_s)
        with memory_samples(pid) as samples:
            fleet.run_app(
                HERE / "constant_app",
                f"num-server-rounds={sizes.rounds} parameters={PARAMETERS} nodes={robots} "
                f'stamps="{stamps}"',
            )
            for closed in range(1, sizes.rounds + 1):
                services.wait(
                    f"round {closed}",
                    lambda n=closed: len(read_closings(stamps)) > n,  # it notes the start as well
                    patience_s=PATIENCE_S,
                )
        closings = read_closings(stamps)[1:]
    seconds = median([after - before for before, after in pairwise(closings)])
    return {"round_s": seconds, "mb": max(samples), "idle_cpu_share": share}


def idle_share(pid: int, seconds: float) -> float:
    """Return the share of a core that a process tree takes, once robots have settled."""
    time.sleep(SETTLE_S)
    before, begin = cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_s(pid) - before) / (time.monotonic() - begin)


def cpu_s(pid: int) -> float:
    """Return the processor time of a process tree so far."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def read(files: Sequence[Path]) -> list[dict[str, object]]:
    """Return the notes of all robots that are whole lines."""
    lines = [line for file in files if file.exists() for line in file.read_text().split("\n")[:-1]]
    return [json.loads(line) for line in lines]


def count(files: Sequence[Path], event: str) -> int:
    """Return how many robots have noted something."""
    return len({note["robot"] for note in read(files) if note["event"] == event})


def result(found: Mapping[str, Mapping[str, float]], robots: int) -> Result:
    """Compare this tree with the older one and with stock Flower, in proportion to the robots."""
    if silent := [name for name in ("ours", "before") if not found[name]["robots"]]:
        raise RuntimeError(f"no number of robots was served by: {', '.join(silent)}")
    figures = {
        key if arm == "ours" else f"{arm}_{key}": value
        for arm, values in found.items()
        for key, value in values.items()
    }
    figures[f"server_mb_{robots}"] = figures.pop("mb")

    def comparison(key: str, unit: str, of: str, arm: str, required: float = 0.0) -> Comparison:
        mine, its = (found[one][of] * robots / found[one]["robots"] for one in ("ours", arm))
        return Comparison(key, unit, mine, its, required)

    comparisons = [
        comparison(f"round_{robots}", "s", "round_s", "before", 2),
        comparison("idle_cpu", "cores", "idle_cpu_share", "before"),
    ]
    if found.get("stock", {}).get("robots"):
        comparisons += [
            comparison(f"round_{robots}_stock", "s", "round_s", "stock"),
            comparison("idle_cpu_stock", "cores", "idle_cpu_share", "stock"),
        ]
    return Result(
        benchmark="many_robots",
        comparisons=comparisons,
        figures=figures,
        limits=[
            Limit(f"server_mb_{robots}", 400),
            Limit("idle_cpu_share", 0.25),
            Limit("reach_worst_s", 3),
        ],
    )


if __name__ == "__main__":
    main()
