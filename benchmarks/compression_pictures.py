"""The half of compression.py that is of pictures: `cloud-server compress`, from Lite0 to a student.

The teacher is EfficientNet-Lite0 with ImageNet's weights, all layers trained on the pictures of
compression_data.py (64 pixels). The student is its first blocks (UNTIL) with a new head, without a
share of the channels inside them; it learns the teacher's answers. Three students differ in what is
drawn. Files are .tflite in float32; latency is of one picture on one thread, all models in turn.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compression_data import CAMERA, FASHION, SIZE, Data, read
from benchmarks.environments import digest, sources_digest
from benchmarks.measure import Comparison, Limit, Result, say
from benchmarks.services import run_python
from fleet_model.durable import making_folder

UNTIL = "b7_add"
SHARE, DROP, WORST, INT8_DROP, FASTER = 0.15, 0.006, 0.015, 0.005, 4.0  # what is promised
STUDENT, INT8, DYNAMIC = "prune", "int8", "dynamic"  # as tables call them
Models = Mapping[str, Mapping[str, Any]]  # by name


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    names: Sequence[str] = (CAMERA, FASHION)
    seeds: Sequence[int] = (1, 2, 3)
    train: int = 10_000  # pictures
    test: int = 4_000
    epochs: tuple[int, int, int] = (3, 1, 7)  # of the teacher, of its first blocks, when pruned
    timed: int = 400


FULL = Size()
QUICK = Size(names=(FASHION,), seeds=(1,), train=160, test=100, epochs=(1, 1, 1), timed=50)


def measured(work: Path, size: Size) -> dict[str, Models]:
    """Return the models of each data set; what was done there before is not done again."""
    code = digest([Path(__file__), Path(__file__).with_name("compression_data.py")],
                  sources_digest())[:12]  # fmt: skip
    found = {}
    for name in size.names:
        folder = work / f"{name}-{size.train}-{code}"
        if not folder.exists():
            with making_folder(folder, folder.with_name(f".{folder.name}.new")):
                _write(read(name, work), size, folder.with_name(f".{folder.name}.new"))
        found[name] = compressed(folder, size)
        for model, one in found[name].items():
            say(f"{name}, {model}: {one['size_bytes']} bytes, accuracy {one['accuracy']:.4f}, "
                f"p50 {one['p50_ms']:.3f} ms")  # fmt: skip
    return found


def compressed(folder: Path, size: Size) -> Models:
    """Run the pipeline of a data set; return the models by name."""
    recipe = folder / "small.toml"
    recipe.write_text(recipe_of(size), "utf-8")
    run_python(
        "-m", "cloud_server.cli", "compress", folder / "teacher.keras", "--pipeline", recipe,
        "--out", folder / "out", "--work", folder / "work",
    )  # fmt: skip
    told = json.loads((folder / "out" / "pipeline.json").read_text("utf-8"))
    return {one["name"]: one for one in told["models"]}


def recipe_of(size: Size) -> str:
    """Return the pipeline's file."""
    teacher, blocks, pruned = size.epochs
    seeds = ", ".join(map(str, size.seeds))
    return f"""
[data]
folder = "pictures"
[sweep]
"distill.seed" = [{seeds}]
[[step]]
do = "teacher"
epochs = {teacher}
batch_size = 64
learning_rate = 0.0007
[[step]]
do = "distill"
until = "{UNTIL}"
epochs = {blocks}
batch_size = 64
learning_rate = 0.001
[[step]]
do = "prune"
share = 0.5
epochs = {pruned}
batch_size = 64
learning_rate = 0.002
[[step]]
do = "quantize"
kinds = ["int8", "dynamic"]
[[step]]
do = "benchmark"
timed = {size.timed}
"""


def result(found: Mapping[str, Models], *, limited: bool) -> Result:
    """Return means over data sets and students; few pictures are held against no limit."""
    pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    drops: list[float] = []
    bits: dict[str, list[float]] = {INT8: [], DYNAMIC: []}
    figures: dict[str, float] = {}
    for name, models in found.items():
        teacher = models["teacher"]
        students = {title: one for title, one in models.items() if title.startswith(STUDENT)}
        own = [teacher["accuracy"] - one["accuracy"] for one in students.values()]
        figures[f"{name}_teacher_accuracy"] = teacher["accuracy"]
        figures[f"{name}_student_accuracy"] = teacher["accuracy"] - statistics.mean(own)
        drops += own
        for title, one in students.items():
            pairs.append((teacher, one))
            for kind, lost in bits.items():
                fewer = models[title.replace(STUDENT, kind, 1)]
                lost.append(one["accuracy"] - fewer["accuracy"])
    sizes = [one["size_bytes"] / teacher["size_bytes"] for teacher, one in pairs]
    before = statistics.mean(teacher["p50_ms"] for teacher, _ in pairs)
    after = statistics.mean(one["p50_ms"] for _, one in pairs)
    figures |= {
        "student_size_share": max(sizes),
        "student_accuracy_drop": statistics.mean(drops),
        "student_accuracy_drop_most": max(drops),
        "int8_accuracy_drop": statistics.mean(bits[INT8]),
        "dynamic_accuracy_drop": statistics.mean(bits[DYNAMIC]),
    }
    limits = [Limit("student_size_share", SHARE)]
    if limited:
        limits += [Limit("student_accuracy_drop", DROP), Limit("student_accuracy_drop_most", WORST),
                   Limit("int8_accuracy_drop", INT8_DROP)]  # fmt: skip
    compared = [Comparison("student_latency", "ms", after, before, FASTER)]
    return Result(benchmark="compression", comparisons=compared, figures=figures, limits=limits)


def _write(data: Data, size: Size, into: Path) -> None:
    """Write the pictures as files, in the order of the data, and the network to begin with."""
    import cv2

    some = np.random.default_rng(0).permutation(len(data.classes))[: size.train]
    tested = np.random.default_rng(1).permutation(len(data.test_classes))[: size.test]
    for part, inputs, classes in (
        ("train", data.inputs[some], data.classes[some]),
        ("test", data.test_inputs[tested], data.test_classes[tested]),
    ):
        for number, label in enumerate(data.labels):
            (into / "pictures" / part / label).mkdir(parents=True)
            for at in np.flatnonzero(classes == number):
                path = into / "pictures" / part / label / f"{at:05}.png"
                cv2.imwrite(str(path), inputs[at][..., ::-1])
    (into / "labels.json").write_text(json.dumps(data.labels), "utf-8")
    run_python("-m", "benchmarks.compression_pictures", into)


def _network(into: Path) -> None:
    """Write EfficientNet-Lite0 with ImageNet's weights and a head of these labels."""
    import os

    os.environ["KERAS_BACKEND"] = "tensorflow"
    from cloud_server.compression.recipes.network import Classifier, write_classifier
    from fleet_model.workloads.image_classifier import ImageClassifier
    from fleet_model.workloads.image_classifier.keras_model import ImageClassifierModel

    labels = tuple(json.loads((into / "labels.json").read_text("utf-8")))
    model = ImageClassifierModel(ImageClassifier(labels, image_size=SIZE)).build()
    write_classifier(Classifier(model, labels), into / "teacher.keras")


if __name__ == "__main__":
    import sys

    _network(Path(sys.argv[1]))
