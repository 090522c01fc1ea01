"""How well robots learn boxes together, and what that costs.

Four robots of two sites train, three of other sites never do (detection_fleet.py): rendered rooms
over five seeds, and drawings on photographs over one. `gain_map50` is how much more the fleet's
model finds on unseen robots than the models of single robots do on average, `gap_to_central` how
much less than one that is trained on all frames in one place with as many epochs. `int8_loss` is
what the published int8 engine loses there against the float32 one.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.detection_fleet import ARMS, LABELS, Job, engine_scores, prepare, scores
from benchmarks.measure import Limit, Result, arguments, report, say

WORK = Path(__file__).resolve().parents[1] / "build" / "bench-detection"
Scores = Mapping[Job, Sequence[float]]


def main() -> None:
    """Measure all, print it."""
    options = arguments(__doc__ or "", quick="one seed of scenes, 40 frames a robot, two rounds")
    seeds = {"scenes": range(1, 2 if options.quick else 6), "composites": range(1, 2)}
    size = {"frames": 40, "rounds": 2} if options.quick else {"frames": 240}
    data = list(LABELS)[: 1 if options.quick else None]
    jobs = [Job(a, d, s, WORK, **size) for d in data for s in seeds[d] for a in ARMS]
    prepare(jobs)
    found = scores(jobs)
    engines = [engine_scores(job) for job in jobs if job.arm == "federated" and job.data == data[0]]
    for number, precision in enumerate(engines, 1):
        say(f"seed {number}: " + ", ".join(f"{p} {v:.3f}" for p, v in precision.items()))
    report(result(found, engines, limited=not options.quick), as_json=options.json)


def result(found: Scores, engines: Sequence[Mapping[str, float]], *, limited: bool) -> Result:
    """Return the figures; what few frames teach is not held against the limits."""
    figures: dict[str, float] = {}
    for data in {job.data: None for job in found}:
        each = {arm: _of(found, data, arm) for arm in ARMS}
        mean = {arm: statistics.mean(map(statistics.mean, rows)) for arm, rows in each.items()}
        prefix = "" if data == "scenes" else f"{data}_"
        best = statistics.mean(max(rows) for rows in each["single"])
        figures |= {
            f"{prefix}unseen_map50": mean["federated"],
            f"{prefix}unseen_map50_worst_seed": min(map(statistics.mean, each["federated"])),
            f"{prefix}single_map50": mean["single"],
            f"{prefix}best_single_map50": best,
            f"{prefix}central_map50": mean["central"],
            f"{prefix}gain_map50": mean["federated"] - mean["single"],
            f"{prefix}gap_to_central": mean["central"] - mean["federated"],
        }
    losses = [one["fp32"] - one["int8"] for one in engines]
    figures["int8_loss"] = statistics.mean(losses)
    figures["int8_loss_most"] = max(losses)
    limits = [Limit("gap_to_central", 0.03), Limit("int8_loss", 0.02)] if limited else []
    return Result(benchmark="detection", comparisons=[], figures=figures, limits=limits)


def _of(found: Scores, data: str, arm: str) -> list[Sequence[float]]:
    return [values for job, values in found.items() if (job.data, job.arm) == (data, arm)]


if __name__ == "__main__":
    main()
