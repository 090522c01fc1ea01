"""What a round costs per robot: 25.6 kB updates of 100 to 10,000 virtual robots in one process.

The robots' work is next to nothing and each answers differently, so a round costs what the loop
costs: choosing, asking, checking every update, keeping it, folding it in.

  ours    the round loop of `cloud-server start` under `cloud-server simulate`, checks and all
  flower  stock FedAvg over a Grid that calls the ClientApp at once: nothing between them
  ray     Flower's own simulation at 100 robots, if the extra `simulation` is installed

Seconds are medians over the rounds after the first; memory is the peak of the process tree.
Flatness is the largest of our microseconds per robot over 100, 1,000 and 10,000 robots / the
smallest; build/bench/simulate.png shows both curves. --quick leaves out 10,000 robots and ray.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.environments import ROOT
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
from benchmarks.simulated_fleets import MARK
from cloud_server.simulation.chart import Lines, round_up, write_chart

PICTURE = ROOT / "build" / "bench" / "simulate.png"
LOG = PICTURE.with_suffix(".log")  # what the last arm said on stderr
ENVIRONMENT = {
    **os.environ,
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # its default is 15: whatever else runs would slow Ray alone
}
# robots -> rounds
OURS = {100: 20, 1000: 10, 10_000: 4}
FLOWER = {100: 11, 1000: 4, 10_000: 2}
RAY = {100: 4}
BIG = 10_000
FLAT = 2.0  # what a robot costs, the dearest number of robots / the cheapest


@dataclass(frozen=True, slots=True)
class Cost:
    """One arm with so many robots."""

    round_s: float
    peak_mb: float


def main() -> None:
    """Measure, draw and print."""
    options = arguments(__doc__, quick="without 10,000 robots and without ray")
    costs: dict[str, dict[int, Cost]] = {"ours": {}, "flower": {}, "ray": {}}
    plan = {"ours": OURS, "flower": FLOWER}
    if importlib.util.find_spec("ray") and not options.quick:
        plan["ray"] = RAY
    for arm, sizes in plan.items():
        for robots, rounds in sizes.items():
            if robots < BIG or not options.quick:
                costs[arm][robots] = cost = measure(arm, robots, rounds)
                say(f"simulate: {arm}, {robots} robots: {cost}")
    draw(costs)
    report(result(costs), as_json=options.json)


def measure(arm: str, robots: int, rounds: int) -> Cost:
    """Run one arm in its own process."""
    command = [sys.executable, "-m", "benchmarks.simulated_fleets", arm, str(robots), str(rounds)]
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with (
        LOG.open("w") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=log
        ) as one,
    ):
        assert one.stdout is not None
        with memory_samples(one.pid) as samples:
            moments = moments_of(one.stdout.read())
    if one.returncode or len(moments) != rounds + 1:
        last = "\n".join(LOG.read_text().splitlines()[-5:])
        raise RuntimeError(f"{arm} ended with exit code {one.returncode}:\n{last}")
    return Cost(median([after - before for before, after in pairwise(moments[1:])]), max(samples))


def moments_of(text: str) -> list[float]:
    """Return the moments that simulated_fleets has printed; Flower and Ray print there, too."""
    lines = (line.removeprefix(MARK) for line in text.splitlines() if line.startswith(MARK))
    return [float(line) for line in lines]


def result(costs: Mapping[str, Mapping[int, Cost]]) -> Result:
    """Return figures and ratios."""
    figures: dict[str, float] = {}
    for arm, sizes in costs.items():
        for robots, cost in sizes.items():
            who = "" if arm == "ours" else f"{arm}_"
            figures[f"{who}us_per_robot_{robots}"] = cost.round_s / robots * 1e6
            figures[f"{who}peak_mb_{robots}"] = cost.peak_mb
    per_robot = [cost.round_s / robots for robots, cost in costs["ours"].items()]
    figures["flatness"] = max(per_robot) / min(per_robot)
    ours, flower = costs["ours"][1000], costs["flower"][1000]
    figures |= {"rounds_per_s": 1 / ours.round_s, "peak_mb": ours.peak_mb}
    comparisons = [
        Comparison("rounds_per_s", "s", ours.round_s, flower.round_s),
        Comparison("peak_memory", "MB", ours.peak_mb, flower.peak_mb),
    ]
    if BIG in costs["ours"]:
        big, peer = costs["ours"][BIG], costs["flower"][BIG]
        comparisons.append(Comparison("rounds_per_s_10000", "s", big.round_s, peer.round_s))
    if costs["ray"]:
        small, peer = costs["ours"][100], costs["ray"][100]
        comparisons.append(Comparison("rounds_per_s_ray", "s", small.round_s, peer.round_s))
    return Result(
        benchmark="simulate",
        comparisons=comparisons,
        figures=figures,
        limits=[Limit("flatness", FLAT)],
    )


def draw(costs: Mapping[str, Mapping[int, Cost]]) -> None:
    """Draw microseconds per robot, from 0, over the number of robots on a log scale."""
    points = {
        name: [(float(robots), cost.round_s / robots * 1e6) for robots, cost in costs[arm].items()]
        for arm, name in (("ours", "this project"), ("flower", "Flower's FedAvg, one process"))
    }
    panel = Lines(
        title="Microseconds per robot and round",
        x_name="virtual robots (log scale)",
        points=points,
        top=round_up(1.1 * max(us for line in points.values() for _, us in line)),
        shown=lambda us: f"{us:,.0f}",
        log_x=True,
    )
    note = "25.6 kB updates, training that costs next to nothing: what is left is the loop itself"
    write_chart(PICTURE, "What a virtual robot costs in a round", note, [panel])


if __name__ == "__main__":
    main()
