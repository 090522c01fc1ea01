"""status.json: written whole, read with a clear word."""

import pytest

from edge_agent.status import KEEP, Status, read_status, write_status
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base


def test_what_was_written_is_read(tmp_path):
    write_status(tmp_path / "state", Status(name="r1", state="idle", active_version=3))
    answer = read_status(tmp_path / "state")
    assert (answer["name"], answer["state"], answer["active_version"]) == ("r1", "idle", 3)


def test_before_the_first_run_it_is_empty(tmp_path):
    assert read_status(tmp_path) == {}


def test_it_stays_short_and_keeps_the_newest(tmp_path):
    rounds = [{"round": number} for number in range(KEEP + 20)]
    status = Status(rounds=rounds, publishes=list(rounds))
    write_status(tmp_path, status)
    for kept in (read_status(tmp_path)["rounds"], read_status(tmp_path)["publishes"]):
        assert [record["round"] for record in kept] == list(range(20, KEEP + 20))


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "status.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"status\.json: cannot be read"):
        read_status(tmp_path)
