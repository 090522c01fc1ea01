"""Departments that fine-tune a language model together and want the same thing told in two ways.

SmolLM2-135M learns to say whether a film review is good. Six departments in two groups: three want
a word, three a JSON object. Reviews of a department of one group are those of its counterpart in
the other, so that texts say nothing of the groups, and formats all. Each client takes ten steps of
four rows a round, at most 64 tokens each. All arms are `cloud-server simulate`, with its rules:

    fedavg     A and B of LoRA are averaged
    fedex      FedEx-LoRA: the mean of the products, exact
    fedsa      FedSA-LoRA: A is shared, B stays with each client
    clusters   a model for each department, moved to the mean of its cluster: --mixing 1

`ari` is how well the clusters are the groups: 1 the same, 0 chance. Perplexity and exact match are
those of the model that a department has in the end, on reviews that nobody learned from. `alone` is
a client after its first ten steps, before anything was averaged. Tables and a picture are left in
build/bench/departments/results.
"""

import csv
import json
import os
import shutil
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.departments_picture import write_picture
from benchmarks.environments import environment
from benchmarks.fleets import ROOT
from benchmarks.measure import Comparison, Limit, Result, arguments, report, say
from benchmarks.smollm2 import smollm2_folder
from benchmarks.text import run
from benchmarks.vader import Sentence, read_vader
from cloud_server.sites.clusters import adjusted_rand

