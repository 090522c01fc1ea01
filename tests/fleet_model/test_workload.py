"""Workloads are rebuilt from specifications that come over the network."""

from types import SimpleNamespace

import pytest

from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import BundleError, SettingsError
from fleet_model.types import Prediction
from fleet_model.workload import (
    WORKLOADS,
    build_workload,
    known_workloads,
    rebuild,
    require_same_task,
    sure,
)

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


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**CONFIG, "zoom": 2}, r"has no setting 'zoom'; it knows labels, backbone, image_size"),
        ({"backbone": "mobilenet-v2-035"}, r"needs the setting 'labels'.* --set labels=VALUE"),
        ({**CONFIG, "image_size": "big"}, "image_size is 'big'"),
        ({**CONFIG, "labels": 7}, "labels are 7, expected a list of names"),
    ],
)
def test_an_operator_is_told_which_setting_is_wrong_and_which_are_known(config, message):
    with pytest.raises(SettingsError, match=message):
        build_workload(WorkloadSpec(name="image-classifier", config=config))


def test_a_wrong_value_that_a_package_only_stumbles_over_names_its_workload(monkeypatch, tmp_path):
    (tmp_path / "stumbling.py").write_text(
        "class Workload:\n    def __init__(self, width):\n        self.width = width + 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        "fleet_model.workload.installed", lambda group: {"odd": "stumbling:Workload"}
    )
    with pytest.raises(SettingsError, match=r"workload 'odd': a setting is wrong: .*knows width"):
        build_workload(WorkloadSpec(name="odd", config={"width": "wide"}))


def test_a_task_that_is_no_longer_the_published_one_is_refused():
    workload = build_workload(WorkloadSpec(name="image-classifier", config=CONFIG))
    require_same_task(workload, workload.task, "version 3")
    other = build_workload(
        WorkloadSpec(name="image-classifier", config={**CONFIG, "image_size": 64})
    )
    with pytest.raises(BundleError, match=r"version 3: its inputs are image \(64, 64, 3\) float32"):
        require_same_task(workload, other.task, "version 3")


def test_boxes_that_a_detector_is_not_sure_of_are_for_measures_alone():
    surely = Prediction(label="cone", score=0.3, box=(0, 0, 9, 9))
    maybe = Prediction(label="cone", score=0.29, box=(1, 1, 9, 9))
    of_all = Prediction(label="cone", score=0.01)  # of the whole frame
    found = [surely, maybe, of_all]
    detector = SimpleNamespace(sure_score=0.3)
    assert sure(detector, found) == [surely, of_all]
    assert sure(detector, found, least=0.0) == found
    assert sure(SimpleNamespace(), found) == found  # a workload that says nothing
