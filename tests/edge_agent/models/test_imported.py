"""A detector of another tool on a robot: tried by its own frames, run, served, or refused."""

import importlib.util
import io
import json
import threading
from pathlib import Path

import pytest
from foreign_models import LABELS, SIDE, write_transformer, write_yolox, yolo_set

from cloud_server.models.imported.bundle import write_imported
from cloud_server.models.imported.engine_file import Wish, look_at
from cloud_server.state.model_store import DirectoryStore
from edge_agent.models.deploy import Models
from edge_agent.models.install import Installer
from edge_agent.models.predict import run_predict
from edge_agent.models.predict_options import PredictOptions
from edge_agent.robot.model_settings import InstallSettings
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink
from edge_agent.serving.served import served_models
from fleet_model.engine import open_engine
from fleet_model.errors import BundleError
from fleet_model.litert.runtime import read_choice
from fleet_model.workloads.object_detector.imported import ImportedDetector

FRAMES = 60
TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"  # what the fleet trains, whatever runs


class Robot:
    def __init__(self, folder):
        self.folder, self.store = folder, DirectoryStore(folder / "store")
        self.data = yolo_set(folder / "data", FRAMES)
        limits = {"probation_s": 1000, "slower": 100}
        self.settings = AgentSettings(
            server=ServerLink(address="localhost:1"),
            state=folder / "state",
            examples=ExampleSettings(paths=[self.data], held_out=0.5),
            install=InstallSettings(**limits),
        )
        self.models = Models(self.settings.state / "models")
        self.installer = Installer(self.settings, self.models, threading.Event())
        self.installer.begin()

    def try_(self, version, file):
        """Return why the file of another tool is refused as this version, "" if it is active."""
        self.offer(version, file)
        return self.look()

    def look(self):
        return self.installer.follow(self.store, self.store.latest("stable"))

    def offer(self, version, file):
        reading = look_at(file, Wish()).reading
        classes = (0, 1, *(-1 for _ in reading.classes[2:]))
        reading = reading.model_copy(update={"classes": classes})
        workload = ImportedDetector(LABELS, SIDE, reading.model_dump(mode="json"))
        made = self.folder / f"bundle-{version}"
        made.mkdir()
        write_imported(file, workload, TINY, version, "2026-01-01T00:00:00", made)
        self.store.publish(made, "stable", TINY)


@pytest.fixture
def robot(tmp_path):
    return Robot(tmp_path)


def test_one_takes_over_from_the_other_if_it_is_no_worse_here(robot, tmp_path):
    assert robot.try_(1, write_yolox(tmp_path / "yolox.onnx")) == ""
    why = robot.try_(2, write_yolox(tmp_path / "worse.onnx", shift=1.0))
    assert why.startswith("version 2 is refused: map50 0.")
    assert "1.000 with version 1" in why
    assert robot.models.version_in_use() == 1
    assert robot.try_(3, write_transformer(tmp_path / "rf.onnx")) == ""
    last = robot.installer.last
    assert (last.measure, last.before, last.after) == ("map50", 1.0, 1.0)
    assert robot.models.version_in_use() == 3
    words = read_choice(robot.models.current).words
    assert words == "ONNX Runtime, the imported rf.onnx, which nobody trains"
    assert "version 1 is active again" in robot.installer.roll_back()


def test_without_onnx_runtime_the_active_model_stays_and_nothing_is_fetched(
    robot, tmp_path, monkeypatch
):
    robot.try_(1, write_yolox(tmp_path / "yolox.onnx"))
    robot.offer(2, write_transformer(tmp_path / "rf.onnx"))
    fetched = []
    monkeypatch.setattr(robot.store, "fetch", lambda *about: fetched.append(about))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for _ in range(5):  # as often as the robot looks: it is not given up
        with pytest.raises(BundleError, match=r"needs ONNX Runtime.*fleetlearn\[onnxruntime\]"):
            robot.look()
    assert fetched == []
    assert robot.models.version_in_use() == 1
    monkeypatch.undo()
    assert robot.look() == ""  # installed meanwhile
    assert robot.models.version_in_use() == 2


def test_predict_draws_and_measures_its_boxes(robot, tmp_path):
    robot.try_(1, write_yolox(tmp_path / "yolox.onnx"))
    options = PredictOptions(
        bundle=robot.models.current, path=robot.data, json=True, annotate=tmp_path / "drawn"
    )
    out = io.StringIO()
    summary = run_predict(options, out)
    assert summary.measures == {"map50": 1.0, "map50_95": 1.0}
    assert len(list((tmp_path / "drawn").iterdir())) == FRAMES
    shown = json.loads(out.getvalue())["predictions"]
    assert len([one for one in shown if one["label"]]) == FRAMES  # none, one or two of each


def test_other_programs_are_served_by_it(robot, tmp_path):
    robot.try_(1, write_yolox(tmp_path / "yolox.onnx"))
    told = served_models(open_engine(robot.models.current), "model", "fp32").metadata("model", "")
    assert told["platform"] == "onnxruntime_onnx"
    assert told["parameters"]["runtime"] == "ONNX Runtime"
    assert told["parameters"]["labels"] == list(LABELS)
