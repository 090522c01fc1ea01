import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloud_server.models.export import BundleJob, run_export
from fleet_model.bundle import parse_trainer, read_bundle
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError, CheckpointError, ExportError, SettingsError
from fleet_model.keras.model import keras_model
from fleet_model.types import Frame
from fleet_model.weights import read_weights, write_weights
from fleet_model.workload import rebuild

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

CREATED = "2026-01-01T00:00:00Z"


def frame(image):
    return Frame(source="s", topic="t", stamp_ns=0, data=b"", format="rgb8", decode=lambda: image)


def bundle_job(model, directory, weights=None, version=1):
    return BundleJob(
        model=model,
        weights=weights or model / "weights.safetensors",
        version=version,
        created_at=CREATED,
        directory=directory,
    )


def write_bundle(*arguments, **named):
    from cloud_server.models.export.bundle_directory import write_bundle_directory

    return write_bundle_directory(bundle_job(*arguments, **named), lambda line: None)


def write_model(job):
    from cloud_server.models.export.model_directory import write_model_directory

    return write_model_directory(job, lambda line: None)


def build(workload):
    return keras_model(workload, rebuild(workload)).build()


def contents(directory):
    return {file.name: file.read_bytes() for file in sorted(directory.iterdir())}


def differing(one, other):
    ours, theirs = contents(one), contents(other)
    return [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]


def test_init_writes_everything_that_robots_train_with(model_directory):
    spec = parse_trainer((model_directory / "trainer.json").read_bytes())

    assert set(contents(model_directory)) == {
        "frozen.safetensors",
        "trainer.json",
        "trainer.tflite",
        "trunk.tflite",
        "trunk_int8.tflite",
        "weights.safetensors",
    }
    assert spec.parts == {
        "keras": ("frozen.safetensors",),
        "litert": ("trunk.tflite", "trainer.tflite"),
    }
    weights = read_weights(model_directory / "weights.safetensors")
    assert {name: t.shape for name, t in weights.items()} == {
        name: t.shape for name, t in spec.tensors.items()
    }
    assert list(spec.tensors) == ["head/kernel", "head/bias"]
    frozen = read_weights(model_directory / "frozen.safetensors")
    model = build(spec.workload)
    assert frozen.keys() | weights.keys() == {v.path for v in model.weights}
    assert not frozen.keys() & weights.keys()


def test_a_bundle_answers_as_keras_does(model_directory, tmp_path):
    rng = np.random.default_rng(3)
    weights = {
        "head/kernel": rng.normal(size=(8, 3)).astype(np.float32),
        "head/bias": rng.normal(size=3).astype(np.float32),
    }
    write_weights(tmp_path / "trained.safetensors", weights)

    result = write_bundle(model_directory, tmp_path / "bundle", tmp_path / "trained.safetensors")

    engine = TFLiteEngine(tmp_path / "bundle")
    model = build(engine.manifest.workload)
    model.get_layer("head").set_weights([weights["head/kernel"], weights["head/bias"]])
    image = frame(rng.integers(0, 256, (50, 70, 3), np.uint8))
    expected = model(engine.workload.encode(image).inputs["image"][None], training=False).numpy()[0]
    np.testing.assert_allclose(engine.answer(image).outputs["logits"], expected, atol=1e-4)
    assert engine.manifest.metrics == result.metrics
    assert result.metrics["fp32_error"] < 1e-5
    assert result.metrics["int8_error"] < 0.1
    assert result.metrics["int8_agreement"] > 0.8


def test_a_new_version_has_new_heads_and_the_same_trunk(model_directory, tmp_path):
    weights = dict(read_weights(model_directory / "weights.safetensors"))
    weights["head/bias"] = weights["head/bias"] + 1
    write_weights(tmp_path / "next.safetensors", weights)

    write_bundle(model_directory, tmp_path / "1")
    write_bundle(model_directory, tmp_path / "2", tmp_path / "next.safetensors", version=2)

    first, second = (read_bundle(tmp_path / n) for n in ("1", "2"))
    changed = {name for name in first.files if first.files[name] != second.files[name]}
    assert changed == {"head.tflite", "head_int8.tflite", "weights.safetensors"}
    assert (first.trainer, second.version) == (second.trainer, 2)
    assert (model_directory / "trunk.tflite").samefile(tmp_path / "2" / "trunk.tflite")


def test_the_same_weights_give_the_same_bytes(model_directory, make_job, tmp_path):
    write_model(make_job(tmp_path / "model"))
    for name in ("1", "2"):
        write_bundle(tmp_path / "model", tmp_path / name)

    assert differing(tmp_path / "model", model_directory) == []
    assert differing(tmp_path / "1", tmp_path / "2") == []


def test_with_last_block_the_trunk_ends_before_it(make_job, tmp_path):
    write_model(make_job(tmp_path / "model", "last-block"))
    result = write_bundle(tmp_path / "model", tmp_path / "bundle")

    spec = parse_trainer((tmp_path / "model" / "trainer.json").read_bytes())
    assert list(spec.tensors) == ["second/kernel", "second/bias", "head/kernel", "head/bias"]
    assert set(spec.parts) == {"keras", "litert"}
    manifest = TFLiteEngine(tmp_path / "bundle", "int8").manifest
    assert manifest.engines["int8"] == ("trunk_int8.tflite", "head_int8.tflite")
    assert result.metrics["fp32_error"] < 1e-5


