"""A robot's bag labelled by a real bundle of LiteRT, and a round that learns from it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tiny_versions import TINY, write_versions
from typer.testing import CliRunner

from edge_agent.cli import app
from edge_agent.cli.status_lines import status_lines
from edge_agent.examples.source import source_of
from edge_agent.examples.taught import TEACHERS, UNREADABLE, Said, read_told, tell_teachers
from edge_agent.labeling.teacher.lesson import LessonOptions, forget, teach
from edge_agent.training.trainer import evaluate
from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.durable import point_durably
from fleet_model.errors import BundleError, FrameError, SettingsError
from fleet_model.types import Checkpoint, TrainConfig
from fleet_model.weights import read_weights

CLASSES = ("circle", "square", "star")
# The bundle answers star but for pictures 78 to 115 of the bag writer, which are circles to it.
PEOPLE = ["circle" if 78 <= number < 116 else "star" for number in range(200)]


@pytest.fixture
def settings(robot, bags, tmp_path):
    bag = bags.drive(tmp_path / "bag", [*PEOPLE, *[""] * 200])
    return robot(bag, label_topic=bags.LABELS)


@pytest.fixture
def told():
    return []


def options(**about):
    usual = {"teacher": TINY, "classes": CLASSES, "name": "big", "by": "ann"}
    return LessonOptions(**usual | about)


def file_of(settings):
    return settings.state / TEACHERS / "big.jsonl"


def test_a_round_learns_from_a_teacher_and_measures_with_people_s_frames(settings, told):
    done = teach(settings, options(), told.append)
    assert 0 < done["frames"] <= done["asked"] == 160
    assert done["kept_for_measuring"] == 40
    assert sum(done["labels"].values()) == done["frames"]
    assert set(done["labels"]) <= set(done["least"]) <= {"circle", "star"}
    assert "square" in done["unsure_classes"]
    for one in read_told(file_of(settings)).said.values():
        if not one.refused:
            assert one.score >= round(done["least"][one.label], 4)
            assert one.at
    assert "takes them back" in told[-1]

    plain, taught, measured = (
        learn(settings, without=without, kind=kind)
        for without, kind in ((True, "fit"), (False, "fit"), (False, "evaluate"))
    )
    assert "taught_examples" not in plain.metrics
    assert taught.metrics["taught_examples"] == done["frames"]
    assert taught.metrics["taught_weight"] == 0.5
    assert taught.num_examples == round(plain.num_examples + 0.5 * done["frames"])
    for name in ("held_out", "accuracy_before", "loss_before", "unreadable"):
        assert taught.metrics[name] == plain.metrics[name], name
    assert measured.num_examples == plain.metrics["held_out"] == done["held_out"]
    assert any((taught.weights[name] != plain.weights[name]).any() for name in plain.weights)


def learn(settings, *, without, kind):
    """Return what the robot's trainer answers, with or without what the teacher has said."""
    spec = source_of(settings, read_only=True, pseudo=kind == "fit")
    if without:
        spec.options.pop("taught")
    spec_of_trainer = parse_trainer((TINY / TRAINER).read_bytes())
    trainer = LiteRTTrainer(spec_of_trainer, TINY)
    checkpoint = Checkpoint(version=1, weights=read_weights(TINY / "weights.safetensors"))
    examples = spec.examples(CLASSES)
    if kind == "evaluate":
        return evaluate(trainer._learner, checkpoint, examples)
    return trainer.fit(checkpoint, examples, TrainConfig(epochs=1))


