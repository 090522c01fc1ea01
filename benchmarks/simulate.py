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
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import cv2
import numpy as np

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
from cloud_server.simulation.chart import BLUE, INK, PAGE, RULE, SOFT, TEAL, Color, round_up
from fleet_model.durable import write_durably
from fleet_model.types import RgbImage

Pixel: TypeAlias = tuple[int, int]  # (x, y)
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
LINES = {"ours": ("this project", TEAL), "flower": ("Flower's FedAvg", BLUE)}
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1600, 160, 1290, 190, 590  # of the picture; of its axes: pixels
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
    _, png = cv2.imencode(".png", draw(costs)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_durably(PICTURE, png.tobytes())
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


def draw(costs: Mapping[str, Mapping[int, Cost]]) -> RgbImage:
    """Draw microseconds per robot, from 0, over the number of robots on a log scale."""
    canvas = np.full((680, WIDTH, 3), PAGE, np.uint8)
    _text(canvas, "What a virtual robot costs in a round", (LEFT - 90, 60), 1.5, INK)
    note = "Microseconds per robot; 25.6 kB updates, and training that costs next to nothing"
    _text(canvas, note, (LEFT - 90, 118), 0.8, SOFT)
    curves = {
        arm: {robots: cost.round_s / robots * 1e6 for robots, cost in costs[arm].items()}
        for arm in LINES
    }
    top = round_up(max(us for curve in curves.values() for us in curve.values()))
    sizes = sorted({robots for curve in curves.values() for robots in curve})

    def at(robots: int, us: float) -> Pixel:
        along = math.log(robots / sizes[0]) / math.log(sizes[-1] / sizes[0])
        x = LEFT + 80 + along * (RIGHT - LEFT - 160)
        return round(x), round(BOTTOM - us / top * (BOTTOM - TOP))

    _axes(canvas, at, sizes, top)
    for arm, (name, color) in LINES.items():
        path = [at(robots, us) for robots, us in curves[arm].items()]
        for x, y in path:  # where its value stands, no rule of the axis strikes it through
            cv2.rectangle(canvas, (x - 36, y - 46), (x + 36, y - 14), PAGE, -1)
        cv2.polylines(canvas, [np.array(path, np.int32)], False, color, 4, cv2.LINE_AA)
        for (x, y), us in zip(path, curves[arm].values(), strict=True):
            cv2.circle(canvas, (x, y), 10, PAGE, -1, cv2.LINE_AA)
            cv2.circle(canvas, (x, y), 8, color, -1, cv2.LINE_AA)
            _text(canvas, f"{us:,.0f}", (x, y - 30), 0.9, color, align=0.5)
        _text(canvas, name, (RIGHT + 24, path[-1][1]), 0.9, color)
    return canvas


def _axes(
    canvas: RgbImage, at: Callable[[int, float], Pixel], sizes: Sequence[int], top: float
) -> None:
    for tick in range(5):
        _, y = at(sizes[0], top * tick / 4)
        cv2.line(canvas, (LEFT, y), (RIGHT, y), RULE if tick else SOFT, 2)
        _text(canvas, f"{top * tick / 4:,g}", (LEFT - 16, y), 0.75, SOFT, align=1.0)
    for robots in sizes:
        x, y = at(robots, 0)
        cv2.line(canvas, (x, y), (x, y + 10), SOFT, 2)
        _text(canvas, f"{robots:,}", (x, y + 32), 0.75, SOFT, align=0.5)
    _text(canvas, "virtual robots (log scale)", (RIGHT, BOTTOM + 66), 0.75, SOFT, align=1.0)


def _text(
    canvas: RgbImage,
    text: str,
    place: Pixel,
    scale: float,
    color: Color,
    *,
    align: float = 0.0,
) -> None:
    """Write around y; `align` is where x lies in the text: 0 left, 0.5 middle, 1 right."""
    font = cv2.FONT_HERSHEY_DUPLEX if scale > 0.8 else cv2.FONT_HERSHEY_SIMPLEX
    width = cv2.getTextSize(text, font, scale, 1)[0][0]
    at = round(place[0] - align * width), round(place[1] + scale * 11)
    cv2.putText(canvas, text, at, font, scale, color, 1, cv2.LINE_AA)


if __name__ == "__main__":
    main()
