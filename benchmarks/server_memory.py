"""Memory of a server against the number of robots: a model of 40 MB, 2, 8 and 32 robots, TLS.

Both arms have the same robots (benchmarks.lean_robots: one process outside the measured tree), each
of whose updates is new to the server, and count the server's whole process tree from outside.

  ours    `cloud-server start` with its defaults: rounds, checks, spool and checkpoints on disk
  stock   flower-superlink with a database file, `flwr run`, FedAvg without an evaluation phase: the
          SuperLink with the processes that it starts (SuperExec and ServerApp)

Peak means the largest proportional set size (PSS) seen from the order for a run until its last
round has closed. Growth is (peak with the most robots - peak with the fewest) / peak with the
fewest. Robots transfer two at a time; the figures *_at_once_mb are of the largest fleet when all
its robots transfer at once. --quick uses a model of 4 MB, at most 8 robots, and leaves that out.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fleets import ROOT, OurFleet, StockFleet, free_port
from benchmarks.measure import (
    Comparison,
    Limit,
    Result,
    arguments,
    memory_samples,
    report,
    say,
)
from benchmarks.round_time import HERE, fresh, make_server, read_closings
from benchmarks.services import Services
from cloud_server.robots.register import Register
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history import ClosedRounds
from fleet_model.protocol.proof import make_key, public_line, read_key

WORK = ROOT / "build" / "bench" / "server_memory"
ROUNDS = 2  # what one round leaves behind shows in the next
PATIENCE_S = 1800.0  # 32 robots move 2.6 GB a round through TLS on whatever machine this is


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="4 MB, at most 8 robots, not all at once")
    parameters = 1_000_000 if options.quick else 10_000_000
    sizes = (2, 8) if options.quick else (2, 8, 32)
    figures: dict[str, float] = {}
    for robots in sizes:
        figures[f"ours_{robots}_mb"] = ours(robots, parameters, workers=2)
        figures[f"flower_{robots}_mb"] = stock(robots, parameters, workers=2)
        say(f"server_memory: {robots} robots: {figures}")
    if not options.quick:
        most = sizes[-1]
        figures["ours_at_once_mb"] = ours(most, parameters, workers=most)
        figures["flower_at_once_mb"] = stock(most, parameters, workers=most)
    report(result(figures, sizes), as_json=options.json)


def ours(robots: int, parameters: int, workers: int) -> float:
    """Return the peak of our server in MB."""
    work = fresh(WORK / "ours")
    server_dir = ServerDirectory(work / "server")
    make_server(server_dir, free_port(), parameters)
    register = Register(server_dir.robots)
    keys = make_keys(work / "keys", robots)
    for key in keys:
        register.add(key.stem, "bench", public_line(read_key(key).public_key()))
    settings = {"FLEETLEARN_ROUNDS__QUORUM": str(robots), "FLEETLEARN_ROUNDS__DEADLINE_S": "1800"}
    with Services(work / "logs") as services:
        fleet = OurFleet.start(services, server_dir.root, settings)
        start_robots(services, fleet.port, server_dir, keys, workers)
        services.wait("all robots", lambda: fleet.online() >= robots, patience_s=PATIENCE_S)
        with memory_samples(services.pid("cloud-server")) as samples:
            fleet.admin.start_run(ROUNDS)
            services.wait(
                "all rounds", lambda: fleet.rounds_closed() >= ROUNDS, patience_s=PATIENCE_S
            )
        require_accepted(server_dir, robots)
    return max(samples)


def stock(robots: int, parameters: int, workers: int) -> float:
    """Return the peak of a SuperLink with its ServerApp in MB."""
    work = fresh(WORK / "stock")
    stamps = work / "rounds.txt"
    with Services(work / "logs") as services:
        fleet = StockFleet.start(services, work, free_port())
        keys = make_keys(work / "keys", robots)
        for key in keys:
            fleet.register(key)
        start_robots(services, fleet.port, ServerDirectory(work), keys, workers)
        services.wait("all robots", lambda: fleet.online() >= robots, patience_s=PATIENCE_S)
        with memory_samples(services.pid("superlink")) as samples:
            fleet.run_app(
                HERE / "constant_app",
                f"num-server-rounds={ROUNDS} parameters={parameters} nodes={robots} "
                f'stamps="{stamps}"',
            )
            services.wait(
                "all rounds", lambda: len(read_closings(stamps)) > ROUNDS, patience_s=PATIENCE_S
            )
    return max(samples)


def make_keys(directory: Path, robots: int) -> list[Path]:
    """Make a private key a robot."""
    directory.mkdir()
    keys = [directory / f"r{number:02d}.key" for number in range(robots)]
    for key in keys:
        make_key(key)
    return keys


def start_robots(
    services: Services, port: int, trust: ServerDirectory, keys: Sequence[Path], workers: int
) -> None:
    """Start one process that plays all robots."""
    command = [
        sys.executable, "-m", "benchmarks.lean_robots", "--address", f"127.0.0.1:{port}",
        "--ca", trust.certificates / "ca.crt", "--workers", workers, *keys,
    ]  # fmt: skip
    services.start("robots", command, {"PYTHONPATH": str(ROOT)})


def require_accepted(server_dir: ServerDirectory, robots: int) -> None:
    """Raise RuntimeError unless every robot's update was folded in."""
    for record in ClosedRounds(server_dir):
        outcomes = [robot.outcome.kind for robot in record.robots]
        if outcomes != ["accepted"] * robots:
            raise RuntimeError(f"our round went wrong: {outcomes}")


def result(figures: dict[str, float], sizes: Sequence[int]) -> Result:
    """Add growth and compare the largest fleets."""
    few, most = sizes[0], sizes[-1]
    for arm, name in (("ours", "growth"), ("flower", "growth_flower")):
        least = figures[f"{arm}_{few}_mb"]
        figures[name] = (figures[f"{arm}_{most}_mb"] - least) / least
    comparisons = [
        Comparison(
            f"server_memory_{robots}", "MB",
            figures[f"ours_{robots}_mb"], figures[f"flower_{robots}_mb"],
        )
        for robots in sizes
    ]  # fmt: skip
    return Result(
        benchmark="server_memory",
        comparisons=comparisons,
        figures=figures,
        limits=[Limit("growth", 0.08)],
    )


if __name__ == "__main__":
    main()
