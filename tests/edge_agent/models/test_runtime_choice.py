"""Which part of LiteRT runs a model: measured with the real child processes."""

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
from moody_workload import TINY

from edge_agent.models import runtime_choice
from edge_agent.models.runtime_choice import RuntimeChooser, judge
from edge_agent.models.runtime_trial import difference
from edge_agent.models.trial_process import TrialJob, run_trial
from edge_agent.robot.model_settings import EngineSettings, InstallSettings
from edge_agent.robot.settings import AgentSettings, ServerLink
from fleet_model.litert.runtime import INTERPRETER, Measured, Runtime, read_choice

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
    assert found.pairs >= 30
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
