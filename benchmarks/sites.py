"""Whether clusters of sites are found, and what a model for each site brings.

Twelve camera robots at four sites (site_fleet.py) over five seeds, five exchanges (site_arms.py),
with the product's rule for sites at its defaults. Accuracy is that on a robot's own held-out
frames, as people at its site label them. Then how long clustering 1,000 and 10,000 sites takes.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.lite0 import lite0_bundle
from benchmarks.measure import Comparison, Limit, Result, arguments, report, say
from benchmarks.site_arms import (
    CLASSES,
    accuracy,
    accuracy_with_adapter,
    by_site,
    learn_adapters,
    learn_heads,
)
from benchmarks.site_fleet import SITES, TRUTH, SiteRobot, world
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.simulation.learning import WIDTH
from cloud_server.sites.clusters import adjusted_rand, find_clusters

WORK = Path(__file__).resolve().parents[1] / "build" / "bench-sites"
ARMS = ("fedavg", "sites", "shares", "fedsa")
Numbers = dict[str, list[float]]  # one a seed


def main() -> None:
    """Measure all, print it."""
    options = arguments(__doc__ or "", quick="one seed, 60 frames a robot")
    lite0_bundle(WORK / "lite0")
    seeds, frames = (range(1, 2), 60) if options.quick else (range(1, 6), 240)
    found: Numbers = {}
    for seed in seeds:
        told = one_seed(seed, frames)
        for name, value in told.items():
            found.setdefault(name, []).append(value)
        say(f"seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in told.items()))
    times: dict[str, float] = {}
    for sites in (1000,) if options.quick else (1000, 10_000):
        times[f"cluster_s_{sites}"], times[f"cluster_cpu_s_{sites}"] = seconds_for(sites)
    report(result(found, times), as_json=options.json)


def one_seed(seed: int, frames: int) -> Mapping[str, float]:
    """Return everything of one seed."""
    swapped = world(WORK, "swapped", seed, frames)
    heads = learn_heads(swapped, by_site("head/*"))
    adapters, own = learn_adapters(swapped)
    plain = learn_heads(swapped, FedAvg())
    told = {
        "ari": adjusted_rand(heads.clusters[-1], TRUTH),
        "ari_first": adjusted_rand(heads.clusters[0], TRUTH),
        "ari_means": adjusted_rand(find_clusters(class_means(swapped)).labels, TRUTH),
        "ari_a": adjusted_rand(adapters.clusters[-1], TRUTH),
    }
    scores = {
        "fedavg": [accuracy(robot, plain.checkpoint.weights) for robot in swapped],
        "sites": [accuracy(robot, heads.of(robot.site)) for robot in swapped],
        "shares": [accuracy(robot, heads.of(robot.site), shares=True) for robot in swapped],
        "fedsa": [
            accuracy_with_adapter(robot, {**adapters.of(robot.site), **own[robot.name]})
            for robot in swapped
        ],
    }
    told |= {f"{arm}_mean": statistics.mean(scores[arm]) for arm in ARMS}
    told |= {f"{arm}_worst": min(scores[arm]) for arm in ARMS}
    for kind in ("look", "one"):
        robots = world(WORK, kind, seed, frames)
        course, fedavg = learn_heads(robots, by_site("head/*")), learn_heads(robots, FedAvg())
        told[f"clusters_{kind}"] = float(course.clusters[-1].max() + 1)
        told[f"ari_{kind}"] = adjusted_rand(course.clusters[-1], TRUTH)
        told[f"sites_{kind}"] = statistics.mean(accuracy(r, course.of(r.site)) for r in robots)
        told[f"fedavg_{kind}"] = statistics.mean(
            accuracy(r, fedavg.checkpoint.weights) for r in robots
        )
    del told["ari_one"]  # there is nothing to find
    return told


def class_means(robots: Sequence[SiteRobot]) -> np.ndarray:
    """Return what sums tell of each site: its mean feature of every class, (sites, numbers).

    A class that a site lacks has the mean of the site's others, and so adds little.
    """
    rows = []
    for site in SITES:
        parts = [robot.train for robot in robots if robot.site == site]
        features = np.concatenate([part.features for part in parts])
        classes = np.concatenate([part.classes for part in parts])
        middle = features.mean(axis=0)
        means = [
            features[classes == label].mean(axis=0) if (classes == label).any() else middle
            for label in range(CLASSES)
        ]
        rows.append(np.concatenate(means) - np.tile(middle, CLASSES))
    return np.stack(rows)


def seconds_for(sites: int) -> tuple[float, float]:
    """Return how long it takes to cluster so many heads, in three groups: by the clock, of CPU."""
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((3, WIDTH * CLASSES), dtype=np.float32)
    points = middles[np.arange(sites) % 3]
    points += rng.standard_normal(points.shape, dtype=np.float32)
    begin, cpu = time.perf_counter(), time.process_time()
    found = find_clusters(points)
    seconds = time.perf_counter() - begin, time.process_time() - cpu
    assert found.count == 3, found
    return seconds


def result(found: Numbers, times: Mapping[str, float]) -> Result:
    """Return the table; what is compared are errors, so that above 1 is better."""
    mean = {name: statistics.mean(values) for name, values in found.items()}
    figures = {
        "ari_min": min(found["ari"]),
        "ari_first_min": min(found["ari_first"]),
        "ari_means_min": min(found["ari_means"]),
        "ari_a": mean["ari_a"],
        "ari_look": mean["ari_look"],
        "one_cluster_share": statistics.mean(n == 1 for n in found["clusters_one"]),
        "personal_mean": mean["fedsa_mean"],
        "personal_worst": mean["fedsa_worst"],
    }
    for arm in ("fedavg", "sites", "shares"):
        figures |= {f"{arm}_mean": mean[f"{arm}_mean"], f"{arm}_worst": mean[f"{arm}_worst"]}
    for kind in ("look", "one"):
        figures |= {f"{arm}_{kind}": mean[f"{arm}_{kind}"] for arm in ("sites", "fedavg")}
    figures |= times
    error = Comparison("personal_error", "of 1", 1 - mean["fedsa_mean"], 1 - mean["fedavg_mean"])
    limits = [Limit("cluster_s_1000", 1.0)]
    return Result(benchmark="sites", comparisons=[error], figures=figures, limits=limits)


if __name__ == "__main__":
    main()
