"""Seconds until a command answers --help: what every script, completion and health check pays.

`edge-agent` against `flower-supernode`, `cloud-server` against `flwr`, all from the environment of
this interpreter, in turn. The first turn warms the disk cache and is not counted; --quick counts
two turns in place of five.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import Comparison, Result, arguments, median, report, say

PAIRS = {"robot": ("edge-agent", "flower-supernode"), "server": ("cloud-server", "flwr")}


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="two turns in place of five")
    seconds = measure(turns=2 if options.quick else 5)
    report(result(seconds), as_json=options.json)


def measure(turns: int) -> dict[str, list[float]]:
    """Return command -> seconds of each turn."""
    commands = [command for pair in PAIRS.values() for command in pair]
    seconds: dict[str, list[float]] = {command: [] for command in commands}
    for turn in range(turns + 1):
        for command in commands:
            taken = help_seconds(command)
            if turn:
                seconds[command].append(taken)
        say(f"startup: turn {turn} of {turns}")
    return seconds


def help_seconds(command: str) -> float:
    """Run `command --help` once."""
    program = Path(sys.executable).parent / command
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    begin = time.perf_counter()
    subprocess.run(
        [program, "--help"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        check=True,
    )  # fmt: skip
    return time.perf_counter() - begin


def result(seconds: dict[str, list[float]]) -> Result:
    """Return medians and ratios."""
    middle = {command: median(values) for command, values in seconds.items()}
    return Result(
        benchmark="startup",
        comparisons=[
            Comparison(f"{side}_help", "s", middle[ours], middle[peer])
            for side, (ours, peer) in PAIRS.items()
        ],
        figures={f"{name.replace('-', '_')}_help_s": value for name, value in middle.items()},
    )


if __name__ == "__main__":
    main()
