"""Seconds from kill -9 of the server, in the middle of a round, to the next closed round.

The server is killed while both robots train, and started again at once on what it left on disk;
nobody types anything else. Robots are whole ones of each side; training is a pause of 3 seconds.

  ours     `cloud-server start`, two agents: the run goes on by itself, asked robots are awaited
  stock    flower-superlink with a database file and a flower-superexec beside it, so that the
           ServerApp outlives the SuperLink; two flower-supernode, FedAvg: the arrangement of stock
           Flower that can go on at all
  default  the same as `flower-superlink` starts by itself: the ServerApp ends with it. Killed once;
           counted is how many of the run's rounds are never closed

A recovery lasts from the kill to the next closing, so a rest of the training is in it for both. A
stock run that ends, or closes no round for two minutes, has lost its remaining rounds. --quick
kills once and leaves out default.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fleets import BIN, ROOT, OurFleet, StockFleet, free_port
from benchmarks.measure import (
    Comparison,
    Limit,
    Result,
    arguments,
    boot_time_s,
    median,
    report,
    say,
)
from benchmarks.round_time import (
    AGENT,
    HERE,
    PLUGIN,
    ROBOTS,
    fresh,
    make_server,
    read_closings,
)
from benchmarks.services import Services
from cloud_server.state.directory import ServerDirectory

WORK = ROOT / "build" / "bench" / "recovery"
TRAINING_S = 3.0
INTO_THE_ROUND_S = 2.0  # asked and training, not yet answered
CALM_ROUNDS = 2  # closed before the first kill: nothing is starting any more
PATIENCE_S = 120.0  # twice the heartbeat after which Flower gives a run up


@dataclass(frozen=True, slots=True)
class Ending:
    """How the rounds of one killed server went on."""

    recoveries_s: list[float] = field(default_factory=list)
    calm_s: list[float] = field(default_factory=list)  # rounds before the first kill
    lost: int = 0  # rounds of the run that were never closed


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="one kill, not the default arrangement")
    kills = 1 if options.quick else 5
    endings = {"ours": ours(kills), "stock": stock(kills, separate=True)}
    say(f"recovery: {endings}")
    if not options.quick:
        endings["default"] = stock(1, separate=False)
    report(result(endings), as_json=options.json)


def ours(kills: int) -> Ending:
    """Kill our server in the middle of rounds."""
    work = fresh(WORK / "ours")
    server_dir = ServerDirectory(work / "server")
    make_server(server_dir, free_port())
    rounds = CALM_ROUNDS + 2 * kills
    agent = {
        "EDGE_AGENT_TRAINING__TRAINER": PLUGIN,
        "PYTHONPATH": str(ROOT),
        "CONSTANT_TRAINER_S": str(TRAINING_S),
    }
    with Services(work / "logs") as services:
        fleet = OurFleet.start(services, server_dir.root, {})
        for name in ROBOTS:
            fleet.enroll(name, work / name, examples=work)
            fleet.run_agent(name, work / name, AGENT, agent)
        fleet.admin.start_run(rounds)
        return kill_in_rounds(
            services, "cloud-server", fleet.serve, fleet.rounds_closed, kills, rounds
        )


def stock(kills: int, *, separate: bool) -> Ending:
    """Kill a SuperLink in the middle of rounds."""
    work = fresh(WORK / "stock")
    stamps = work / "rounds.txt"
    rounds = CALM_ROUNDS + 2 * kills
    with Services(work / "logs") as services:
        fleet = StockFleet.start(services, work, free_port(), separate=separate)
        for name in ROBOTS:
            fleet.run_supernode(name, BIN, "number=1", {})
        fleet.run_app(
            HERE / "constant_app",
            f'num-server-rounds={rounds} train-s={TRAINING_S} stamps="{stamps}"',
        )
        return kill_in_rounds(
            services, "superlink", fleet.serve, lambda: stock_rounds(stamps), kills, rounds
        )


def stock_rounds(stamps: Path) -> int:
    """Return how many rounds the stock app has closed; its first stamp is before round 1."""
    return max(len(read_closings(stamps)) - 1, 0)


def kill_in_rounds(
    services: Services,
    name: str,
    serve: Callable[[], None],
    closed: Callable[[], int],
    kills: int,
    rounds: int,
) -> Ending:
    """Kill a server every second round and start it again, until the rounds are over."""
    ending = Ending()
    for calm in range(1, CALM_ROUNDS + 1):
        begin = boot_time_s()
        services.wait("a round", lambda n=calm: closed() >= n, step_s=0.01)
        ending.calm_s.append(boot_time_s() - begin)
    for _ in range(kills):
        before = closed()
        time.sleep(INTO_THE_ROUND_S)
        begin = boot_time_s()
        services.kill(name)
        serve()
        try:
            services.wait("a round", lambda n=before: closed() > n, 0.01, PATIENCE_S)
            ending.recoveries_s.append(boot_time_s() - begin)
            services.wait("one more", lambda n=before: closed() > n + 1, 0.01, PATIENCE_S)
        except TimeoutError:
            break
    return Ending(ending.recoveries_s, ending.calm_s, lost=rounds - closed())


def result(endings: dict[str, Ending]) -> Result:
    """Return medians over all kills; stock Flower's only if it has recovered."""
    mine, peer = endings["ours"], endings["stock"]
    figures = {
        "recovery_s": median(mine.recoveries_s),
        "round_s": median(mine.calm_s[1:]),
        "rounds_lost": float(mine.lost),
        "flower_rounds_lost": float(peer.lost),
    }
    comparisons = []
    if peer.recoveries_s:
        figures["recovery_flower_s"] = median(peer.recoveries_s)
        comparisons = [
            Comparison("recovery", "s", figures["recovery_s"], figures["recovery_flower_s"])
        ]
    if "default" in endings:
        figures["flower_default_rounds_lost"] = float(endings["default"].lost)
    return Result(
        benchmark="recovery",
        comparisons=comparisons,
        figures=figures,
        limits=[Limit("rounds_lost", 0)],
    )


if __name__ == "__main__":
    main()
