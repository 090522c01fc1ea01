"""Camera to answer in ROS 2: perception_node against a node that is written the obvious way.

Both run the same bundle (EfficientNet-Lite0 at 128 pixels, float32, one thread) on the pictures of
the same camera process (ros_camera.py), in turn. The peer, ros_plain_node.py, decodes the whole
picture, resizes it and runs the model in the callback of a subscription with a queue of 10. All
processes use the Fast DDS profile that edge_bringup ships.

  sustained_hz   answers a second of the obvious node while more pictures come than it can answer:
                 measured at 200 Hz, then at a tenth more than that gave
  30hz           pictures at 30 Hz: milliseconds from the stamp of a picture to the arrival of its
                 answer, and the share of one core that the node takes
  overload       pictures at twice the rate that the obvious node sustains

Ratios: `p99_overload` and `cpu_30hz` are of 1280 x 720 JPEG; those of raw pictures and of 640 x 480
stand beside. --quick: 1280 x 720 alone, three seconds each, one turn.

It needs the workspace of ros2_ws, which it builds as `make test-ros` does, in .venv-ros.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.lite0 import lite0_bundle
from benchmarks.measure import Comparison, Result, arguments, median, report, say
from benchmarks.ros_camera import Look
from benchmarks.services import ROOT, Services, base_environment

WORK = ROOT / "build" / "bench" / "ros_latency"
PYTHON = ROOT / ".venv-ros" / "bin" / "python"
WORKSPACE = ROOT / "ros2_ws"
SETUP = ROOT / "build" / "ros2_ws" / "install" / "local_setup.sh"
PROGRAM = SETUP.parent / "edge_perception" / "lib" / "edge_perception" / "perception_node"
PROFILE = WORKSPACE / "src" / "edge_bringup" / "config" / "fast_dds.xml"
SATURATING_HZ = 200.0
HD, VGA = (1280, 720), (640, 480)
PICTURES, QUALITY = 8, 90
ARMS, TRANSPORTS = ("ours", "plain"), ("compressed", "raw")
DOMAINS = {"ours": "213", "plain": "214"}  # who is not looked at hears nothing
OUTPUT = {"ours": "/perception/classification", "plain": "/plain_node/predictions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    seconds: float  # of every look
    turns: int
    sizes: Sequence[tuple[int, int]]


FULL, QUICK = Size(seconds=10, turns=2, sizes=(HD, VGA)), Size(seconds=3, turns=1, sizes=(HD,))


class Case(NamedTuple):
    """What an arm was looked at with; `load` is "30hz" or "overload"."""

    arm: str
    transport: str
    size: tuple[int, int]
    load: str


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="1280 x 720 alone, three seconds each, one turn")
    how = QUICK if options.quick else FULL
    environment, bundle = prepare()
    bench = Bench(environment, bundle, how)
    for turn in range(how.turns):
        for transport in TRANSPORTS:
            bench.look_at(transport, ARMS if turn % 2 else ARMS[::-1])
        say(f"ros_latency: turn {turn + 1} of {how.turns}")
    report(result(bench.looks, bench.sustained_hz), as_json=options.json)


def prepare() -> tuple[Mapping[str, str], Path]:
    """Return the environment of ROS processes, and the bundle; both made if necessary."""
    if not PYTHON.exists():
        raise SystemExit("ros_latency: needs ROS 2 from wheels in .venv-ros: run `make test-ros`")
    command = [PYTHON, WORKSPACE / "build_from_wheels.py"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    bundle = lite0_bundle(WORK)
    for width, height in (HD, VGA):
        paint(WORK / f"{width}x{height}", width, height)
    return ros_environment(), bundle


def ros_environment() -> Mapping[str, str]:
    """Return what a shell has after the setup script of the built workspace."""
    said = subprocess.run(
        ["sh", "-c", f". {SETUP}; env -0"],
        env=base_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    ours = dict(pair.split("=", 1) for pair in said.stdout.split("\0") if pair)
    paths = [str(ROOT), ours.get("PYTHONPATH", "")]
    return ours | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE),
    }


def paint(folder: Path, width: int, height: int) -> None:
    """Write JPEGs with the texture of photographs at this size: many small ones side by side."""
    import cv2
    import numpy as np

    from fleet_model.workloads.image_classifier.calibration import calibration_frames

    if folder.exists():
        return
    folder.mkdir()
    photos = [cv2.resize(frame.decode(), (160, 120)) for frame in calibration_frames(None)]
    columns, rows = -(-width // 160), -(-height // 120)
    for number in range(PICTURES):
        chosen = [photos[(number * 7 + i) % len(photos)] for i in range(columns * rows)]
        lines = [np.hstack(chosen[r * columns : (r + 1) * columns]) for r in range(rows)]
        picture = np.vstack(lines)[:height, :width, ::-1]
        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        cv2.imwrite(str(folder / f"{number}.jpg"), picture, options)


class Bench:
    """Both nodes run, and are looked at in turn."""

    def __init__(self, environment: Mapping[str, str], bundle: Path, how: Size) -> None:
        """Keep how; nothing is started yet."""
        self._environment, self._bundle, self._how = environment, bundle, how
        self.looks: dict[Case, list[Look]] = {}
        self.sustained_hz: dict[tuple[int, int], list[float]] = {}

    def look_at(self, transport: str, arms: Sequence[str]) -> None:
        """Add one look at every arm with every size and load."""
        with Services(WORK / "logs") as services:
            pids = {arm: self._start(services, arm, transport) for arm in arms}
            for size in self._how.sizes:
                loads = {"30hz": 30.0}
                if transport == "compressed":
                    loads["overload"] = 2 * self._sustained(size, pids["plain"])
                for load, rate_hz in loads.items():
                    for arm in arms:
                        look = self._look(arm, transport, size, rate_hz, pids[arm])
                        self.looks.setdefault(Case(arm, transport, size, load), []).append(look)
            services.require_alive()

    def _sustained(self, size: tuple[int, int], pid: int) -> float:
        """Return how many JPEGs a second the obvious node answers when it is never idle."""
        first = self._look("plain", "compressed", size, SATURATING_HZ, pid)
        then = self._look("plain", "compressed", size, 1.1 * first.answered_hz, pid)
        self.sustained_hz.setdefault(size, []).append(then.answered_hz)
        return then.answered_hz

    def _start(self, services: Services, arm: str, transport: str) -> int:
        plain = ["-m", "benchmarks.ros_plain_node", self._bundle, transport]
        values = {
            "model": self._bundle,
            "threads": 1,
            "transport": transport,
            "output": "edge_perception_msgs",
        }
        given = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
        ours = [PROGRAM, "--ros-args", *given]
        words = {"plain": plain, "ours": ours}[arm]
        return services.start(arm, [PYTHON, *words], self._of(arm))

    def _of(self, arm: str) -> dict[str, str]:
        return {**self._environment, "ROS_DOMAIN_ID": DOMAINS[arm]}

    def _look(
        self, arm: str, transport: str, size: tuple[int, int], rate_hz: float, pid: int
    ) -> Look:
        files = sorted((WORK / f"{size[0]}x{size[1]}").glob("*.jpg"))
        words = [OUTPUT[arm], transport, rate_hz, self._how.seconds, pid, *files]
        command = [PYTHON, "-m", "benchmarks.ros_camera", *words]
        said = subprocess.run(
            list(map(str, command)),
            env=self._of(arm),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        look = Look(**json.loads(said.stdout.splitlines()[-1]))
        p50, p99 = percentile(look.latency_ms, 50), percentile(look.latency_ms, 99)
        say(
            f"ros_latency: {arm} {transport} {size[0]}x{size[1]}: sent {look.sent_hz:.0f} Hz, "
            f"answered {look.answered_hz:.0f}, cpu {look.cpu_share:.2f}, p50 {p50:.1f} ms, "
            f"p99 {p99:.1f} ms"
        )
        return look


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that so many percent of all values do not exceed."""
    if not values:
        raise SystemExit("ros_latency: a node answered nothing; its log is in build/bench")
    return sorted(values)[max(0, -(-percent * len(values) // 100) - 1)]


def result(
    looks: Mapping[Case, Sequence[Look]], sustained_hz: Mapping[tuple[int, int], Sequence[float]]
) -> Result:
    """Put medians of the turns and ratios together."""
    figures = {f"sustained_{w}x{h}_hz": median(hz) for (w, h), hz in sustained_hz.items()}
    for case, found in looks.items():
        name = f"{case.arm}_{case.transport}_{case.size[0]}x{case.size[1]}_{case.load}"
        for percent in (50, 95, 99):
            figures[f"{name}_p{percent}_ms"] = _latency(found, percent)
        figures[f"{name}_cpu"] = median([look.cpu_share for look in found])
        figures[f"{name}_sent_hz"] = median([look.sent_hz for look in found])
        figures[f"{name}_answered_hz"] = median([look.answered_hz for look in found])
    comparisons = []
    for transport, size, load in dict.fromkeys(case[1:] for case in looks):
        ours, plain = (looks[Case(arm, transport, size, load)] for arm in ARMS)
        tail = f"{'_raw' if transport == 'raw' else ''}{'' if size == HD else f'_{size[0]}'}"
        is_promised = not tail
        p99 = [_latency(found, 99) for found in (ours, plain)]
        if load == "overload":
            required = 4 if is_promised else 0
            comparisons.append(Comparison(f"p99_overload{tail}", "ms", *p99, required))
        else:
            cpu = [median([look.cpu_share for look in found]) for found in (ours, plain)]
            required = 1.2 if is_promised else 0
            comparisons.append(Comparison(f"cpu_30hz{tail}", "cores", *cpu, required))
            comparisons.append(Comparison(f"p99_30hz{tail}", "ms", *p99))
    return Result(benchmark="ros_latency", comparisons=comparisons, figures=figures)


def _latency(found: Sequence[Look], percent: int) -> float:
    return median([percentile(look.latency_ms, percent) for look in found])


if __name__ == "__main__":
    main()
