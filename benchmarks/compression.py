"""A student beside its teacher: how small, how fast, how right, of texts and of pictures.

Pictures: see compression_pictures.py. Texts: film reviews and tweets of vader.py in two classes,
three draws. The teacher is MiniLM, fine-tuned on LABELLED sentences of each kind. The student has
the first two layers of six, three quarters of their neurons, and the pieces of words that the
training texts use; it learns what the teacher says of all sentences that are not tested, most of
which have no label for it (compression_arms.py).

Files are .onnx; sizes are beside the teacher's in float32. Accuracy and macro F1 are those of the
files, on TESTS sentences of each kind. Speed is float32, one sentence at a time, one thread, from
its tokens to its logits, the models in turn; `student_speedup_from_text` has the tokenizer as well.
"""

import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import compression_pictures as pictures
from benchmarks.environments import digest, environment, sources_digest
from benchmarks.fleets import ROOT
from benchmarks.measure import Comparison, Limit, Result, arguments, report, say
from benchmarks.minilm import distilbert_folder
from benchmarks.services import base_environment
from benchmarks.vader import read_vader

WORK = ROOT / "build" / "bench" / "compression"
RECIPE = Path(__file__).with_name("compression_arms.py")
# Published for a student of DistilBERT on sentiment, to beat: size, speed, accuracy, int8's size.
SMALLER, FASTER, DROP, INT8_SMALLER = 0.38, 2.9, 0.006, 0.84
Seed = Mapping[str, Mapping[str, float]]  # model -> what was measured, of one draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    seeds: Sequence[int]
    layers: int  # of MiniLM that the teacher has
    labelled: int  # sentences of each kind
    transfer: int  # of each kind, at most, that the student sees
    tests: int  # of each kind
    epochs: tuple[int, int]  # of the teacher and of the student
    timed: int


FULL = Size(
    seeds=(1, 2, 3), layers=6, labelled=2000, transfer=10_000, tests=1000, epochs=(2, 6), timed=300
)
QUICK = Size(
    seeds=(1,), layers=6, labelled=48, transfer=64, tests=50, epochs=(1, 1), timed=30
)  # fmt: skip


def main() -> None:
    """Measure all, print it."""
    options = arguments(
        __doc__ or "",
        quick="one draw of few sentences and pictures, which teach nothing: sizes and speed",
        parts=("texts", "pictures"),
    )
    found, whole = [], not options.quick
    if options.only != "texts":
        size_of_pictures = pictures.FULL if whole else pictures.QUICK
        models = pictures.measured(WORK.with_name("compression-pictures"), size_of_pictures)
        found.append(pictures.result(models, limited=whole))
    if options.only != "pictures":
        size = FULL if whole else QUICK
        folder = prepare(WORK, size.layers)
        draws = [measured(folder, seed, size) for seed in size.seeds]
        found.append(result(draws, limited=whole))
    report(together(found), as_json=options.json)


def together(found: Sequence[Result]) -> Result:
    """Return several results as one; no key is in two of them."""
    return Result(
        benchmark="compression",
        comparisons=[one for each in found for one in each.comparisons],
        figures={key: value for each in found for key, value in each.figures.items()},
        limits=[one for each in found for one in each.limits],
    )


def prepare(work: Path, layers: int) -> Path:
    """Return a folder for this code, with the encoder; what was done there before stays."""
    environment("texts-server")
    # Of the recipe as well: what another one has trained is not this one's.
    folder = work / digest([RECIPE], sources_digest())[:12]
    if not folder.exists():
        shutil.rmtree(work, ignore_errors=True)
        folder.mkdir(parents=True)
    read_vader()  # fetched here: the other environment has no pip
    distilbert_folder(folder / f"minilm-{layers}", layers)
    return folder


def measured(folder: Path, seed: int, size: Size) -> Seed:
    """Return what one draw gives; a draw that was measured before is not measured again."""
    what = (size.layers, size.labelled, size.transfer, size.tests, *size.epochs, size.timed)
    file = folder / f"seed-{seed}-{'-'.join(map(str, what))}.json"
    if not file.exists():
        command = [environment("texts-server").bin / "python", "-m", "benchmarks.compression_arms",
                   folder, seed, *what]  # fmt: skip
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        done = subprocess.run(
            [str(part) for part in command], cwd=ROOT, env={**base_environment(), **threads},
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        file.write_text(done.stdout.splitlines()[-1])
    found: Seed = json.loads(file.read_text())
    for model, values in found.items():
        say(f"seed {seed}, {model}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
    return found


def result(found: Sequence[Seed], *, limited: bool) -> Result:
    """Return means over draws; what few sentences teach is not held against the limits."""
    mean = {
        f"{model}_{name}": statistics.mean(one[model][name] for one in found)
        for model, values in found[0].items()
        for name in values
    }
    teacher, student = ([one[name] for one in found] for name in ("teacher", "student"))
    pairs = list(zip(teacher, student, strict=True))
    drops = [t["accuracy"] - s["accuracy"] for t, s in pairs]
    figures = {
        **mean,
        "student_size_cut": 1 - mean["student_bytes"] / mean["teacher_bytes"],
        "student_speedup": mean["teacher_p50_ms"] / mean["student_p50_ms"],
        "student_speedup_from_text": mean["teacher_text_ms"] / mean["student_text_ms"],
        "student_drop": statistics.mean(drops),
        "student_drop_most": max(drops),
        "int8_size_cut": 1 - mean["student_int8_bytes"] / mean["teacher_bytes"],
        "int8_drop": mean["student_accuracy"] - mean["student_int8_accuracy"],
    }
    times, sizes = ("teacher_p50_ms", "student_p50_ms"), ("teacher_bytes", "student_int8_bytes")
    compared = [
        Comparison("student_speed", "ms", mean[times[1]], mean[times[0]], FASTER),
        Comparison(
            "student_size", "B", mean["student_bytes"], mean["teacher_bytes"], 1 / (1 - SMALLER)
        ),
        Comparison("int8_size", "B", mean[sizes[1]], mean[sizes[0]], 1 / (1 - INT8_SMALLER)),
    ]
    limits = [Limit("student_drop", DROP)] if limited else []
    return Result(benchmark="compression", comparisons=compared, figures=figures, limits=limits)


if __name__ == "__main__":
    main()
