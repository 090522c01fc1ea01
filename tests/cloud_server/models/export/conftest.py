import importlib.util
from pathlib import Path

import pytest

from cloud_server.models.export import InitJob
from fleet_model.bundle import WorkloadSpec
from fleet_model.workloads.image_classifier.networks import NETWORKS

MAKE_TINY = Path(__file__).parents[3] / "data" / "make_tiny_bundle.py"


def init_job(directory, trainable="head", **fields):
    """Return a job for the tiny backbone."""
    config = {"labels": ["circle", "square", "star"], "backbone": "mobilenet-v2-035"}
    workload = WorkloadSpec(name="image-classifier", config={**config, "image_size": 32})
    return InitJob(
        workload=workload, trainable=trainable, batch_size=4, directory=directory, **fields
    )


@pytest.fixture(scope="session")
def tiny_module():
    spec = importlib.util.spec_from_file_location("make_tiny_bundle", MAKE_TINY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _tiny_backbone(tiny_module, monkeypatch):
    """Put 8 features in the place of MobileNetV2, so that an export takes a second."""
    monkeypatch.setitem(NETWORKS, "mobilenet-v2-035", tiny_module.tiny_network())


@pytest.fixture
def make_job():
    return init_job


@pytest.fixture(scope="module")
def model_directory(tiny_module, tmp_path_factory):
    """Return the outcome of an init job with the scope "head"; not to be changed."""
    from cloud_server.models.export.model_directory import write_model_directory

    directory = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "mobilenet-v2-035", tiny_module.tiny_network())
        write_model_directory(init_job(directory), lambda line: None)
    return directory
