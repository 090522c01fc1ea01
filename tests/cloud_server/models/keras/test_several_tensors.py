"""Two inputs, targets and outputs, no classes: the package that an end-to-end test installs."""

from pathlib import Path

import numpy as np
import pytest

from cloud_server.models.export import BundleJob, InitJob
from cloud_server.models.export.bundle_directory import write_bundle_directory
from cloud_server.models.export.model_directory import write_model_directory
from edge_agent.training.trainers.keras import KerasTrainer
from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.bundle import WorkloadSpec, parse_trainer
from fleet_model.engine import TFLiteEngine
from fleet_model.litert.runtime import INTERPRETER, Runtime
from fleet_model.types import Checkpoint, TrainConfig
from fleet_model.weights import read_weights

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

PACKAGE = Path(__file__).parents[4] / "docs" / "extending" / "workload"
SPEC = WorkloadSpec(name="gripper", config={"width": 12})
POINTS = {
    "fleetlearn.workloads": {"gripper": "gripper.workload:Gripper"},
    "fleetlearn.keras_models": {"gripper": "gripper.keras_model:GripperModel"},
}


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE)
    for module in (
        "fleet_model.workload",
        "fleet_model.keras.model",
        "cloud_server.models.backend",
    ):
        monkeypatch.setattr(f"{module}.installed", lambda group: POINTS.get(group, {}))


@pytest.fixture
def export(tmp_path):
    """Return what init and the first publish write for a scope, and what they measured."""

    def write(scope):
        model, bundle = tmp_path / "model", tmp_path / "bundle"
        model.mkdir()
        init = InitJob(workload=SPEC, trainable=scope, batch_size=16, directory=model)
        made = write_model_directory(init, lambda line: None)
        job = BundleJob(
            model=model,
            weights=model / "weights.safetensors",
            version=0,
            created_at="2026-01-01T00:00:00Z",
            directory=bundle,
        )
        published = write_bundle_directory(job, lambda line: None)
        return model, bundle, {**made.metrics, **published.metrics}

    return write


@pytest.mark.parametrize(
    ("scope", "part"), [("grip", ("trunk.tflite", "trainer.tflite")), ("all", ("trainer.tflite",))]
)
def test_keras_and_litert_send_the_same_update(export, scope, part):
    from gripper.source import Grips

    model, _, _ = export(scope)
    spec = parse_trainer((model / "trainer.json").read_bytes())
    start = Checkpoint(version=0, weights=read_weights(model / "weights.safetensors"))
    config = TrainConfig(epochs=3, batch_size=24, learning_rate=0.05, clip_norm=1.0)

    keras, litert = (
        trainer(spec, model).fit(start, Grips(seed=1, count=50).examples(), config)
        for trainer in (KerasTrainer, LiteRTTrainer)
    )

    assert spec.parts["litert"] == part
    assert keras.num_examples == litert.num_examples > 37  # a grip that slips counts twice
    for name, tensor in keras.weights.items():
        assert np.abs(tensor).max() > 1e-4
        assert np.abs(litert.weights[name] - tensor).max() < 1e-5
    for measure in ("error_before", "error_after", "slips_seen_after", "train_loss"):
        assert litert.metrics[measure] == pytest.approx(keras.metrics[measure], abs=1e-4)


@pytest.mark.parametrize("runtime", [INTERPRETER, Runtime("compiled")], ids=lambda one: one.name)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_engine_answers_all_outputs_by_name(export, precision, runtime):
    from gripper.keras_model import GripperModel
    from gripper.source import recorded

    _, bundle, metrics = export("grip")
    engine = TFLiteEngine(bundle, precision, runtime=runtime)
    model = GripperModel(engine.workload).build()
    for grip in recorded(seed=3, count=5):
        rows = {name: row[None] for name, row in engine.workload.encode(grip).inputs.items()}
        expected, answer = model(rows, training=False), engine.answer(grip)
        assert answer.outputs.keys() == {"force", "slipping"}
        for name, output in answer.outputs.items():
            assert output == pytest.approx(expected[name].numpy()[0], abs=0.05)
        assert len(answer.predictions) == int(expected["slipping"][0, 0] > 0)
    assert engine.manifest.described_task == engine.workload.task
    assert metrics["fp32_error"] < 1e-5
    assert metrics["int8_error"] < 0.1
    assert metrics["error_int8"] == pytest.approx(metrics["error_fp32"], abs=0.05)
    assert "int8_agreement" not in metrics  # there are no classes to agree on
