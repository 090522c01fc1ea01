"""One draw of compression.py: trains a teacher and a student, measures their files.

usage: python -m benchmarks.compression_arms FOLDER SEED LAYERS LABELLED TRANSFER TESTS EPOCHS
    EPOCHS_OF_STUDENT TIMED

    teacher         MiniLM, fine-tuned on LABELLED sentences of each kind
    teacher_int8    the same file in int8
    student         the first third of its layers without a quarter of their neurons, a vocabulary
                    cut to what it is trained on; taught by the teacher on up to TRANSFER sentences
                    of each kind, of which it has the labels of LABELLED
    student_pruned  three tenths of the numbers of its layers are zero, not trained again
    student_int8    the student's file in int8

Each step leaves a folder and is not done again. The last line is JSON: what was measured of each
model. The table goes to stderr.
"""

import json
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.measure import say
from benchmarks.vader import LABELS, Sentence, read_vader
from cloud_server.compression.distilling import answers, distill, lesson
from cloud_server.compression.exporting import TextFile, export, quantize
from cloud_server.compression.layers import narrow, take_layers
from cloud_server.compression.measuring import Row, latencies, scores, table
from cloud_server.compression.pruning import prune_encoder
from cloud_server.compression.teaching import Teaching
from cloud_server.compression.vocabulary import compare_words, cut_vocabulary
from fleet_model.durable import making_folder
from fleet_model.types import Tensor, Tensors
from fleet_model.weights import read_weights

KINDS, LENGTH = ("film", "tweets"), 64
LAYERS_KEPT, NEURONS_LEFT_OUT, PRUNED = 1 / 3, 0.25, 0.3
CHECKED = 20  # sentences that files are checked with
TEACHER, STUDENT = 1e-4, 3e-4  # learning rates
MODELS = ("teacher", "teacher_int8", "student", "student_pruned", "student_int8")


class Draw(NamedTuple):
    """Sentences without any in two places."""

    labelled: Sequence[Sentence]
    unlabelled: Sequence[Sentence]
    test: Sequence[Sentence]


def drawn(seed: int, labelled: int, transfer: int, tests: int) -> Draw:
    """Draw `tests` sentences of each kind, then those that train."""
    known, unknown, test = list[Sentence](), list[Sentence](), list[Sentence]()
    for kind in KINDS:
        order = np.random.default_rng([seed, zlib.crc32(kind.encode())])
        # The same words may be there twice: one of them is enough.
        once = list({one.text.casefold(): one for one in read_vader()[kind]}.values())
        shuffled = [once[at] for at in order.permutation(len(once))]
        test += shuffled[:tests]
        known += shuffled[tests : tests + labelled]
        unknown += shuffled[tests + labelled : tests + transfer]
    return Draw(known, unknown, test)


def made(folder: Path, fill: Callable[[Path], object]) -> Path:
    """Return a folder that is filled once."""
    if not folder.exists():
        with making_folder(folder, folder.with_name(f".{folder.name}.new")):
            fill(folder.with_name(f".{folder.name}.new"))
    return folder


def teacher_of(work: Path, base: Path, draw: Draw, epochs: int, seed: int) -> Path:
    """Return the folder of a teacher."""
    texts, labels = [s.text for s in draw.labelled], [s.label for s in draw.labelled]

    def fill(into: Path) -> None:
        what = lesson(base, texts, labels, LABELS, LENGTH)
        how = Teaching(epochs=epochs, learning_rate=TEACHER, seed=seed)
        distill(base, what, None, LABELS, how, into, work / "teacher.state", say)

    return made(work / "teacher", fill)


