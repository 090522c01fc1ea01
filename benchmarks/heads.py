"""How well heads are learned in few exchanges, and what hostile robots take from them.

The demo's robots over ten seeds of the camera (camera_fleet.py), and scikit-learn's digits on
twenty robots (digit_fleet.py): accuracy after five exchanges of 25 kB with the server's rules and
robots' training beside Flower's FedAvg, and with one exchange of sums for a head in closed form
(closed_heads.py) as the first of the five. The attack table has four hostile robots of twenty,
whose updates are as long as the server lets them be: ten times the median (checks.max_norm_ratio).
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.camera_fleet import ARMS, camera_fleet, run
from benchmarks.closed_heads import (
    Doubts,
    closed_start,
    closed_then_gradients,
    count_doubts,
    digit_accuracy,
    digit_sums,
    halves,
    own_accuracy,
)
from benchmarks.digit_fleet import (
    ATTACKS,
    NAMED,
    RULES,
    attack_row,
    digit_fleet,
    learn,
    read_digits,
)
from benchmarks.lite0 import lite0_bundle
from benchmarks.measure import Comparison, Limit, Result, arguments, report, say

WORK = Path(__file__).resolve().parents[1] / "build" / "bench-heads"
SKEW, ATTACKED_SKEW = 0.1, 1.0  # Dirichlet
EXCHANGES = 5
HALVES = (1, 2, 5)  # rounds of half of the robots
CLOSED = ("closed", "closed_one")  # with four rounds of gradients, and without
OWN = ("own_route", "own_route_without_shares")
Scores = Mapping[str, Sequence[float]]  # arm -> accuracy, one a seed


def main() -> None:
    """Measure all, print it."""
    options = arguments(__doc__ or "", quick="one seed each, 80 frames a robot, one shuffle")
    quick = options.quick
    lite0_bundle(WORK / "lite0")
    doubts = Doubts()
    camera = camera_scores(
        range(1, 2 if quick else 11), 80 if quick else 240, 1 if quick else 3, doubts
    )
    digits = digit_scores(range(1 if quick else 3))
    attacks = attack_table(range(1 if quick else 3))
    report(result(camera, digits, attacks, doubts.rates()), as_json=options.json)


def camera_scores(seeds: range, frames: int, shuffles: int, doubts: Doubts) -> Scores:
    """Return the accuracy of each arm on robots that never train, means over shuffles.

    With two on own held-out frames (OWN); `doubts` is filled.
    """
    scores: dict[str, list[float]] = {arm: [] for arm in (*ARMS, *CLOSED, *OWN)}
    for seed in seeds:
        fleet = camera_fleet(WORK, seed, frames)
        for arm in ARMS:
            made = [fleet.accuracy(run(arm, fleet, shuffle)) for shuffle in range(shuffles)]
            scores[arm].append(statistics.mean(made))
        start = closed_start(fleet)
        scores["closed_one"].append(fleet.accuracy(start.weights))
        heads = [closed_then_gradients(fleet, start, shuffle) for shuffle in range(shuffles)]
        scores["closed"].append(statistics.mean(map(fleet.accuracy, heads)))
        for name, tau in zip(OWN, (1.0, 0.0), strict=True):
            own = [own_accuracy(fleet, weights, tau) for weights in heads]
            scores[name].append(statistics.mean(own))
        count_doubts(fleet, doubts)
        say(f"camera, seed {seed}: " + ", ".join(f"{a} {v[-1]:.3f}" for a, v in scores.items()))
    return scores


def digit_scores(seeds: range) -> Scores:
    """Return the accuracy where labels are skewed: FedAvg without and with logit adjustment, sums.

    "kb" is the most that a robot sends of sums.
    """
    digits = read_digits(WORK, WORK / "lite0" / "server" / "model")
    scores: dict[str, list[float]] = {"fedavg": [], "adjusted": [], "closed": [], "kb": []}
    scores |= {f"half_{rounds}": [] for rounds in HALVES}
    for seed in seeds:
        fleet = digit_fleet(digits, seed, SKEW)
        for arm, tau in (("fedavg", 0.0), ("adjusted", 1.0)):
            scores[arm].append(fleet.accuracy(learn(fleet, "fedavg", {}, tau, EXCHANGES)))
        told, most_kb = digit_sums(fleet)
        scores["closed"].append(digit_accuracy(fleet, told))
        scores["kb"].append(most_kb)
        for rounds, value in zip(HALVES, halves(fleet, told, HALVES, seed), strict=True):
            scores[f"half_{rounds}"].append(value)
        say(f"digits, seed {seed}: " + ", ".join(f"{a} {v[-1]:.3f}" for a, v in scores.items()))
    return scores


def attack_table(seeds: range) -> Mapping[str, Mapping[str, float]]:
    """Return rule -> attack -> accuracy, means over seeds; all with logit adjustment."""
    digits = read_digits(WORK, WORK / "lite0" / "server" / "model")
    fleets = [digit_fleet(digits, seed, ATTACKED_SKEW) for seed in seeds]
    table: dict[str, Mapping[str, float]] = {}
    say(f"{'':24}" + "".join(f"{attack:>12}" for attack in ATTACKS))
    for name in RULES:
        rows = [attack_row(fleet, name, EXCHANGES) for fleet in fleets]
        table[name] = {a: statistics.mean(row[a] for row in rows) for a in ATTACKS}
        say(f"{name:24}" + "".join(f"{value:12.3f}" for value in table[name].values()))
    return table


def result(
    camera: Scores,
    digits: Scores,
    attacks: Mapping[str, Mapping[str, float]],
    doubts: Mapping[str, float],
) -> Result:
    """Return the table; what is compared are errors, so that above 1 is better."""
    mean = {arm: statistics.mean(values) for arm, values in camera.items()}
    figures = {"demo_mean": mean["closed"], "demo_worst": min(camera["closed"])}
    figures |= {name: mean[name] for name in OWN}
    for arm in ("closed_one", "adjusted", "fedavg", "flower", "central"):
        figures |= {f"demo_mean_{arm}": mean[arm], f"demo_worst_{arm}": min(camera[arm])}
    for arm in ("fedavg", "adjusted"):
        figures[f"digits_five_exchanges_{arm}"] = statistics.mean(digits[arm])
    figures["digits_one_exchange"] = statistics.mean(digits["closed"])
    figures["digits_one_exchange_kb"] = max(digits["kb"])
    for rounds in HALVES:
        figures[f"digits_half_{rounds}"] = statistics.mean(digits[f"half_{rounds}"])
    figures |= doubts
    whole = attacks["fedavg"]["none"]
    for name, figure in ((NAMED, "attack_loss"), ("fedavg", "attack_loss_fedavg")):
        figures[figure] = whole - min(attacks[name].values())
    error = Comparison("demo_error", "of 1", 1 - mean["closed"], 1 - mean["flower"])
    limits = [
        Limit("attack_loss", 0.03),
        Limit("digits_one_exchange_kb", 70),
        Limit("false_removal", 0.05),
    ]
    return Result(benchmark="heads", comparisons=[error], figures=figures, limits=limits)


if __name__ == "__main__":
    main()
