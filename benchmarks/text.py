"""Texts that departments learn together: how well, and what it costs a client.

Three departments of a real corpus train in three rounds, one never does (text_fleet.py): macro F1
of what the fleet has learned, of single clients, and of all texts in one place, three seeds. What
the fleet has learned is published, and its int8 engine answers beside PyTorch (text_engines.py).
What a round costs a client is measured with real processes over TLS, beside stock Flower with
transformers and peft (text_cost.py).

The last two layers of MiniLM and a new head are trained: as they are where F1 is measured, by
adapters of rank 8 where the cost is. `bytes_lora` is the whole model in float32, which stock
Flower's examples send, against an update of ours as settings come; `bytes_adapter_only` is stock
Flower that sends adapters and head alone.
"""

import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import environment, sources_digest
from benchmarks.fleets import ROOT
from benchmarks.measure import Comparison, Limit, Result, arguments, report, say
from benchmarks.minilm import distilbert_folder
from benchmarks.services import base_environment
from benchmarks.text_cost import STEPS, write_table
from benchmarks.vader import LABELS, read_vader

WORK = ROOT / "build" / "bench" / "text"
LENGTH, BATCH = 64, 16
CLOSE, POINTS = 0.02, 0.005  # promised: federated to central, int8 to PyTorch
BYTES, SMALLER, FASTER, QUICKER = 50, 1.2, 3, 2  # promised: update, memory, round, latency
Scores = Mapping[str, Sequence[Mapping[str, float]]]  # by arm, of each of its models


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    seeds: Sequence[int]
    client: int  # sentences of a client
    tests: int  # of each department
    answers: int  # timed of each engine


FULL = Size(seeds=(1, 2, 3), client=480, tests=700, answers=200)
QUICK = Size(seeds=(1,), client=32, tests=50, answers=30)


def main() -> None:
    """Measure all, print it."""
    options = arguments(__doc__ or "", quick="one seed of few sentences, one timed round")
    size = QUICK if options.quick else FULL
    folder = prepare(WORK)
    found = fleets(folder, size)
    engines = ran("text_engines", folder / "server", learned(folder, size.seeds[0]),
                  size.seeds[0], size.tests, size.answers)  # fmt: skip
    say(f"engines: {engines}")
    costs = ran("text_cost", folder, *(["--quick"] if options.quick else []), threads="")
    report(result(found, engines, costs, limited=not options.quick), as_json=options.json)


def prepare(work: Path) -> Path:
    """Return a folder with encoder, server directories and table, made once for this code."""
    for name in ("texts-server", "texts", "texts-stock"):
        environment(name)  # made here: the others have no pip
    folder = work / sources_digest()[:12]
    if (folder / "client.csv").exists():
        return folder
    shutil.rmtree(work, ignore_errors=True)
    folder.mkdir(parents=True)
    read_vader()  # fetched here, as above
    distilbert_folder(folder / "minilm")
    say("text: making two server directories")
    init = (
        "--workload", "text-classifier", "--labels", ",".join(LABELS), "--checkpoint",
        folder / "minilm", "--set", f"max_length={LENGTH}", "--trainable", "last-2",
    )  # fmt: skip
    adapters = ("--adapter", "lora", "--adapter-dropout", "0.05")
    run("cloud_server.cli", "init", folder / "server", *init)
    run("cloud_server.cli", "init", folder / "adapters", *init, *adapters)
    write_table(folder / "client.csv", STEPS * BATCH)
    return folder


def fleets(folder: Path, size: Size) -> Sequence[Scores]:
    """Return the scores of each seed."""

    def one(seed: int) -> Scores:
        found: Scores = ran(
            "text_fleet", folder / "server", seed, size.client, size.tests, learned(folder, seed)
        )
        for arm, rows in found.items():
            say(f"seed {seed}, {arm}: " + ", ".join(f"{row['f1']:.3f}" for row in rows))
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, size.seeds))


def learned(folder: Path, seed: int) -> Path:
    """Return the file of what the fleet has learned."""
    return folder / f"learned-{seed}.safetensors"


def result(
    found: Sequence[Scores],
    engines: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Mapping[str, float]],
    *,
    limited: bool,
) -> Result:
    """Return figures and ratios; what few texts teach is not held against the limits."""
    mean = {
        f"{arm}_{name}": statistics.mean(row[name] for one in found for row in one[arm])
        for arm in ("federated", "central", "single")
        for name in ("f1", "untrained_f1")
    }
    accuracy, spent = engines["accuracy"], engines["milliseconds"]
    ours, stock = costs["ours"], costs["stock"]
    figures = {
        **mean,
        "gap_to_central": mean["central_f1"] - mean["federated_f1"],
        "gap_to_central_most": max(
            one["central"][0]["f1"] - one["federated"][0]["f1"] for one in found
        ),
        "gain": mean["federated_f1"] - mean["single_f1"],
        "untrained_gain": mean["federated_untrained_f1"] - mean["single_untrained_f1"],
        **{f"accuracy_{name}": value for name, value in accuracy.items()},
        "int8_points": abs(accuracy["eager"] - accuracy["int8"]),
        **{f"{name}_ms": value for name, value in spent.items()},
        **{f"{arm}_{name}": value for arm, cost in costs.items() for name, value in cost.items()},
    }
    compared = [
        Comparison("bytes_lora", "B", ours["update_bytes"], costs["plain"]["update_bytes"], BYTES),
        Comparison("bytes_adapter_only", "B", ours["update_bytes"], stock["update_bytes"]),
        Comparison("peak_rss", "MB", ours["peak_mb"], stock["peak_mb"], SMALLER),
        Comparison("round_time", "s", ours["round_s"], stock["round_s"], FASTER),
        Comparison("first_round", "s", ours["first_s"], stock["first_s"]),
        Comparison("step_time", "ms", ours["step_ms"], stock["step_ms"]),
        Comparison("latency_onnx", "ms", spent["int8"], spent["eager"], QUICKER),
        Comparison("latency_onnx_fp32", "ms", spent["fp32"], spent["eager"]),
    ]
    if "ours_long" in costs:
        long = [costs[f"{arm}_long"]["round_s"] for arm in ("ours", "stock")]
        compared.append(Comparison("round_time_200_steps", "s", *long))
    limits = [Limit("gap_to_central", CLOSE), Limit("int8_points", POINTS)] if limited else []
    return Result(benchmark="text", comparisons=compared, figures=figures, limits=limits)


def ran(module: str, *what: object, threads: str = "1") -> Any:
    """Return what a part of this benchmark prints as its last line, read as JSON."""
    return json.loads(run(f"benchmarks.{module}", *what, threads=threads).splitlines()[-1])


def run(module: str, *what: object, threads: str = "1") -> str:
    """Run a module with the server's PyTorch, to its end; return what it prints."""
    command = [environment("texts-server").bin / "python", "-m", module, *what]
    bound = {"OMP_NUM_THREADS": threads} if threads else {}
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env={**base_environment(), **bound},
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip


if __name__ == "__main__":
    main()
