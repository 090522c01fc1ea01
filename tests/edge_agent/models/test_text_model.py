"""A text classifier on a client: fetched with its tokenizer, tried by its own texts, run."""

import importlib.util
import threading

import pytest
from text_bundles import TINY, write_table, write_text_bundle

from cloud_server.state.model_store import DirectoryStore
from edge_agent.models.deploy import Models
from edge_agent.models.install import Installer
from edge_agent.robot.model_settings import InstallSettings
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink
from fleet_model.engine import open_engine
from fleet_model.errors import BundleError
from fleet_model.litert.runtime import ONNX_RUNTIME, read_choice


class Desk:
    def __init__(self, folder):
        self.folder, self.store = folder, DirectoryStore(folder / "store")
        self.settings = AgentSettings(
            server=ServerLink(address="localhost:1"),
            state=folder / "state",
            examples=ExampleSettings(
                source="texts", paths=[write_table(folder / "tickets.csv")], held_out=0.5
            ),
            install=InstallSettings(probation_s=1000, slower=100),
        )
        self.models = Models(self.settings.state / "models")
        self.installer = Installer(self.settings, self.models, threading.Event())
        self.installer.begin()

    def offer(self, version, **what):
        made = write_text_bundle(self.folder / f"bundle-{version}", version, **what)
        self.store.publish(made, "stable", TINY)
        return self.installer.follow(self.store, self.store.latest("stable"))


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_a_version_is_installed_and_a_worse_one_is_refused(desk):
    assert desk.offer(1) == ""
    assert open_engine(desk.models.current).answer("a fine door").predictions[0].label == "good"
    choice = read_choice(desk.models.current)
    assert (choice.chosen, choice.words) == (ONNX_RUNTIME, "ONNX Runtime")
    why = desk.offer(2, turned=True)
    assert why.startswith("version 2 is refused: accuracy 0.")
    assert desk.models.version_in_use() == 1


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
def test_what_is_missing_is_told_before_a_byte_is_fetched_and_asked_again(
    desk, monkeypatch, package
):
    find = importlib.util.find_spec
    for module in ("importlib.util.find_spec", "fleet_model.workload.find_spec"):
        monkeypatch.setattr(module, lambda name, *a: None if name == package else find(name, *a))
    with pytest.raises(BundleError, match="not installed here: pip install"):
        desk.offer(1)
    assert not list((desk.settings.state / "models").glob("objects/*"))
    monkeypatch.undo()
    assert desk.installer.follow(desk.store, desk.store.latest("stable")) == ""