def student_of(work: Path, teacher: Path, draw: Draw, epochs: int, seed: int) -> Path:
    """Return the folder of a student; tell which words it does not know."""
    sentences = [*draw.labelled, *draw.unlabelled]
    texts = [s.text for s in sentences]
    labels = [*(s.label for s in draw.labelled), *("" for _ in draw.unlabelled)]
    layers = json.loads((teacher / "config.json").read_text())["n_layers"]
    chosen = range(max(1, round(layers * LAYERS_KEPT)))
    fewer = made(work / "fewer", lambda into: take_layers(teacher, chosen, into))
    slim = made(work / "slim", lambda into: narrow(fewer, NEURONS_LEFT_OUT, into))
    short = made(work / "short", lambda into: cut_vocabulary(slim, texts, into))

    def fill(into: Path) -> None:
        taught = answers(teacher, lesson(teacher, texts, labels, LABELS, LENGTH), LABELS)
        what = lesson(short, texts, labels, LABELS, LENGTH)
        how = Teaching(epochs=epochs, learning_rate=STUDENT, features=1.0, seed=seed)
        distill(short, what, taught, LABELS, how, into, work / "student.state", say)

    return made(work / "student", fill)


def written(work: Path, teacher: Path, student: Path, texts: Sequence[str]) -> dict[str, Path]:
    """Write the files of all models; return name -> file."""
    pruned = made(work / "pruned", lambda into: prune_encoder(student, PRUNED, into))
    files = {name: work / f"{name}.onnx" for name in MODELS}
    for name, model in (("teacher", teacher), ("student", student), ("student_pruned", pruned)):
        export(model, LABELS, LENGTH, texts, files[name])
    for name, model in (("teacher", teacher), ("student", student)):
        quantize(files[name], model, LABELS, LENGTH, texts, files[f"{name}_int8"])
    return files


def parameters(model: Path) -> int:
    """Return how many numbers a model has."""
    return sum(tensor.size for tensor in read_weights(model / "model.safetensors").values())


def rows_of(
    files: Mapping[str, Path], models: Mapping[str, Path], test: Sequence[Sentence], timed: int
) -> tuple[list[Row], dict[str, float]]:
    """Return a row of each model, and its median milliseconds from a text to the label."""
    texts, truth = [s.text for s in test], [s.label for s in test]
    of = {name: models[name.split("_")[0]] for name in files}
    opened = {name: TextFile(file, of[name], LABELS, LENGTH) for name, file in files.items()}
    some = texts[:: max(1, len(texts) // timed)]
    inner = {name: partial(_answer, one, [*map(one.tokens, some)]) for name, one in opened.items()}
    from_tokens, from_text = latencies(inner, range(len(some))), latencies(opened, some)
    rows = [
        Row(name, file.stat().st_size, parameters(of[name]),
            scores(opened[name], texts, truth, LABELS), from_tokens[name])
        for name, file in files.items()
    ]  # fmt: skip
    return rows, {name: found.p50_ms for name, found in from_text.items()}


def _answer(model: TextFile, encoded: Sequence[Tensors], at: int) -> Tensor:
    return model.logits(encoded[at])


def main() -> None:
    """Print what was measured as a line of JSON."""
    where, seed, *numbers = sys.argv[1:]
    layers, labelled, transfer, tests, epochs, longer, timed = map(int, numbers)
    work = Path(where) / f"draw-{'-'.join(sys.argv[2:])}"
    work.mkdir(exist_ok=True)
    draw = drawn(int(seed), labelled, transfer, tests)
    teacher = teacher_of(work, Path(where) / f"minilm-{layers}", draw, epochs, int(seed))
    student = student_of(work, teacher, draw, longer, int(seed))
    words = compare_words(teacher, student, [s.text for s in draw.test])
    files = written(work, teacher, student, [s.text for s in draw.labelled[:CHECKED]])
    rows, from_text = rows_of(files, {"teacher": teacher, "student": student}, draw.test, timed)
    say(table(rows))
    told: dict[str, dict[str, float]] = {
        row.name: {
            "bytes": row.size_bytes, "parameters": row.parameters, **row.scores._asdict(),
            **row.latency._asdict(), "text_ms": from_text[row.name],
        }
        for row in rows
    }  # fmt: skip
    told["student"] |= {
        "unknown_words": words.unknown_share, "words_in_other_pieces": words.otherwise_share,
    }  # fmt: skip
    told["teacher"]["unknown_words"] = words.unknown_before / max(1, words.words)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
