"""Which part of LiteRT runs a model: measured with the real child processes."""

import json
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
from moody_workload import TINY

from edge_agent.models import runtime_choice
from edge_agent.models.runtime_choice import NO_FASTER, UNKNOWN, RuntimeChooser, judge
from edge_agent.models.runtime_trial import _in_turns, difference
from edge_agent.models.trial_process import TrialJob, run_trial
from edge_agent.robot.model_settings import EngineSettings, InstallSettings
from edge_agent.robot.settings import AgentSettings, ServerLink
from fleet_model.litert.runtime import (
    INTERPRETER,
    Measured,
    Runtime,
    RuntimeChoice,
    litert_version,
    read_choice,
    write_choice,
)
from fleet_model.types import Encoded

FASTER = {"interpreter_ms": 2.0, "compiled_ms": 1.0, "difference": 0.0, "pairs": 60, "faster": 60}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({}, ""),
        ({"compiled_ms": 1.95}, "it is not faster"),
        ({"faster": 35}, "it is not faster"),  # one lucky moment
        ({"difference": 0.02}, "its answers differ by 2.0%"),
        ({"difference": None}, "it could not be measured"),
    ],
)
def test_it_is_used_where_it_is_clearly_faster_and_says_the_same(found, why):
    measured = Measured(accelerator="cpu", **{**FASTER, **found})
    assert judge(measured, must_be_faster=True) == why
    assert judge(measured, must_be_faster=False) == ("" if why == "it is not faster" else why)


@pytest.mark.parametrize(
    ("expected", "found", "apart"),
    [
        ([1, -4], [1, -4], 0.0),
        ([1.0, -4.0], [1.0, -4.2], 0.05),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 0.1], 1.0),
        ([1.0, 2.0], [1.0, np.nan], 1.0),
        ([1, 2], [1, 3], 1.0),
    ],
)
def test_differences_are_shares_of_the_largest_value(expected, found, apart):
    assert difference(np.array(expected), np.array(found)) == pytest.approx(apart)


def settings(folder, **engine):
    return AgentSettings(
        server=ServerLink(address="localhost:1"),
        state=folder,
        engine=EngineSettings(**engine),
        install=InstallSettings(timeout_s=240.0),
    )


def chooser(folder, **engine):
    return RuntimeChooser(settings(folder, **engine), threading.Event(), lambda: None)


