"""A pause outlives everything but `resume`."""

import pytest

from edge_agent.robot.pause import FILE, WITHOUT_REASON, pause, pause_reason, resume
from fleet_model.errors import SettingsError, StorageError

pytestmark = pytest.mark.base


def test_a_pause_lasts_until_it_is_resumed(tmp_path):
    state = tmp_path / "state"
    assert pause_reason(state) == ""
    pause(state, "docking")
    assert pause_reason(state) == "docking"
    pause(state, "at the charger")
    assert pause_reason(state) == "at the charger"
    assert resume(state) is True
    assert pause_reason(state) == ""
    assert resume(state) is False


def test_a_pause_needs_no_reason(tmp_path):
    pause(tmp_path, "")
    assert pause_reason(tmp_path) == WITHOUT_REASON


@pytest.mark.parametrize("reason", ["x" * 101, "two\nlines", "a bell\x07"])
def test_a_reason_that_cannot_be_told_is_refused(tmp_path, reason):
    with pytest.raises(SettingsError, match="expected one line of at most 100 characters"):
        pause(tmp_path, reason)
    assert pause_reason(tmp_path) == ""


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"{}", b"\xff", b'{"reason": 3}', b'{"reason": ""}', None]
)
def test_a_damaged_file_is_a_pause(tmp_path, content):
    if content is None:
        (tmp_path / FILE).mkdir()
    else:
        (tmp_path / FILE).write_bytes(content)
    assert pause_reason(tmp_path) == WITHOUT_REASON


def test_a_state_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StorageError, match=r"paused\.json: .*; run as the agent's user"):
        pause(tmp_path / "state", "")
    (tmp_path / FILE).mkdir()
    with pytest.raises(StorageError, match="run as the agent's user"):
        resume(tmp_path)
