"""Rules of aggregation where robots see different classes: Fashion-MNIST on ten robots.

10,000 pictures are dealt by Dirichlet shares; 20 rounds of two epochs of a small CNN; accuracy on
the 10,000 test pictures is the mean of the last five rounds, and of the seeds (three at Dirichlet
0.1, one elsewhere). Beside each rule Flower's own, with the same robots, starts, shuffles and
settings, and central training: one robot that has everything. Settings: tune_non_iid.py.

Two processes with one thread each work off the runs. A finished run is kept in
build/bench-non_iid/runs and not made again until the code or its settings change: a benchmark that
was cut off goes on. `cached_runs` says how many of all came from there.
"""

import ast
import hashlib
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import tomllib

# Before NumPy is imported, also in the processes that work: a thread each.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks.environments import ROOT, digest
from benchmarks.fashion import read_fashion
from benchmarks.fashion_fleet import ARMS, EVERYWHERE, Fleet, Setting, fleet_of, flower, ours
from benchmarks.measure import Comparison, Limit, Result, arguments, report, say
from benchmarks.non_iid_tables import Run, markdown, means_of, plots
from benchmarks.small_cnn import Windows, windows_of
from cloud_server.aggregation.aggregator import AGGREGATORS

WORK = ROOT / "build" / "bench-non_iid"
SETTINGS = Path(__file__).with_name("non_iid_settings.toml")
LAST = 5  # rounds that count
SKEWED, SKEWS = 0.1, (0.1, 0.5, 1.0)
OURS_SKEWED = ("ours", SKEWED)
MOST_BEHIND, MOST_GAP_LEFT = 0.005, 0.5
_CODE = (
    "benchmarks/fashion.py", "benchmarks/fashion_fleet.py", "benchmarks/small_cnn.py",
    "fleet_model/optimizer.py", "fleet_model/protocol/control.py",
    "cloud_server/aggregation/mean.py", "cloud_server/simulation/control.py",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """What came of it: accuracy after each round, and seconds of processor time."""

    curve: Sequence[float]
    seconds: float
    cached: bool = False

    @property
    def accuracy(self) -> float:
        """Return the mean of the last rounds: one alone goes up and down by points."""
        return statistics.mean(self.curve[-LAST:])


def main() -> None:
    """Measure all, print it."""
    options = arguments(__doc__ or "", quick="3 rounds, 3,000 pictures, one seed, three rules")
    WORK.mkdir(parents=True, exist_ok=True)
    read_fashion(WORK)
    made = work_off(quick_plan() if options.quick else plan())
    text = markdown({run: one.accuracy for run, one in made.items()})
    (WORK / "table.md").write_text(text)
    say(text)
    plots(WORK, {run: one.curve for run, one in made.items()}, LAST)
    say(f"the table and two charts: {WORK.relative_to(ROOT)}/*.md, *.png")
    report(result(made), as_json=options.json)


def plan() -> list[Run]:
    """Return all runs, first those that are compared most."""
    runs = [Run("ours", "central", 0.0, seed) for seed in range(3)]
    for skew in SKEWS:
        for arm in ARMS if skew == SKEWED else EVERYWHERE:
            for seed in range(3 if skew == SKEWED else 1):
                runs += _sides(Run("ours", arm, skew, seed))
    return runs


def quick_plan() -> list[Run]:
    """Return a few short ones."""
    short = {"seed": 0, "rounds": 3, "pictures": 3000}
    runs = [Run("ours", "central", 0.0, **short)]
    for arm in ("fedavg", "fedadam", "adjusted"):
        runs += _sides(Run("ours", arm, SKEWED, **short))
    return runs


def _sides(run: Run) -> list[Run]:
    peer = [Run(**{**asdict(run), "side": "flower"})] if ARMS[run.arm].strategy else []
    return [run, *peer]


def work_off(runs: Sequence[Run]) -> dict[Run, Made]:
    """Return what came of each run, from the cache or made by two processes."""
    made = {run: kept for run in runs if (kept := _kept(run))}
    missing = [run for run in runs if run not in made]
    say(f"{len(runs)} runs, {len(made)} of them finished before")
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), get_context("spawn")) as pool:
        for run, one in zip(missing, pool.map(learn, missing), strict=True):
            made[run] = one
            say(f"{run.side} {run.skew:g} {run.arm}, seed {run.seed}: {one.accuracy:.4f}")
    return {run: made[run] for run in runs}


