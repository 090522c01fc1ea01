"""A .tflite file alone, opened as the engine of a bundle."""

import shutil
import zipfile
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
from compared_models import picture

from cloud_server.console.compare.contenders import contenders
from cloud_server.console.compare.process import Process
from fleet_model.errors import BundleError
from fleet_model.litert.stage import Stage
from fleet_model.pictures.image_file import image_frame
from fleet_model.workloads.image_classifier import ImageClassifier

LETTERS = tuple("abcdefgh")


def alone(file, folder, labels=LETTERS):
    """Return a copy of a model file with labels in it."""
    copy = shutil.copy(file, folder / f"{len(labels)}-{file.name}")
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in labels))
    return Path(copy)


def test_a_file_alone_answers_with_its_own_labels(bundles, tmp_path):
    file = alone(bundles[0] / "trunk.tflite", tmp_path)  # its eight features are taken for logits
    process = Process(contenders([file, bundles[0]]))
    try:
        told, models = process.answer(picture()), process.models()
    finally:
        process.close()
    assert models[0]["classes"] == list(LETTERS)
    assert models[0]["bytes"] == file.stat().st_size
    workload = ImageClassifier(LETTERS, image_size=32)
    stage = Stage(file)
    (taken,), (given,) = stage.inputs, stage.outputs
    image = workload.encode(image_frame(picture(), "", "", 0, "")).inputs["image"]
    expected = workload.decode({"logits": stage({taken: image})[given]}, None)
    found = [(one["label"], one["score"]) for one in told["answers"][0]["found"]]
    assert found == [(one.label, pytest.approx(one.score)) for one in expected]
    assert np.isclose(sum(score for _, score in found), 1)
    assert not list(Path(gettempdir()).glob("fleetlearn-compare-*"))


@pytest.mark.parametrize(
    ("name", "labels", "why"),
    [
        ("trunk.tflite", ("a", "b"), r"^2-trunk: .*answers logits \(8,\), expected logits \(2,\)"),
        ("head.tflite", LETTERS, r"^8-head: .*expected one square picture"),
    ],
)
def test_a_file_that_is_no_such_classifier_is_refused(bundles, tmp_path, name, labels, why):
    process = Process(contenders([alone(bundles[0] / name, tmp_path, labels), bundles[0]]))
    with pytest.raises(BundleError, match=why):
        process.models()