@pytest.fixture
def misbehaves(tmp_path, monkeypatch):
    """Return what lets CompiledModel do something else in child processes, at its import."""

    def do(statement):
        (tmp_path / "sitecustomize.py").write_text(
            "import os, signal, sys, time\n"
            "class Finder:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name == 'ai_edge_litert.compiled_model':\n"
            f"            {statement}\n"
            "sys.meta_path.insert(0, Finder())\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))

    return do


def test_a_model_is_measured_by_both_and_the_figures_are_kept(tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in TINY.iterdir():
        (bundle / file.name).symlink_to(file)

    chooser(tmp_path, runtime="compiled").keep(bundle)

    kept = read_choice(bundle)
    (found,) = kept.measured
    assert kept.chosen == Runtime("compiled", "cpu")
    assert (found.why, found.inputs) == ("", 4)  # pictures of the workload: the robot has none
    assert found.difference < 1e-6
    assert found.pairs >= 10
    assert kept.words.startswith("LiteRT CompiledModel on the CPU (CompiledModel on the CPU: ")
    assert json.loads((bundle / ".runtime.json").read_text())["chosen"] == {
        "name": "compiled", "accelerator": "cpu",
    }  # fmt: skip


CRASH, HANG = "os.kill(os.getpid(), signal.SIGSEGV)", "time.sleep(10_000)"


HANG_S = 30.0  # longer than a child needs to begin, on a busy machine


@pytest.mark.parametrize(
    ("accelerator", "statement", "why"),
    [
        ("cpu", CRASH, "it ended the process that tried it"),
        ("gpu", CRASH, "it ended the process that tried it"),
        ("gpu", "raise ImportError", "cannot run trunk.tflite: this LiteRT has none"),
        pytest.param("cpu", HANG, "it did not answer in time", marks=pytest.mark.slow),
    ],
)
def test_one_that_crashes_or_hangs_leaves_the_interpreter(
    tmp_path, misbehaves, caplog, accelerator, statement, why
):
    misbehaves(statement)
    asked = settings(tmp_path, accelerator=accelerator)
    limits = InstallSettings(timeout_s=HANG_S if statement == HANG else 240.0)
    asked = asked.model_copy(update={"install": limits})

    choice = RuntimeChooser(asked, threading.Event(), lambda: None).choose(TINY)

    assert choice.chosen == INTERPRETER
    kinds = ["gpu", "cpu"] if accelerator == "gpu" else ["cpu"]
    assert [(one.accelerator, one.why) for one in choice.measured] == [(k, why) for k in kinds]
    assert (why in caplog.text) == (accelerator == "gpu")  # it was asked for


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (CRASH, "it ended the process that tried it"),
        ("raise MemoryError", "it fails: MemoryError"),
        pytest.param(HANG, "it did not answer in time", marks=pytest.mark.slow),
    ],
)
def test_a_trial_stands_whatever_compiled_model_does_in_it(misbehaves, statement, why):
    misbehaves(statement)
    job = TrialJob(
        candidate=str(TINY), running=str(TINY), precision="fp32", source=None, examples=0,
        compiled=True,
    )  # fmt: skip

    limits = InstallSettings(timeout_s=HANG_S if statement == HANG else 240.0)
    found = run_trial(job, limits, threading.Event())

    assert found.failed == ""
    assert found.after_ms > 0
    assert Measured(**found.compiled).why == why


def test_what_seems_faster_in_the_trial_is_measured_once_more(tmp_path, monkeypatch):
    asked = []

    def slower(module, job, *_):
        asked.append(job["accelerator"])
        return [{"found": {**FASTER, "accelerator": "cpu", "faster": 10}}], ""

    monkeypatch.setattr(runtime_choice, "ask", slower)
    lucky = Measured(accelerator="cpu", **FASTER)
    assert chooser(tmp_path).choose(TINY, lucky).chosen == INTERPRETER
    assert asked == ["cpu"]
    assert chooser(tmp_path, runtime="compiled").choose(TINY, lucky).chosen != INTERPRETER
    assert asked == ["cpu"]


class Engine:
    """Answers in so many ms, and counts."""

    def __init__(self, ms, answer=1.0):
        self.ms, self.answer, self.asked = ms, answer, 0
        self.workload = SimpleNamespace(decode=lambda outputs, context: [])

    def run(self, inputs):
        self.asked += 1
        time.sleep(self.ms / 1e3)
        return {"logits": np.array([self.answer + (inputs["image"] == 7) * 0.5])}


@pytest.mark.parametrize(("ms", "inputs", "pairs"), [(4.0, 3, 10), (4.0, 15, 15), (0.1, 3, 200)])
def test_one_that_is_slower_is_asked_every_input_and_little_more(ms, inputs, pairs):
    ours, theirs = Engine(2.0), Engine(ms)
    given = [Encoded(inputs={"image": number}) for number in range(inputs)]
    times = _in_turns(ours, theirs, given)
    assert [len(one) for one in times] == [pairs, pairs, inputs]
    assert (ours.asked, theirs.asked) == (pairs, pairs)


def test_the_input_that_is_answered_otherwise_is_found(monkeypatch):
    given = [Encoded(inputs={"image": number}) for number in range(12)]
    ours, theirs = Engine(0.0), Engine(0.0)
    theirs.run = lambda _: {"logits": np.array([1.0])}
    _, _, differences = _in_turns(ours, theirs, given)
    assert np.flatnonzero(differences).tolist() == [7]