def test_with_all_there_is_one_stage(make_job, tmp_path):
    write_model(make_job(tmp_path / "model", "all"))
    write_bundle(tmp_path / "model", tmp_path / "bundle")

    assert set(contents(tmp_path / "model")) == {
        "frozen.safetensors",
        "trainer.json",
        "weights.safetensors",
    }
    frozen = read_weights(tmp_path / "model" / "frozen.safetensors")
    assert {name.partition("/")[0] for name in frozen} == {"first_norm"}
    manifest = TFLiteEngine(tmp_path / "bundle", "int8").manifest
    assert manifest.engines == {"fp32": ("model.tflite",), "int8": ("model_int8.tflite",)}


def test_a_users_own_checkpoint_is_where_training_starts(make_job, tmp_path):
    job = make_job(tmp_path / "model", checkpoint=tmp_path / "round-3-weights.npz")
    model = build(job.workload)
    arrays = [np.full_like(w, 0.5) for w in model.get_weights()]
    np.savez(tmp_path / "round-3-weights.npz", *arrays)

    write_model(job)

    weights = read_weights(tmp_path / "model" / "weights.safetensors")
    assert all((tensor == 0.5).all() for tensor in weights.values())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"head/kernel": (8, 3)}, "lacks head/bias"),
        ({"head/kernel": (9, 3), "head/bias": (3,)}, r"head/kernel has shape \(9, 3\)"),
        ({"head/kernel": (8, 3), "head/bias": (3,), "x": (1,)}, "unknown tensor x"),
    ],
)
def test_weights_of_another_model_are_refused(model_directory, tmp_path, weights, message):
    tensors = {name: np.zeros(shape, np.float32) for name, shape in weights.items()}
    write_weights(tmp_path / "wrong.safetensors", tensors)

    with pytest.raises(CheckpointError, match=rf"wrong\.safetensors: .*{message}"):
        write_bundle(model_directory, tmp_path / "bundle", tmp_path / "wrong.safetensors")
    assert not (tmp_path / "bundle" / "manifest.json").exists()


def test_a_checkpoint_cannot_replace_frozen_tensors(model_directory, tmp_path):
    weights = dict(read_weights(model_directory / "weights.safetensors"))
    frozen = dict(read_weights(model_directory / "frozen.safetensors"))
    weights["first/kernel"] = frozen["first/kernel"] + 1
    write_weights(tmp_path / "wrong.safetensors", weights)

    with pytest.raises(CheckpointError, match="unknown tensor first/kernel"):
        write_bundle(model_directory, tmp_path / "bundle", tmp_path / "wrong.safetensors")


def test_a_model_directory_that_was_not_finished_is_refused(model_directory, tmp_path):
    half = tmp_path / "half"
    half.mkdir()

    with pytest.raises(BundleError, match=r"half: no trainer\.json"):
        write_bundle(half, tmp_path / "bundle", model_directory / "weights.safetensors")


def test_a_damaged_trunk_is_found(make_job, tmp_path):
    write_model(make_job(tmp_path / "model"))
    trunk = tmp_path / "model" / "trunk.tflite"
    trunk.write_bytes(trunk.read_bytes()[:-1] + b"x")

    with pytest.raises(BundleError, match=r"trunk\.tflite"):
        write_bundle(tmp_path / "model", tmp_path / "bundle")


def test_a_wrong_calibration_folder_is_named(make_job, tmp_path):
    with pytest.raises(SettingsError, match="nowhere is not a folder"):
        write_model(make_job(tmp_path / "model", calibration=tmp_path / "nowhere"))


@pytest.mark.slow
def test_the_server_exports_without_loading_tensorflow_itself(make_job, tmp_path):
    job = make_job(tmp_path / "model").model_dump_json()
    script = f"""
import json, sys
from pathlib import Path
from cloud_server.models.export import BundleJob, InitJob, run_export
lines = []
job = InitJob.model_validate_json({job!r})
bundle = BundleJob(model=job.directory, weights=job.directory / "weights.safetensors",
                   version=0, created_at={CREATED!r}, directory=Path({str(tmp_path)!r}, "b"))
result = run_export(job.model_copy(update={{"bundle": bundle}}), lines.append)
assert result.metrics["gradient_error"] < 1e-4, result
assert result.metrics["fp32_error"] < 1e-3, result
files = [line.partition(":")[0] for line in lines]
assert files.index("trainer.tflite") < files.index("version 0") < files.index("head.tflite"), files
print([name for name in ("keras", "tensorflow") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=280
    )

    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr[-2000:]
    TFLiteEngine(tmp_path / "b", "int8")


@pytest.mark.slow
def test_an_error_of_the_child_arrives_as_its_own_class(make_job, tmp_path):
    job = make_job(tmp_path / "model", checkpoint=Path("missing.npz"))

    with pytest.raises(CheckpointError, match=r"^missing\.npz: no such file$"):
        run_export(job)


def test_a_killed_child_is_reported_with_its_last_lines(make_job, tmp_path, monkeypatch):
    shell = tmp_path / "python"
    shell.write_text("#!/bin/sh\necho 'export: first' >&2; echo 'allocating' >&2; kill -9 $$\n")
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    lines = []

    with pytest.raises(ExportError, match=r"signal 9 .* last lines: allocating"):
        run_export(make_job(tmp_path / "model"), lines.append)
    assert lines == ["first"]


def test_what_tensorflow_prints_does_not_disturb_the_answer(make_job, tmp_path, monkeypatch):
    answer = json.dumps({"metrics": {"int8_agreement": 1.0}})
    shell = tmp_path / "python"
    shell.write_text(f"#!/bin/sh\necho noise\necho '{answer}'\n")
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))

    assert run_export(make_job(tmp_path / "model")).metrics == {"int8_agreement": 1.0}
