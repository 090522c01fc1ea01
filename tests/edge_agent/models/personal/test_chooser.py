"""Own label shares on a robot that installs models: measured, kept, used, measured again."""

import json
import logging
import shutil
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))
import moody_workload
from moody_workload import TINY, bundle

from cloud_server.state.model_store import DirectoryStore
from edge_agent.agent.status import StatusFile, read_status
from edge_agent.cli.status_lines import status_lines
from edge_agent.models.deploy import Models
from edge_agent.models.install import Installer
from edge_agent.models.personal.chooser import PAUSE_S, PersonalChooser
from edge_agent.models.predict import run_predict
from edge_agent.models.predict_options import PredictOptions
from edge_agent.robot.model_settings import InstallSettings, PersonalSettings
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink
from edge_agent.serving.served import served_models
from fleet_model.engine import open_engine
from fleet_model.personal.choice import FILE, read_personal

FLAT = 0.01  # of the head's weights: the tiny model is nearly unsure


@pytest.fixture(autouse=True)
def moody(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(moody_workload.site(tmp_path / "a" / "site")))


def pictures(folder, start=0, **counts):
    """Make so many pictures of each label, in any order of time."""
    rng = np.random.default_rng(start)
    for label, number in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
            cv2.imwrite(str(folder / label / f"{start + index:03d}.png"), picture)
    return folder


class Robot:
    def __init__(self, folder, frames, *, own_shares=True):
        self.folder, self.store = folder, DirectoryStore(folder / "store")
        self.settings = AgentSettings(
            server=ServerLink(address="localhost:1"),
            state=folder / "state",
            examples=ExampleSettings(paths=(frames,), held_out=0.5),
            install=InstallSettings(probation_s=1000, timeout_s=600, slower=1000),
        )
        self.restart(own_shares=own_shares)

    def restart(self, *, own_shares):
        personal = PersonalSettings(own_shares=own_shares)
        self.settings = self.settings.model_copy(update={"personal": personal})
        self.models = Models(self.settings.state / "models")
        self.installer = Installer(self.settings, self.models, threading.Event())
        self.installer.begin()

    def install(self, version):
        self.store.publish(bundle(self.folder, version, times=FLAT), "stable", TINY)
        self.offer = self.store.latest("stable")
        assert self.installer.follow(self.store, self.offer) == ""

    def review(self, trained_at=None):
        self.installer.review_personal(self.store, self.offer, trained_at)

    @property
    def choice(self):
        return read_personal(self.models.current.resolve())


def test_own_shares_are_measured_before_a_version_takes_over_and_run_where_they_are_better(
    tmp_path,
):
    robot = Robot(tmp_path, pictures(tmp_path / "frames", square=20, circle=4))
    robot.install(1)

    choice = robot.choice
    assert choice.words.startswith("the model with own label shares; accuracy 0.8")
    assert choice.personal > choice.shared
    assert choice.counts == {"circle": 2.0, "square": 10.0}
    engine = open_engine(robot.models.current)
    logits = engine.run({"image": np.zeros((32, 32, 3), np.float32)})["logits"]
    assert engine.workload.labels[int(logits.argmax())] == "square"
    # The next one is compared with what runs, not with the shared model alone.
    robot.install(2)
    assert robot.installer.last.before == pytest.approx(choice.personal, abs=1e-4)
    assert robot.installer.last.after == robot.installer.last.before
    assert robot.choice == choice


def test_predict_serve_and_status_say_what_runs(tmp_path, capsys):
    frames = pictures(tmp_path / "frames", square=20, circle=4)
    robot = Robot(tmp_path, frames)
    robot.install(1)
    words = robot.choice.words

    current = robot.models.current.resolve()
    summary = run_predict(PredictOptions(bundle=current, path=frames, json=True), sys.stdout)
    told = json.loads(capsys.readouterr().out)
    assert told["summary"]["runs"] == words
    assert {row["label"] for row in told["predictions"]} == {"square"}
    assert f"; by {words}" in summary.sentence()
    served = served_models(open_engine(current), "model", "fp32")
    parameters = served.metadata("model", "")["parameters"]
    assert parameters["runs"] == "the model with own label shares"
    file = StatusFile(robot.settings.state, "litert")
    file.tell(personal=robot.choice.model_dump(mode="json"))
    file.set_state("idle")
    answer = {**read_status(robot.settings.state), "paused": ""}
    assert f"runs     {words}" in list(status_lines(answer))


def test_shares_that_are_no_better_are_kept_off_and_the_reason_is_told(tmp_path):
    robot = Robot(tmp_path, pictures(tmp_path / "frames", square=12, circle=12))
    robot.install(1)
    before = open_engine(robot.models.current).run({"image": np.zeros((32, 32, 3), np.float32)})

    assert robot.choice.uses == ()
    assert robot.choice.words.endswith("this robot's own part is not better")
    robot.restart(own_shares=False)
    robot.review()
    assert robot.choice is None
    after = open_engine(robot.models.current).run({"image": np.zeros((32, 32, 3), np.float32)})
    assert after["logits"].tobytes() == before["logits"].tobytes()


def test_they_are_measured_again_when_the_examples_are_others(tmp_path, caplog):
    frames = pictures(tmp_path / "frames", square=12, circle=12)
    robot = Robot(tmp_path, frames)
    robot.install(1)
    first = (robot.models.current.resolve() / FILE).stat()

    robot.restart(own_shares=True)
    robot.review()  # once after a start; nothing is new
    assert (robot.models.current.resolve() / FILE).stat().st_ino == first.st_ino

    pictures(frames, 100, square=60)
    robot.review()  # not due
    assert robot.choice.uses == ()
    robot.restart(own_shares=True)
    with caplog.at_level(logging.INFO):
        robot.review()
    assert robot.choice.uses == ("own_shares",)
    assert "what runs: the model with own label shares; accuracy" in caplog.text


def test_without_the_setting_nothing_is_measured_or_kept(tmp_path):
    robot = Robot(tmp_path, pictures(tmp_path / "frames", square=20, circle=4), own_shares=False)
    robot.install(1)
    robot.review()
    assert robot.choice is None


def test_what_cannot_be_measured_leaves_the_choice_as_it_is(tmp_path, caplog):
    robot = Robot(tmp_path, pictures(tmp_path / "frames", square=20, circle=4))
    robot.install(1)
    chosen = robot.choice
    (robot.models.current.resolve() / "head.tflite").write_bytes(b"damaged")
    shutil.rmtree(tmp_path / "frames" / "circle")
    robot.restart(own_shares=True)
    with caplog.at_level(logging.WARNING):
        robot.review()
    assert robot.choice == chosen
    assert "could not be measured" in caplog.text


def test_it_is_due_after_the_start_and_when_a_run_pauses(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("edge_agent.models.personal.chooser.time.monotonic", lambda: now[0])
    settings = AgentSettings(server=ServerLink(address="localhost:1"), state=tmp_path)
    models = Models(tmp_path / "models")
    chooser = PersonalChooser(settings, models, threading.Event(), lambda: None)
    assert chooser.is_due(None)
    chooser.keep("000001-0", None)
    assert not chooser.is_due(None)
    assert not chooser.is_due(990.0)
    trained = 1001.0
    now[0] = trained + PAUSE_S / 2
    assert not chooser.is_due(trained)
    now[0] = trained + PAUSE_S
    assert chooser.is_due(trained)