def write_choice_of(folder, why=NO_FASTER, **values):
    measured = [Measured(accelerator="cpu", **FASTER, why=why)] if why else []
    values = {
        "asked": "auto", "accelerator": "cpu", "precision": "fp32", "litert": litert_version(),
        "measured": measured, **values,
    }  # fmt: skip
    write_choice(folder, RuntimeChoice(**values))


@pytest.fixture
def versions(tmp_path):
    """Return the folders of two versions of one graph."""
    folders = tmp_path / "before", tmp_path / "after"
    for number, folder in enumerate(folders):
        folder.mkdir()
        manifest = json.loads((TINY / "manifest.json").read_text())
        manifest["files"]["head.tflite"]["size_bytes"] += number  # equal numbers are kept once
        (folder / "manifest.json").write_text(json.dumps({**manifest, "version": number}))
    return folders


def test_what_was_no_faster_is_not_tried_for_other_numbers_in_the_same_graph(tmp_path, versions):
    before, after = versions
    write_choice_of(before)
    assert not chooser(tmp_path).prepare(after, before)
    assert read_choice(after) == read_choice(before)


@pytest.mark.parametrize(
    "choice",
    [
        {"chosen": Runtime("compiled"), "why": ""},
        {"why": "its answers differ by 2.0%"},
        {"why": UNKNOWN},
        {"precision": "int8"},
        {"litert": "1.0"},
        {"asked": "compiled"},
        {"why": "", "imported": "yolox.tflite"},
    ],
)
def test_what_may_be_otherwise_with_other_numbers_or_settings_is_tried(tmp_path, versions, choice):
    before, after = versions
    write_choice_of(before, **choice)
    assert chooser(tmp_path).prepare(after, before)
    assert read_choice(after) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["trainer"].update(sha256="0" * 64),
        lambda one: one["engines"].update(fp32=["trunk.tflite"]),
        lambda one: one["workload"]["config"].update(labels=["a", "b", "c"]),
        lambda one: one.update(imported="yolox.tflite"),
    ],
)
def test_another_graph_is_tried(tmp_path, versions, change):
    before, after = versions
    write_choice_of(before)
    manifest = json.loads((after / "manifest.json").read_text())
    change(manifest)
    (after / "manifest.json").write_text(json.dumps(manifest))
    assert chooser(tmp_path).prepare(after, before)


def test_a_first_version_is_tried_and_none_on_a_gpu_in_the_trial(tmp_path, versions):
    _, after = versions
    assert chooser(tmp_path).prepare(after, tmp_path / "none")
    assert not chooser(tmp_path, accelerator="gpu").prepare(after, tmp_path / "none")
    assert not chooser(tmp_path, runtime="interpreter").prepare(after, tmp_path / "none")


def test_nothing_is_measured_for_an_operator_who_wants_the_interpreter_or_twice(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(runtime_choice, "ask", None)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    chooser(tmp_path, runtime="interpreter").keep(bundle)
    assert read_choice(bundle).words == "LiteRT Interpreter"

    slow = Measured(accelerator="cpu", why="it is not faster").model_dump()
    chooser(tmp_path).keep(bundle, slow)  # the settings are others now
    chooser(tmp_path).keep(bundle)
    assert read_choice(bundle).words == (
        "LiteRT Interpreter (CompiledModel on the CPU: it is not faster)"
    )


def test_what_a_busy_robot_had_no_time_for_is_measured_at_the_next_start(tmp_path, monkeypatch):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    monkeypatch.setattr(runtime_choice, "ask", lambda *_: ([], "hung"))
    chooser(tmp_path).keep(bundle)
    assert "it could not be measured" in read_choice(bundle).words
    slow = {"found": {"accelerator": "cpu", "why": "it is not faster"}}
    monkeypatch.setattr(runtime_choice, "ask", lambda *_: ([slow], ""))
    chooser(tmp_path).keep(bundle)
    assert "it is not faster" in read_choice(bundle).words
