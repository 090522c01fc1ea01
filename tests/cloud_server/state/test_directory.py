import json
import subprocess
import sys

import pytest

from cloud_server.state.directory import ServerDirectory
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base


@pytest.fixture
def place(tmp_path):
    return ServerDirectory(tmp_path)


def test_a_folder_that_init_has_not_finished_is_refused_with_the_command(place):
    with pytest.raises(SettingsError, match=r"not a server directory; make one with `cloud-server"):
        place.require()

    place.settings.touch()
    place.require()


def test_everything_lies_inside_the_root(place):
    for name in ("settings", "secrets", "admin_token", "certificates", "kit", "robots", "model",
                 "checkpoints", "store", "history", "flower"):  # fmt: skip
        assert place.root in getattr(place, name).parents


def test_a_second_holder_is_refused_while_the_first_lives(place):
    script = (
        "import sys, pathlib; from cloud_server.state.directory import ServerDirectory\n"
        "with ServerDirectory(pathlib.Path(sys.argv[1])).locked('start'): print(); input()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script, str(place.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    first.stdout.readline()

    with pytest.raises(SettingsError, match="another `cloud-server start` runs here"):
        place.locked("start").__enter__()
    with place.locked("other"):
        pass
    first.kill()
    first.communicate()
    with place.locked("start"):
        pass


def test_whoever_may_train_in_here_is_named(place):
    with (
        place.locked("train"),
        pytest.raises(SettingsError, match=r"`cloud-server start`, or Flower's ServerApp.* stop"),
        place.locked("train"),
    ):
        pass


def test_a_history_that_was_never_written_is_empty(place):
    assert place.read_history() == []


def test_rounds_are_read_back_in_order(place):
    for number in range(3):
        place.append_history({"round": number})

    assert [record["round"] for record in place.read_history()] == [0, 1, 2]
    assert len(place.history.read_text().splitlines()) == 3


def test_a_line_that_a_power_cut_has_torn_costs_no_other_round(place):
    place.append_history({"round": 0})
    with place.history.open("a") as stream:
        stream.write(json.dumps({"round": 1})[:-3])

    assert place.read_history() == [{"round": 0}]
    place.append_history({"round": 2})
    assert place.read_history() == [{"round": 0}, {"round": 2}]
