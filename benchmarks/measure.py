"""What all benchmarks share: arguments, medians, memory from outside, the table, the JSON line."""

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE_S = 0.1  # a look costs 3 ms per 100 MB: a tenth of one core at most, also for TensorFlow


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the table: the same quantity for this project and its peer."""

    key: str  # of the ratio
    unit: str
    ours: float
    peer: float
    required: float = 0.0  # the ratio that this project promises; 0: none

    @property
    def ratio(self) -> float:
        """Return peer / ours: above 1, ours is better."""
        return self.peer / self.ours


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure that must not grow beyond a promised number."""

    key: str
    at_most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything one benchmark prints."""

    benchmark: str
    comparisons: Sequence[Comparison]
    figures: Mapping[str, float]
    limits: Sequence[Limit] = field(default_factory=tuple)


def arguments(doc: str, *, quick: str, parts: Sequence[str] = ()) -> argparse.Namespace:
    """Parse the two switches that every benchmark has.

    Args:
        doc: the benchmark's docstring; its first line becomes the description.
        quick: what --quick leaves out.
        parts: of which --only names one; none given: there is no such switch.
    """
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="end stdout with one line of JSON")
    parser.add_argument("--quick", action="store_true", help=quick)
    if parts:
        parser.add_argument("--only", choices=parts, help="one part; default: all")
    return parser.parse_args()


def say(text: str) -> None:
    """Tell on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


def report(result: Result, *, as_json: bool) -> None:
    """Print table, figures and limits; with `as_json` the last line of stdout is JSON."""
    print("\n".join(lines(result)))
    if as_json:
        print(json_line(result), flush=True)


def json_line(result: Result) -> str:
    """Return figures and ratios as one line, rounded to four digits that mean something."""
    values = {
        "benchmark": result.benchmark,
        "figures": {key: significant(value) for key, value in result.figures.items()},
        "ratios": {c.key: significant(c.ratio) for c in result.comparisons},
    }
    return json.dumps(values)


def lines(result: Result) -> list[str]:
    """Return the table as text."""
    rows = [("", "unit", "ours", "peer", "peer/ours", "required", "")]
    for c in result.comparisons:
        verdict = "" if not c.required else "ok" if c.ratio >= c.required else "MISSED"
        required = f"{c.required:g}" if c.required else ""
        numbers = (f"{c.ours:.4g}", f"{c.peer:.4g}", f"{c.ratio:.1f}")
        rows.append((c.key, c.unit, *numbers, required, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "  ".join(cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    figures = [f"  {key} = {value:.4g}" for key, value in result.figures.items()]
    limits = [
        f"  {limit.key} <= {limit.at_most:g}: "
        + ("ok" if result.figures[limit.key] <= limit.at_most else "MISSED")
        for limit in result.limits
    ]
    limits = ["limits:", *limits] if limits else []
    return [result.benchmark, *table, "figures:", *figures, *limits]


def significant(value: float) -> float:
    """Round to four significant digits: more would claim what one machine cannot know."""
    return float(f"{value:.4g}")


def median(values: Sequence[float]) -> float:
    """Return the median; raises ValueError with a reason if there is none."""
    if not values:
        raise ValueError("nothing was measured")
    return float(statistics.median(values))


def boot_time_s() -> float:
    """Return seconds since boot: the clock in which the kernel notes when a process started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_until(what: str, done: Callable[[], bool], *, patience_s: float, step_s: float) -> None:
    """Look every `step_s` until it is so; raises TimeoutError."""
    end = time.monotonic() + patience_s
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {patience_s:.0f} s")
        time.sleep(step_s)


def tree_pss_mb(pid: int) -> float:
    """Return the summed proportional set size of a process and its descendants, in MB (1e6).

    A page that n processes map counts 1/n for each: what the tree shares within itself counts once.
    """
    return _tree_mb(pid, lambda process: process.memory_full_info().pss)


def tree_anonymous_mb(pid: int) -> float:
    """Return what the tree holds beside pages of files, in MB (1e6): its heaps and stacks.

    For growth: a page of a library counts more for each whenever another process that maps it
    ends, and installers link the same file into several environments.
    """
    return _tree_mb(pid, lambda process: process.memory_info().rss - process.memory_info().shared)


def _tree_mb(pid: int, of: Callable[[psutil.Process], int]) -> float:
    total = 0
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in tree:
        try:
            total += of(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has just ended
    return total / 1e6


@contextmanager
def memory_samples(pid: int, of: Callable[[int], float] = tree_pss_mb) -> "Iterator[list[float]]":
    """Sample a process tree from outside while the block runs."""
    samples: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        while True:
            samples.append(of(pid))
            if stop.wait(SAMPLE_S):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()