WORK = ROOT / "build" / "bench" / "departments"
LENGTH, BATCH, STEPS = 64, 4, 10
LONGEST = 120  # letters of a review: it has to fit into 64 tokens with its frame
NEW = 10  # tokens of a completion: a JSON object has seven, and one that ends it
GROUPS = {"word": (" negative", " positive"), "json": (' {"good": 0}', ' {"good": 1}')}
MEASURES = ("perplexity", "exact_match")
EACH = 3  # departments of a group
FOUND = 0.9  # promised: ari
ARMS: Mapping[str, Sequence[str]] = {
    "fedavg": (),
    "fedex": ("--rule", "fedex_lora"),
    "fedsa": ("--personal", "*.lora_b"),
    "clusters": ("--mixing", "1", "--global-mix", "0"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    layers: int
    rounds: int
    tests: int  # rows of a department that nobody learns from


FULL = Size(layers=30, rounds=2, tests=20)
QUICK = Size(layers=2, rounds=1, tests=4)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Course:
    """What an arm has come to."""

    learned: Mapping[str, Mapping[str, float]]  # department -> measures of its model in the end
    base: Mapping[str, Mapping[str, float]]  # of the model before anything was learned
    alone: Mapping[str, Mapping[str, float]]  # of each client after its first ten steps
    clusters: Sequence[Mapping[str, int]]  # of each round: department -> cluster, from 1
    similarity: Mapping[str, Any]  # of the last round: "sites", "cosines"
    seconds: float  # of all rounds


def main() -> None:
    """Measure all, print it."""
    options = arguments(__doc__ or "", quick="two layers of the model, one round, few reviews")
    size = QUICK if options.quick else FULL
    environment("texts-server")  # made here: it has no pip itself
    tables = write_tables(WORK / "tables", read_vader()["film"], size.tests)
    base = smollm2_folder(WORK / f"smollm2-{size.layers}", size.layers)
    # A core for each: with several threads a busy machine takes many times as long.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda arm: learn(arm, base, tables, size.rounds), ARMS)
        courses = dict(zip(ARMS, done, strict=True))
    results = WORK / "results"
    (results / "departments.md").write_text(markdown(courses), encoding="utf-8")
    write_picture(
        results / "departments.png",
        courses["clusters"].similarity,
        {arm: mean(one.learned, "perplexity") for arm, one in courses.items()},
    )
    say(markdown(courses))
    say(f"{results}: departments.md, departments.png, and a folder of each arm")
    report(result(courses), as_json=options.json)


def write_tables(folder: Path, reviews: Sequence[Sentence], tests: int) -> Path:
    """Write a table for each department, named as it is; return their folder.

    Args:
        folder: replaced.
        reviews: in any order; half of those that are taken are good.
        tests: rows of each that are held out.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    once = {one.text.casefold(): one for one in reviews if len(one.text) <= LONGEST}
    rng = np.random.default_rng(0)
    kinds = [
        [one for one in once.values() if one.label == kind] for kind in ("negative", "positive")
    ]
    drawn = [[kind[at] for at in rng.permutation(len(kind))] for kind in kinds]
    mixed = [one for pair in zip(*drawn, strict=False) for one in pair]
    rows = BATCH * STEPS + tests
    if len(mixed) < rows * EACH:
        raise SystemExit(f"benchmarks: {len(mixed)} short reviews, {rows * EACH} are needed")
    for number in range(EACH):
        own = mixed[number * rows : (number + 1) * rows]
        for group, answers in GROUPS.items():
            with (folder / f"{group}-{number + 1}.csv").open(
                "w", newline="", encoding="utf-8"
            ) as to:
                writer = csv.writer(to)
                writer.writerow(["prompt", "completion", "split"])
                for row, one in enumerate(own):
                    split = "train" if row < BATCH * STEPS else "test"
                    asked = f"Review: {one.text}\nIs it good?"
                    writer.writerow([asked, answers[one.rating >= 0], split])
    return folder


def learn(arm: str, base: Path, tables: Path, rounds: int) -> Course:
    """Let departments learn by an arm's rule."""
    out, kept = WORK / "fleets" / arm, WORK / "results" / arm
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(kept, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    told = run(
        "cloud_server.cli", "simulate", out, "--workload", "causal-lm", "--checkpoint", base,
        "--data", tables, "--clients", 1, "--rounds", rounds, "--set", f"max_length={LENGTH}",
        "--set", f"max_new_tokens={NEW}", "--set", "exact_match=true", "--threads", 1, "--json",
        *ARMS[arm],
    )  # fmt: skip
    answer = json.loads(told.splitlines()[-1])
    kept.parent.mkdir(parents=True, exist_ok=True)
    (out / "runs" / "rehearsal").rename(kept)
    shutil.rmtree(out)  # it has the base several times
    told_each = json.loads((kept / "evaluations.json").read_text())
    sites = kept / "sites" / f"round-{rounds:06d}.json"
    similarity = json.loads(sites.read_text())["similarity"] if sites.exists() else {}
    course = course_of(answer, told_each, similarity)
    shown = (f"{name} {mean(course.learned, name):.4g}" for name in MEASURES)
    say(f"{arm}: {', '.join(shown)}; {course.seconds:.0f} s in {rounds} rounds")
    return course


def course_of(
    answer: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]],
    similarity: Mapping[str, Any],
) -> Course:
    """Read what `simulate --json` has told, and its evaluations.json.

    Raises:
        SystemExit: a client could not measure, or was left out of a round.
    """
    for one in answer["rounds"]:
        if strange := {c: kind for c, kind in one["clients"].items() if kind != "accepted"}:
            raise SystemExit(f"benchmarks: round {one['round']}: {strange}")
    if lost := [one for one in answer["learned"] if "error" in one]:
        raise SystemExit(f"benchmarks: {lost[0]['client']}: {lost[0]['error']}")
    first = [one for one in evaluations if one["round"] == 1]
    return Course(
        learned={one["site"]: {n: one[n] for n in MEASURES} for one in answer["learned"]},
        base={one["site"]: {n: one[f"{n}_before"] for n in MEASURES} for one in first},
        alone={one["site"]: {n: one[f"{n}_after"] for n in MEASURES} for one in first},
        clusters=[one["clusters"] for one in answer["rounds"]],
        similarity=similarity,
        seconds=sum(one["seconds"] for one in answer["rounds"]),
    )


def mean(scores: Mapping[str, Mapping[str, float]], measure: str) -> float:
    """Return the mean of a measure over departments; of perplexities the geometric one."""
    values = [one[measure] for one in scores.values()]
    return statistics.geometric_mean(values) if measure == "perplexity" else statistics.mean(values)


def agreement(clusters: Mapping[str, int]) -> float:
    """Return how far clusters of departments are the groups (adjusted Rand index)."""
    names, groups = sorted(clusters), list(GROUPS)
    truth = np.array([groups.index(name.partition("-")[0]) for name in names])
    return adjusted_rand(np.array([clusters[name] - 1 for name in names]), truth)


def result(courses: Mapping[str, Course]) -> Result:
    """Return figures and ratios; above 1, clusters are better than one model for all."""
    clusters = courses["clusters"].clusters
    found = [agreement(one) for one in clusters]
    figures = {"ari": found[-1], "ari_first": found[0], "ari_missing": 1 - found[-1]}
    for arm, course in _arms(courses).items():
        figures |= {f"{name}_{arm}": mean(course, name) for name in MEASURES}
    figures["clusters_found"] = float(len(set(clusters[-1].values())))
    figures["round_s"] = courses["fedavg"].seconds / len(courses["fedavg"].clusters)
    together, apart = (mean(courses[arm].learned, "perplexity") for arm in ("fedavg", "clusters"))
    compared = [Comparison("perplexity", "", apart, together)]
    return Result(
        benchmark="departments",
        comparisons=compared,
        figures=figures,
        limits=[Limit("ari_missing", 1 - FOUND)],
    )


def markdown(courses: Mapping[str, Course]) -> str:
    """Return perplexity and exact match of each department, an arm a row."""
    arms = _arms(courses)
    names = sorted(next(iter(arms.values())))
    lines = [f"| | {' | '.join(names)} | all |", "| --- " * (len(names) + 2) + "|"]
    for arm, scores in arms.items():
        cells = [f"{scores[n]['perplexity']:.4g}, {scores[n]['exact_match']:.2f}" for n in names]
        whole = f"{mean(scores, 'perplexity'):.4g}, {mean(scores, 'exact_match'):.2f}"
        lines.append(f"| {arm} | {' | '.join(cells)} | {whole} |")
    return "\n".join(["perplexity, exact match", "", *lines, ""])


def _arms(courses: Mapping[str, Course]) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    first = courses["fedavg"]
    found = {"base": first.base, "alone": first.alone}
    return found | {arm: course.learned for arm, course in courses.items()}


if __name__ == "__main__":
    main()
