"""Workloads are rebuilt from specifications that come over the network."""

import pytest

from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import BundleError, SettingsError
from fleet_model.workload import WORKLOADS, known_workloads, rebuild

pytestmark = pytest.mark.base
CONFIG = {"labels": ["a", "b"], "backbone": "mobilenet-v2-035", "image_size": 96}


def test_a_specification_rebuilds_the_same_workload():
    workload = rebuild(WorkloadSpec(name="image-classifier", config=CONFIG))
    assert workload.task.classes == ("a", "b")
    assert dict(workload.config) == CONFIG


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "builtins:eval", "nope", ""])
def test_a_manifest_cannot_name_a_module_of_this_machine(name):
    with pytest.raises(SettingsError, match="unknown workload"):
        rebuild(WorkloadSpec(name=name, config={}))


def test_an_installed_package_adds_a_workload_but_replaces_none(monkeypatch):
    class Point:
        def __init__(self, name):
            self.name, self.value = name, "own.package:Mine"

    points = [Point("mine"), Point("image-classifier")]
    monkeypatch.setattr("fleet_model.workload.entry_points", lambda group: points)
    assert known_workloads() == {"mine": "own.package:Mine", **WORKLOADS}


def test_a_config_field_of_another_version_says_so():
    with pytest.raises(BundleError, match="the same version of fleetlearn"):
        rebuild(WorkloadSpec(name="image-classifier", config={**CONFIG, "novel": 1}))


def test_each_backbone_says_how_a_head_on_it_trains_well():
    for backbone, rate in (("efficientnet-lite0", 0.01), ("mobilenet-v2-035", 0.001)):
        spec = WorkloadSpec(name="image-classifier", config={**CONFIG, "backbone": backbone})
        assert rebuild(spec).training.learning_rate == rate