def learn(run: Run) -> Made:
    """Make one run, and keep what came of it."""
    began = time.process_time()
    arm = ARMS["fedavg" if run.arm == "central" else run.arm]
    fleet = _fleet(run.skew, run.seed, run.pictures)
    curve = (ours if run.side == "ours" else flower)(fleet, arm, setting_of(run.arm), run.rounds)
    made = {"curve": curve, "seconds": time.process_time() - began, "run": asdict(run)}
    place = _place(run)
    place.parent.mkdir(exist_ok=True)
    aside = place.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(made))
    aside.rename(place)
    return Made(curve, made["seconds"])


@lru_cache(maxsize=2)
def _fleet(skew: float, seed: int, pictures: int) -> Fleet:
    train, _ = read_fashion(WORK)
    return fleet_of(train.part(slice(pictures)), _measured(), skew, seed)


@cache
def _measured() -> Windows:
    return windows_of(read_fashion(WORK)[1])


@cache
def setting_of(arm: str) -> Setting:
    """Return what tuning chose."""
    return Setting(**tomllib.loads(SETTINGS.read_text())[arm])


def _kept(run: Run) -> Made | None:
    place = _place(run)
    if not place.exists():
        return None
    made = json.loads(place.read_text())
    return Made(made["curve"], made["seconds"], cached=True)


def _place(run: Run) -> Path:
    """Return the file of a run: another one when code, libraries or settings change."""
    what = repr((run, setting_of(run.arm), digest_of(run.arm)))
    return WORK / "runs" / f"{hashlib.sha256(what.encode()).hexdigest()[:24]}.json"


@cache
def digest_of(arm: str) -> str:
    """Return a digest of everything but the settings that an arm's accuracy depends on.

    Comments and docstrings do not count.
    """
    rule = AGGREGATORS[ARMS[arm].rule if arm in ARMS else "fedavg"].partition(":")[0]
    files = [ROOT / one for one in (*_CODE, rule.replace(".", "/") + ".py")]
    return digest((), *map(_without_words, files), version("flwr"), version("numpy"))


def _without_words(file: Path) -> str:
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def result(made: Mapping[Run, Made]) -> Result:
    """Return the figures: means over seeds. What is compared are errors: above 1 is better."""
    means = means_of({run: one.accuracy for run, one in made.items()})
    central = means.pop(("ours", "central", 0.0))
    figures, comparisons, behind = {"central": central}, [], [0.0]
    for (side, arm, skew), mean in means.items():
        figures[f"{side}_{skew:g}_{arm}"] = mean
        if side == "flower":
            own = means["ours", arm, skew]
            behind.append(mean - own)
            comparisons.append(Comparison(f"{skew:g}_{arm}", "error", 1 - own, 1 - mean))
    skewed = {arm: mean for (side, arm, skew), mean in means.items() if (side, skew) == OURS_SKEWED}
    best = max(skewed.values())
    figures["best_0.1"] = best
    figures["gap_left"] = (central - best) / (central - skewed["fedavg"])
    figures["most_behind_flower"] = max(behind)
    figures["processor_minutes"] = sum(one.seconds for one in made.values()) / 60
    figures["runs"] = len(made)
    figures["cached_runs"] = sum(one.cached for one in made.values())
    limits = [Limit("most_behind_flower", MOST_BEHIND), Limit("gap_left", MOST_GAP_LEFT)]
    return Result(benchmark="non_iid", comparisons=comparisons, figures=figures, limits=limits)


if __name__ == "__main__":
    main()
