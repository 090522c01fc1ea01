"""What a teacher must be able to say: by the robot's model, else by a person."""

from types import SimpleNamespace

import pytest
from tiny_versions import write_versions

from edge_agent.labeling.teacher import wanted
from edge_agent.labeling.teacher.wanted import what_is_wanted
from fleet_model.durable import point_durably
from fleet_model.errors import SettingsError


def test_the_robot_s_model_says_it(robot, tmp_path):
    settings = robot(tmp_path, aliases={"sun": "star"})
    models = write_versions(tmp_path / "state" / "models", 3)
    point_durably(models / "current", "versions/3")
    found = what_is_wanted(settings, (), None, "boxes")
    assert (found.classes, found.answer) == (("circle", "square", "star"), "class")
    assert found.former == {"sun": "star"}
    for classes, boxes in ((("a",), None), ((), True)):
        with pytest.raises(SettingsError, match="leave out --classes and --boxes"):
            what_is_wanted(settings, classes, boxes, "class")


def test_an_alias_of_a_label_that_was_renamed_is_the_new_one(robot, tmp_path, monkeypatch):
    models = write_versions(tmp_path / "state" / "models", 3)
    point_durably(models / "current", "versions/3")
    task = SimpleNamespace(classes=("star",), answer="class", former={"stella": "star"})
    bundle = SimpleNamespace(described_task=task)
    monkeypatch.setattr(wanted, "read_bundle", lambda *_, **__: bundle)
    settings = robot(tmp_path, aliases={"sun": "stella", "moon": "star"})
    former = what_is_wanted(settings, (), None, "class").former
    assert former == {"stella": "star", "sun": "star", "moon": "star"}


def test_without_a_model_a_person_does(robot, tmp_path):
    settings = robot(tmp_path)
    for boxes, answer in ((None, "boxes"), (True, "boxes"), (False, "class")):
        found = what_is_wanted(settings, ("a", "b", "a"), boxes, "boxes")
        assert (found.classes, found.answer) == (("a", "b"), answer)
    with pytest.raises(SettingsError, match="--classes clear,blocked"):
        what_is_wanted(settings, (), None, "class")
