import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fleet_model.bundle import MANIFEST, TensorSpec, entry_of
from fleet_model.engine import StagedModel, TFLiteEngine
from fleet_model.errors import BundleError
from fleet_model.litert.stage import Stage, open_interpreter
from fleet_model.types import Frame

pytestmark = pytest.mark.base

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"  # see make_tiny_bundle.py


def frame(image):
    return Frame(source="s", topic="t", stamp_ns=0, data=b"", format="rgb8", decode=lambda: image)


@pytest.fixture
def bundle(tmp_path):
    return shutil.copytree(TINY, tmp_path / "bundle")


def rewrite(bundle, change):
    """Change manifest.json and make its hashes fit the files again."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    for name in manifest["files"]:
        if (bundle / name).exists():
            manifest["files"][name] = entry_of((bundle / name).read_bytes()).model_dump()
    (bundle / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("int8", 0.1)])
def test_an_engine_answers_what_keras_answered(precision, tolerance):
    expected = json.loads((TINY / "expected.json").read_text())["gray_96"]
    gray = np.full((48, 64, 3), 96, np.uint8)

    logits = TFLiteEngine(TINY, precision).answer(frame(gray)).outputs["logits"]

    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=tolerance)


def test_predictions_are_all_labels_best_first():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)

    predictions = TFLiteEngine(TINY).predict(frame(image))

    assert {p.label for p in predictions} == {"circle", "square", "star"}
    scores = [p.score for p in predictions]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1.0)


def test_the_second_answer_does_not_depend_on_the_first():
    rng = np.random.default_rng(1)
    first, second = (frame(rng.integers(0, 256, (40, 40, 3), np.uint8)) for _ in range(2))
    engine = TFLiteEngine(TINY)
    kept = engine.answer(first).outputs["logits"]
    copy = kept.copy()

    engine.answer(second)

    np.testing.assert_array_equal(kept, copy)
    np.testing.assert_array_equal(engine.answer(first).outputs["logits"], copy)


def test_an_int8_stage_takes_and_gives_float32():
    stage = Stage(TINY / "trunk_int8.tflite")
    black, white = np.zeros((32, 32, 3), np.float32), np.full((32, 32, 3), 300.0, np.float32)

    def features(image):
        return stage({"inputs": image})["outputs"]

    rows = features(black), features(white)  # 300 is above the range: clipped, not wrapped around

    assert all(row.dtype == np.float32 and row.shape == (8,) for row in rows)
    np.testing.assert_array_equal(rows[1], features(np.full((32, 32, 3), 255.0, np.float32)))


def test_only_the_files_of_one_precision_are_needed(bundle):
    (bundle / "trunk_int8.tflite").unlink()

    TFLiteEngine(bundle, "fp32")
    with pytest.raises(BundleError, match=r"trunk_int8\.tflite: missing"):
        TFLiteEngine(bundle, "int8")


def test_a_damaged_file_of_another_precision_does_not_stop_an_engine(bundle):
    (bundle / "head_int8.tflite").write_bytes(b"x")

    TFLiteEngine(bundle, "fp32")


def test_a_flipped_bit_is_found_before_the_file_is_parsed(bundle):
    content = bytearray((bundle / "trunk.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "trunk.tflite").write_bytes(content)

    with pytest.raises(BundleError, match=r"trunk\.tflite: sha256"):
        TFLiteEngine(bundle)


def test_an_unknown_precision_names_the_ones_there_are():
    with pytest.raises(BundleError, match="no 'fp16' engine; choose fp32, int8"):
        TFLiteEngine(TINY, "fp16")


def test_a_listed_file_that_is_no_model_is_refused_without_its_path(bundle):
    (bundle / "head.tflite").write_bytes(b"not a flatbuffer")
    rewrite(bundle, lambda manifest: None)

    with pytest.raises(BundleError, match=r"^head\.tflite: LiteRT cannot run it") as error:
        TFLiteEngine(bundle)
    assert str(bundle) not in str(error.value)


def test_an_empty_model_file_is_refused(tmp_path):
    (tmp_path / "empty.tflite").touch()

    with pytest.raises(BundleError, match=r"empty\.tflite"):
        open_interpreter(tmp_path / "empty.tflite")


def test_stages_in_the_wrong_order_are_refused(bundle):
    def swap(manifest):
        manifest["engines"]["fp32"] = ["head.tflite", "trunk.tflite"]

    rewrite(bundle, swap)

    with pytest.raises(
        BundleError, match=r"head\.tflite: takes image \(8,\), expected image \(32, 32, 3\)"
    ):
        TFLiteEngine(bundle)


def test_an_engine_for_another_number_of_labels_is_refused(bundle):
    def add_label(manifest):
        manifest["workload"]["config"]["labels"].append("triangle")

    rewrite(bundle, add_label)

    with pytest.raises(BundleError, match=r"outputs are logits \(3,\) .* has logits \(4,\)"):
        TFLiteEngine(bundle)


def test_a_workload_of_a_newer_version_is_refused_with_a_hint(bundle):
    def add_field(manifest):
        manifest["workload"]["config"]["zoom"] = 2

    rewrite(bundle, add_field)

    with pytest.raises(BundleError, match="same version of fleetlearn"):
        TFLiteEngine(bundle)


def test_a_trainer_is_not_taken_for_a_stage():
    with pytest.raises(BundleError, match="it is no stage"):
        Stage(TINY / "trainer.tflite")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_answer_has_what_the_trunk_passes_on_beside_the_outputs(precision):
    light, dark = (np.full((48, 64, 3), gray, np.uint8) for gray in (200, 30))
    engine = TFLiteEngine(TINY, precision)
    answer = engine.answer(frame(light))
    assert answer.outputs.keys() == engine.workload.task.outputs.keys()
    assert answer.features.keys() == {"features"}
    other = engine.answer(frame(dark)).features["features"]
    assert answer.features["features"].shape == other.shape
    assert not np.array_equal(answer.features["features"], other)
    assert engine.run(engine.workload.encode(frame(light)).inputs).keys() == answer.outputs.keys()


def test_a_model_of_one_stage_has_no_features():
    task = TFLiteEngine(TINY).workload.task
    trunk = StagedModel([TINY / "trunk.tflite"], task.inputs, None)
    spec = TensorSpec(shape=trunk.shapes["features"], dtype="float32")
    head = StagedModel([TINY / "head.tflite"], {"features": spec}, task.outputs, features=True)
    assert head({"features": np.zeros(spec.shape, np.float32)}).keys() == {"logits"}
