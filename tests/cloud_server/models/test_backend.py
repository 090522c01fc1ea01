"""Which framework computes a workload on the server."""

import subprocess
import sys

import pytest

from cloud_server.models import backend
from cloud_server.models.backend import BACKENDS, known_backends, open_backend
from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import SettingsError
from fleet_model.workload import build_workload

PLUGIN = """
class Abacus:
    def __init__(self, spec, workload):
        self.spec, self.workload = spec, workload

    @classmethod
    def has(cls, workload):
        return workload in ("sums", "image-classifier")
"""
CLASSIFIER = WorkloadSpec(
    name="image-classifier", config={"labels": ["a", "b"], "backbone": "mobilenet-v2-035"}
)


@pytest.fixture
def abacus(monkeypatch, tmp_path):
    (tmp_path / "abacus_backend.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(backend, "installed", lambda group: {"abacus": "abacus_backend:Abacus"})


@pytest.mark.usefixtures("abacus")
def test_the_first_backend_that_has_a_model_is_taken_and_ours_come_first():
    assert list(known_backends()) == [*BACKENDS, "abacus"]
    workload = build_workload(CLASSIFIER)
    assert type(open_backend(CLASSIFIER, workload)).__name__ == "KerasBackend"
    sums = WorkloadSpec(name="sums", config={})
    assert open_backend(sums, workload).spec is sums


def test_a_workload_without_a_model_is_refused_with_what_is_installed():
    spec = WorkloadSpec(name="only-predicts", config={})
    with pytest.raises(SettingsError, match=r"'only-predicts' has no model .* here \(keras"):
        open_backend(spec, build_workload(CLASSIFIER))


def test_choosing_a_backend_imports_no_framework():
    program = (
        "import sys\n"
        "from cloud_server.models.backend import open_backend\n"
        "from fleet_model.bundle import WorkloadSpec\n"
        "from fleet_model.workload import build_workload\n"
        "spec = WorkloadSpec.model_validate_json(sys.argv[1])\n"
        "open_backend(spec, build_workload(spec))\n"
        "sys.exit(', '.join({'keras', 'tensorflow', 'torch'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", program, CLASSIFIER.model_dump_json()], check=True)
