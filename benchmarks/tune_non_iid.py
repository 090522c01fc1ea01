"""Choose the settings of non_iid.py: `python -m benchmarks.tune_non_iid`.

On pictures, dealings and starts that the benchmark does not use: it trains with the pictures behind
the benchmark's, measures on 5,000 others of the training set, and has another seed; Dirichlet 0.1.
Every finished run is kept in build/bench-non_iid/tuning.json: a run that was cut off goes on.
Writes benchmarks/non_iid_settings.toml: the best of each arm's grid, by the mean accuracy of the
last five rounds. An arm of which nothing was tried keeps the middle of its grid, and the file says
so. A setting at the edge of its grid is marked.
"""

import argparse
import datetime
import itertools
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks.fashion import read_fashion
from benchmarks.fashion_fleet import ARMS, HOSTILE, Fleet, Setting, fleet_of, ours
from benchmarks.measure import say
from benchmarks.non_iid import LAST, SETTINGS, WORK, digest_of
from benchmarks.non_iid_tables import PICTURES, ROUNDS
from benchmarks.small_cnn import windows_of

SKEW, SEED = 0.1, 100
VALIDATION = slice(2 * PICTURES, 2 * PICTURES + 5000)
RATES = (0.003, 0.01, 0.02, 0.05)


def _grid(rates: Sequence[float], base: Mapping[str, Any], **axes: Sequence[float]) -> list[Any]:
    """Return settings: rates x axes; `mu` and `adjusted` are of training, others of the rule."""
    made = []
    for values in itertools.product(rates, *axes.values()):
        rate, options = values[0], {**base, **dict(zip(axes, values[1:], strict=True))}
        mu, adjusted = options.pop("mu", 0.0), options.pop("adjusted", 0.0)
        made.append(Setting(rate, mu, adjusted, options))
    return made


GRIDS: Mapping[str, Sequence[Setting]] = {
    "fedavg": _grid(RATES, {}),
    "adjusted": _grid(RATES, {"adjusted": 1.0}),
    "central": _grid((0.001, *RATES[:2]), {}),
    "fedavgm": _grid(RATES[1:3], {}, momentum=(0.5, 0.7, 0.9), learning_rate=(0.3, 1.0)),
    "fedadam": _grid(RATES[1:3], {}, learning_rate=(0.003, 0.01, 0.03)),
    "fedprox": _grid(RATES[1:3], {}, mu=(0.01, 0.1, 1.0)),
    "adjusted_fedavgm": _grid(
        RATES[1:3], {"adjusted": 1.0}, momentum=(0.5, 0.7, 0.9), learning_rate=(0.3, 1.0)
    ),
    "fednova": _grid(RATES[:3], {}),
    "scaffold": _grid(RATES[:3], {}, learning_rate=(0.3, 1.0)),
    "fedexp": _grid(RATES[:3], {"epsilon": 0.001}),
    "fedyogi": _grid(RATES[1:3], {}, learning_rate=(0.003, 0.01, 0.03)),
    "fedadagrad": _grid(RATES[1:3], {"beta_1": 0.0}, learning_rate=(0.01, 0.03, 0.1)),
    "norm_bounded": _grid(RATES[1:], {}),
    "trimmed_mean": _grid(RATES[1:], {"share": 0.2}),
    "median": _grid(RATES[1:], {}),
    "multi_krum": _grid(RATES[1:], {"hostile": HOSTILE, "keep": 5}),
    "krum": _grid(RATES[1:], {"hostile": HOSTILE}),
}


def main() -> None:
    """Try every setting that was not tried, then write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2, help="with one thread each")
    parser.add_argument("--only-write", action="store_true", help="try nothing, write the file")
    parser.add_argument("--arms", nargs="*", default=list(GRIDS), help="try those alone")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    kept = WORK / "tuning.json"
    tried: dict[str, list[float]] = json.loads(kept.read_text()) if kept.exists() else {}
    if not options.only_write:
        read_fashion(WORK)
        _try_all([(arm, one) for arm in options.arms for one in GRIDS[arm]], tried, kept, options)
    lines = [
        "# Written by `python -m benchmarks.tune_non_iid`, "
        f"{datetime.datetime.now(datetime.UTC).date()}: Dirichlet {SKEW}, seed {SEED}, "
        f"{ROUNDS} rounds;",
        "# accuracy on 5,000 pictures that the benchmark does not use. Do not edit.",
    ]
    for arm, grid in GRIDS.items():
        lines += ["", *_table(arm, grid, tried)]
    SETTINGS.write_text("\n".join(lines) + "\n")


def _try_all(
    pairs: Sequence[tuple[str, Setting]],
    tried: dict[str, list[float]],
    kept: Path,
    options: argparse.Namespace,
) -> None:
    missing = [pair for pair in pairs if _key(*pair) not in tried]
    say(f"{len(pairs)} settings, {len(pairs) - len(missing)} of them tried before")
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        for pair, curve in zip(missing, pool.map(_try, missing), strict=True):
            tried[_key(*pair)] = curve
            aside = kept.with_suffix(".part")
            aside.write_text(json.dumps(tried))
            aside.rename(kept)
            say(f"{pair[0]} {pair[1]}: {_score(curve):.4f}")


def _try(pair: tuple[str, Setting]) -> list[float]:
    arm, setting = pair
    fleet = _fleet(0.0 if arm == "central" else SKEW)
    return ours(fleet, ARMS["fedavg" if arm == "central" else arm], setting, ROUNDS)


@cache
def _fleet(skew: float) -> Fleet:
    train, _ = read_fashion(WORK)
    measured = windows_of(train.part(VALIDATION))
    return fleet_of(train.part(slice(PICTURES, 2 * PICTURES)), measured, skew, SEED)


def _key(arm: str, setting: Setting) -> str:
    return f"{arm} {setting} {ROUNDS} {digest_of(arm)[:12]}"


def _score(curve: Sequence[float]) -> float:
    return statistics.mean(curve[-LAST:])


def _table(arm: str, grid: Sequence[Setting], tried: Mapping[str, Sequence[float]]) -> list[str]:
    """Return one table of the file."""
    scores = {
        place: _score(tried[_key(arm, one)])
        for place, one in enumerate(grid)
        if _key(arm, one) in tried
    }
    chosen = grid[max(scores, key=lambda place: scores[place]) if scores else len(grid) // 2]
    note = f"not tuned: none of {len(grid)} was tried"
    if scores:
        note = f"best of {len(scores)} tried of {len(grid)}: {max(scores.values()):.4f}"
    rates = sorted({one.learning_rate for one in grid})
    if scores and chosen.learning_rate in (rates[0], rates[-1]):
        note += "; learning_rate at the edge of the grid"
    lines = [f"[{arm}]  # {note}", f"learning_rate = {chosen.learning_rate}"]
    training = {one: getattr(chosen, one) for one in ("proximal_mu", "logit_adjustment")}
    lines += [f"{name} = {value}" for name, value in training.items() if value]
    if chosen.options:
        pairs = ", ".join(f"{name} = {value}" for name, value in chosen.options.items())
        lines.append(f"options = {{ {pairs} }}")
    return lines


if __name__ == "__main__":
    main()
