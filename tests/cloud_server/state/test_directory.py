import json
import os
import re
import subprocess
import sys

import pytest
from history_lines import history_lines

from cloud_server.state.directory import ServerDirectory
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base


@pytest.fixture
def server_dir(tmp_path):
    return ServerDirectory(tmp_path)


def test_a_folder_that_init_has_not_finished_is_refused_with_the_command(server_dir):
    with pytest.raises(SettingsError, match=r"not a server directory; make one with `cloud-server"):
        server_dir.require()

    server_dir.settings.touch()
    server_dir.require()


def test_everything_lies_inside_the_root(server_dir):
    for name in ("settings", "secrets", "admin_token", "certificates", "kit", "robots", "model",
                 "checkpoints", "store", "history", "flower"):  # fmt: skip
        assert server_dir.root in getattr(server_dir, name).parents


def test_a_second_holder_is_refused_while_the_first_lives(server_dir):
    script = (
        "import sys, pathlib; from cloud_server.state.directory import ServerDirectory\n"
        "with ServerDirectory(pathlib.Path(sys.argv[1])).locked('start'): print(); input()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", script, str(server_dir.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    first.stdout.readline()

    with pytest.raises(SettingsError, match="another `cloud-server start` runs here"):
        server_dir.locked("start").__enter__()
    with server_dir.locked("other"):
        pass
    first.kill()
    first.communicate()
    with server_dir.locked("start"):
        pass


def test_whoever_may_train_in_here_is_named(server_dir):
    with (
        server_dir.locked("train"),
        pytest.raises(
            SettingsError, match=re.escape(f"stop `cloud-server start {server_dir.root}` first")
        ),
        server_dir.locked("train"),
    ):
        pass


def test_rounds_are_read_back_in_order(server_dir):
    for number in range(3):
        server_dir.append_history({"round": number})

    assert [record["round"] for record in history_lines(server_dir)] == [0, 1, 2]
    assert len(server_dir.history.read_text().splitlines()) == 3


def test_a_line_that_lacks_only_its_end_is_not_written_twice(server_dir):
    rounds = [{"round": number} for number in range(3)]
    for one in rounds[:2]:
        server_dir.append_history(one)
    os.truncate(server_dir.history, server_dir.history.stat().st_size - 1)

    for one in rounds[1:]:  # the second is told again: its append had not returned
        server_dir.append_history(one)

    assert history_lines(server_dir) == rounds


def test_a_line_that_a_power_cut_has_torn_costs_no_other_round(server_dir):
    server_dir.append_history({"round": 0})
    with server_dir.history.open("a") as stream:
        stream.write(json.dumps({"round": 1})[:-3])

    assert history_lines(server_dir) == [{"round": 0}]
    server_dir.append_history({"round": 2})
    assert history_lines(server_dir) == [{"round": 0}, {"round": 2}]
