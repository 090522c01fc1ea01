from pathlib import Path
from types import SimpleNamespace

import numpy as np

from cloud_server.models.backend import EngineFiles
from cloud_server.models.export import BundleJob, bundle_directory
from fleet_model.bundle import read_bundle
from fleet_model.weights import write_weights

TINY = Path(__file__).parents[3] / "data" / "tiny_bundle"


def test_a_measure_that_is_no_number_is_left_out_of_the_manifest(tmp_path, monkeypatch):
    def write_engines(spec, model, weights, samples, into, progress):
        (into / "all.tflite").write_bytes(b"engine")
        measured = {"fp32_error": 0.25, "recall_fp32": float("nan"), "int8_error": np.inf}
        return EngineFiles(engines={"fp32": ("all.tflite",)}, metrics=measured)

    backend = SimpleNamespace(write_engines=write_engines)
    monkeypatch.setattr(bundle_directory, "open_backend", lambda spec, workload: backend)
    job = BundleJob(
        model=TINY,
        weights=tmp_path / "weights.safetensors",
        version=3,
        created_at="2026-01-01T00:00:00Z",
        directory=tmp_path / "bundle",
    )

    write_weights(job.weights, {"head/bias": np.zeros(2, np.float32)})
    result = bundle_directory.write_bundle_directory(job, lambda line: None)

    assert read_bundle(tmp_path / "bundle").metrics == result.metrics == {"fp32_error": 0.25}
