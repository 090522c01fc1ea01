import re
import sys

import pytest

from fleet_model.errors import SettingsError
from fleet_model.loading import load_plugin
from fleet_model.types import Frame

pytestmark = pytest.mark.base

TABLE = {"frame": "fleet_model.types:Frame", "other": "fleet_model.types:Example"}


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Return a writer of a module `own_plugin` that can be imported."""

    def write(source):
        (tmp_path / "own_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "own_plugin", raising=False)

    yield write
    sys.modules.pop("own_plugin", None)


def test_a_name_of_the_table_and_a_path_give_the_same_object():
    assert load_plugin(TABLE, "frame") is load_plugin(TABLE, "fleet_model.types:Frame") is Frame


def test_a_user_can_name_an_own_class_without_changing_the_table(own_module):
    own_module("class Mine: pass")

    assert load_plugin(TABLE, "own_plugin:Mine").__name__ == "Mine"


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(SettingsError, match="unknown plug-in 'fram'; choose frame, other or"):
        load_plugin(TABLE, "fram")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Thing", "there is no module 'no_such_module'"),
        ("fleet_model.no_such:Thing", "there is no module 'fleet_model.no_such'"),
        ("fleet_model.types:Thing", "fleet_model.types has no 'Thing'"),
        (":Thing", "cannot be imported"),
        (".types:Thing", "cannot be imported"),
    ],
)
def test_a_wrong_path_is_a_settings_error(name, message):
    with pytest.raises(SettingsError, match=message):
        load_plugin(TABLE, name)


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("edge_agent.trainers.litert:LiteRtTrainer", "edge_agent.training.trainers.litert"),
        ("edge_agent.frames.storage.mcap_file:McapFile", "edge_agent.data.storage.mcap.file"),
        ("fleet_model.wire:pack_update", "fleet_model.protocol.wire"),
        ("cloud_server.runs:Runs", "cloud_server.runs.runs"),
        ("cloud_server.robots:Register", "cloud_server.robots.register"),
    ],
)
def test_a_name_from_before_a_move_is_told_the_new_one(name, new):
    with pytest.raises(SettingsError, match=f"has moved to '{re.escape(new)}'"):
        load_plugin(TABLE, name)


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("import edge_agent.trainer", "edge_agent.trainer", "edge_agent.training.trainer"),
        ("from edge_agent.frames.bag import BagFrames", "edge_agent.frames", "edge_agent.data"),
        ("from cloud_server.runs import Runs", "cloud_server.runs", "cloud_server.runs.runs"),
        ("from fleet_model import wire", "fleet_model", "fleet_model.protocol.wire"),
    ],
)
def test_a_plug_in_that_imports_an_old_name_is_told_the_new_one(own_module, line, old, new):
    own_module(line)

    with pytest.raises(SettingsError) as raised:
        load_plugin(TABLE, "own_plugin:Mine")

    assert f"plug-in 'own_plugin:Mine': it imports '{old}" in str(raised.value)
    assert f"has moved to '{new}" in str(raised.value)


def test_a_missing_package_of_a_plug_in_is_named(own_module):
    own_module("import a_missing_package")

    with pytest.raises(SettingsError, match="needs the package 'a_missing_package'"):
        load_plugin(TABLE, "own_plugin:Mine")


def test_a_wrong_import_inside_a_plug_in_is_told_as_it_is(own_module):
    own_module("from fleet_model.types import Fraem")

    with pytest.raises(SettingsError, match=r"cannot be imported .*Fraem"):
        load_plugin(TABLE, "own_plugin:Mine")


def test_a_bug_in_a_plug_in_is_not_taken_for_a_missing_attribute(own_module):
    own_module("class Mine: pass\nMine.oops")

    with pytest.raises(AttributeError, match="oops"):
        load_plugin(TABLE, "own_plugin:Mine")
