"""A step's result is named by all that goes into it, and there as a whole or not at all."""

import shutil
from pathlib import Path

import pytest

from cloud_server.pipelines import steps
from cloud_server.pipelines.options import PipelineOptions
from cloud_server.pipelines.pipeline import keys_of
from cloud_server.pipelines.steps import content_digest, digest_of_code, step


def write_one(into):
    (into / "one").write_text("1")


def test_a_step_is_done_once(tmp_path):
    made, told = [], []

    def make(into):
        made.append(into)
        write_one(into)

    folders = {step(tmp_path, "prepare", "abc", make, told.append) for _ in range(2)}
    assert len(made) == 1
    assert [folder.name for folder in folders] == ["prepare-abc"]
    assert told == ["prepare", "prepare: done before"]


def test_a_step_that_fails_or_is_killed_leaves_nothing_that_passes_for_a_result(tmp_path):
    def fail(into):
        write_one(into)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        step(tmp_path, "prepare", "abc", fail, print)
    assert not [*tmp_path.iterdir()]
    (tmp_path / ".prepare-abc.new").mkdir()  # as a killed process leaves it
    (tmp_path / ".prepare-abc.new" / "half").touch()
    folder = step(tmp_path, "prepare", "abc", write_one, print)
    assert [file.name for file in folder.iterdir()] == ["one"]


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_a_digest_of_data_changes_with_them(tmp_path, change):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "t.csv").write_text("text,label\n")
    before = content_digest(tmp_path)
    if change == "content":
        (tmp_path / "a" / "t.csv").write_text("text,labels\n")
    elif change == "name":
        (tmp_path / "a").rename(tmp_path / "b")
    else:
        (tmp_path / "u.csv").touch()
    assert content_digest(tmp_path) != before


def test_a_digest_of_code_changes_with_any_source_and_with_a_library(tmp_path):
    root = Path(steps.__file__).parents[2]
    for folder in ("cloud_server/pipelines", "fleet_model"):
        shutil.copytree(root / folder, tmp_path / folder)
    before = digest_of_code(tmp_path, ("numpy",))
    assert before == digest_of_code(root, ("numpy",))
    assert before != digest_of_code(tmp_path, ("pydantic",))
    file = tmp_path / "fleet_model" / "tables" / "columns.py"
    file.write_text(file.read_text() + "# another word\n")
    assert before != digest_of_code(tmp_path, ("numpy",))


def changed(**options):
    before, after = (keys_of("d", "m", PipelineOptions(**one)) for one in ({}, options))
    return [name for name in before._fields if getattr(before, name) != getattr(after, name)]


def test_an_option_changes_the_steps_that_go_by_it_and_those_behind_them():
    assert changed(held_out=0.3) == ["prepare", "tokenize", "train"]
    assert changed(max_length=64) == ["tokenize", "train"]
    assert changed(learning_rate=1e-3) == ["train"]
    assert changed() == []


def test_every_option_goes_into_a_key():
    values = {str: "x", float: 0.4, int: 9, tuple: ("x", "y")}
    for name, value in PipelineOptions().model_dump().items():
        other = "steps" if name in ("evaluate", "save") else values[type(value)]
        assert changed(**{name: other}), name


def test_other_data_another_model_and_other_code_change_the_keys(monkeypatch):
    before = keys_of("d", "m", PipelineOptions())
    assert not set(before) & set(keys_of("e", "m", PipelineOptions()))
    assert keys_of("d", "n", PipelineOptions()).prepare == before.prepare
    assert keys_of("d", "n", PipelineOptions()).tokenize != before.tokenize
    monkeypatch.setattr(steps, "code_digest", lambda: "other")
    assert not set(before) & set(keys_of("d", "m", PipelineOptions()))