def test_what_is_cut_off_is_asked_again_and_nothing_else(settings, told):
    first = teach(settings, options(), told.append)
    whole = file_of(settings).read_bytes()
    file_of(settings).write_bytes(whole[: len(whole) // 2])
    again = teach(settings, options(by="bob"), told.append)
    assert 0 < again["before"] < again["asked"]
    assert {**again, "before": 0} == first
    assert "were asked about before" in "".join(told)
    lines = [json.loads(line) for line in file_of(settings).read_bytes().splitlines()]
    assert len(lines) == 161
    assert len({line["key"] for line in lines[1:]}) == 160


def test_what_could_not_be_read_is_asked_again(settings, told):
    first = teach(settings, options(), told.append)
    key = next(k for k, said in read_told(file_of(settings)).said.items() if not said.refused)
    with file_of(settings).open("ab") as stream:
        stream.write(Said(refused=UNREADABLE).line(key))
    again = teach(settings, options(), told.append)
    assert again == {**first, "before": 159}


def test_an_end_by_a_person_keeps_what_was_said(settings, told):
    def show(done, _):
        if done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(settings, options(), told.append, show)
    done = teach(settings, options(), told.append)
    assert done["before"] == 60 - done["held_out"]


def test_labels_before_count_until_a_start_with_other_scores_is_complete(settings, told):
    def show(done, _):
        if done == 60:
            raise KeyboardInterrupt

    teach(settings, options(), told.append)
    whole = file_of(settings).read_bytes()
    examples = settings.examples.model_copy(update={"pseudo_precision": 0.9})
    other = settings.model_copy(update={"examples": examples})
    with pytest.raises(KeyboardInterrupt):
        teach(other, options(), told.append, show)
    assert file_of(settings).read_bytes() == whole
    done = teach(other, options(), told.append)
    assert done["before"] == 60 - done["held_out"]
    assert read_told(file_of(settings)).who["precision"] == 0.9


def test_a_person_may_ask_for_some_and_then_for_all(settings, told):
    few = teach(settings, options(most=20), told.append)
    assert few["asked"] == 20
    every = teach(settings, options(), told.append)
    assert (every["asked"], every["before"]) == (160, 20)


def test_status_tells_of_a_teacher_until_it_is_forgotten(settings, told):
    done = teach(settings, options(), told.append)
    told_of = tell_teachers(settings.state / TEACHERS)
    assert [(one["teacher"], one["version"], one["frames"]) for one in told_of] == [
        ("big", 1, done["frames"])
    ]
    metrics = {"taught_examples": 30.0, "taught_weight": 0.5, "held_out": 9.0}
    answer = {
        "name": "r1", "site": "hall", "state": "idle", "reason": "", "paused": "",
        "active_version": 1, "idle_mb": 1, "peak_mb": 1, "teachers": told_of,
        "rounds": [{"metrics": metrics, "num_examples": 40}],
    }  # fmt: skip
    lines = list(status_lines(answer))
    assert any(one.startswith("teacher  big version 1, 20") for one in lines)
    assert f"{done['frames']} of 160 frames labelled: " in "\n".join(lines)
    assert "taught   30 training examples labelled by a teacher, weight 0.5" in lines
    forget(settings, "big", told.append, as_json=False)
    assert f"the labels of big are taken back ({done['frames']} frames)" in told[-1]
    assert tell_teachers(settings.state / TEACHERS) == []
    with pytest.raises(SettingsError, match="none has"):
        forget(settings, "big", told.append, as_json=True)


def test_a_file_made_with_a_copy_elsewhere_counts_on_the_robot(settings, told, tmp_path):
    there = tmp_path / "office"
    shutil.copytree(tmp_path / "bag", there / "r1" / "bag")
    examples = settings.examples.model_copy(update={"paths": (there / "r1" / "bag",)})
    copy = settings.model_copy(update={"state": there / "state", "examples": examples})
    done = teach(copy, options(), told.append)
    (settings.state / TEACHERS).mkdir(parents=True)
    shutil.copy(file_of(copy), file_of(settings))
    found = source_of(settings, read_only=True, pseudo=True).examples(CLASSES)
    assert sum(one.taught > 0 for one in found) == done["frames"] > 0


def test_an_unsure_teacher_is_refused_before_it_is_asked(settings, told, bags, tmp_path):
    wrong = [{"circle": "star", "star": "circle"}[label] for label in PEOPLE]
    shutil.rmtree(tmp_path / "bag")
    bags.drive(tmp_path / "bag", [*wrong, *[""] * 200])
    with pytest.raises(SettingsError, match=r"for no class here, by 34 held-out .*; label more"):
        teach(settings, options(), told.append)
    assert told == []
    assert not file_of(settings).exists()


def test_bad_input_is_one_error(settings, told, tmp_path, robot, bags):
    damaged = shutil.copytree(TINY, tmp_path / "damaged")
    (damaged / "head.tflite").write_bytes(b"x" * 100)
    bare = bags.drive(tmp_path / "bare", [""] * 20)
    for robot_settings, wish, kind, words in (
        (settings, options(teacher=damaged), BundleError, "head.tflite: 100 bytes, expected"),
        (settings, options(teacher=tmp_path), BundleError, "no manifest.json"),
        (settings, options(teacher=TINY / "head.tflite"), BundleError, "import-engine DIR"),
        (settings, options(precision="int4"), BundleError, "no 'int4' engine"),
        (settings, options(name="a/b"), SettingsError, "a teacher's name has"),
        (settings, options(boxes=True), SettingsError, "answers class, and this robot learns"),
        (settings, options(classes=("a", "b")), SettingsError, "and none of a, b"),
        (robot(bare, label_topic=bags.LABELS), options(), SettingsError, "label frames first"),
        (robot(), options(), SettingsError, "names no frames"),
        (robot(tmp_path / "no", label_topic=""), options(), FrameError, "no: no such"),
    ):
        with pytest.raises(kind, match=words):
            teach(robot_settings, wish, told.append)
    assert told == []
    assert not list((settings.state / TEACHERS).glob("*.jsonl"))


SETTINGS = """
state = "state"
[server]
address = "127.0.0.1:1"
[examples]
paths = ["bag"]
"""


def test_the_command_goes_on_after_a_kill(bags, tmp_path):
    bags.drive(tmp_path / "bag", [*PEOPLE, *[""] * 300])
    (tmp_path / "agent.toml").write_text(SETTINGS)
    models = write_versions(tmp_path / "state" / "models", 3)
    point_durably(models / "current", "versions/3")
    teacher = tmp_path / "state" / "models" / "current"
    command = [sys.executable, "-m", "edge_agent", "label", "--config", tmp_path, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*command, "--teacher", teacher]
    file = tmp_path / "state" / TEACHERS / "3.jsonl"
    process = subprocess.Popen(words, env=environment)
    end = time.monotonic() + 120
    while not (file.exists() and file.read_bytes().count(b"\n") > 1):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert 0 < answer["before"] <= answer["asked"]
    assert (answer["teacher"], answer["version"]) == ("3", 3)
    runner, words = CliRunner(), ["label", "--config", str(tmp_path), "--json"]
    gone = runner.invoke(app, [*words, "--forget", "3"], catch_exceptions=False)
    assert json.loads(gone.stdout) == {"teacher": "3", "frames": answer["frames"]}
    for wrong in (["--teacher", TINY, "--all"], ["--teacher", TINY, "--forget", "3"]):
        with pytest.raises(SettingsError, match="--teacher"):
            runner.invoke(app, [*words, *map(str, wrong)], catch_exceptions=False)
