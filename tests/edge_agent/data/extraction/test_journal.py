import os

import pytest

from edge_agent.data.extraction.journal import Journal, Skipped, Written
from fleet_model.errors import SettingsError
from fleet_model.files.damage import Damage

pytestmark = pytest.mark.base

OUTCOMES = [
    Written(5, "a/b\udc80.jpg", "run", "/cam", 7, 45_000, 2**32 - 1, 2**64 - 1, (), "a,b\n"),
    Skipped(6, "cut jpeg", "run/cam at 6"),
    Written(8, "c.png", "run", "/cam", -7, 1, 0, None, (Damage("bad box", 2, "x"),), '"\n\r",é\n'),
    Skipped(9, "blurred", ""),
]


def kept(out, command="the command\n"):
    with Journal(out, command) as journal:
        return list(journal.outcomes())


def journal_file(out):
    return out / ".extract" / "journal"


@pytest.fixture
def out(tmp_path):
    with Journal(tmp_path / "out", "the command\n") as journal:
        journal.append(OUTCOMES[:1])
        journal.append(OUTCOMES[1:])
        assert journal.size_bytes == journal_file(tmp_path / "out").stat().st_size
    return tmp_path / "out"


def test_outcomes_come_back_as_they_were(out):
    assert kept(out) == OUTCOMES


def test_a_journal_cut_anywhere_gives_the_outcomes_before_and_takes_new_ones(out):
    whole = journal_file(out).read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(0, len(whole) + 1, 3):
        journal_file(out).write_bytes(whole[:length])
        before = sum(end <= length for end in ends)
        with Journal(out, "the command\n") as journal:
            assert list(journal.outcomes()) == OUTCOMES[:before]
            journal.append(OUTCOMES[before:])
        assert journal_file(out).read_bytes() == whole


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"00000000 []\n", b"deadbeef [1,2]\n", b"\xff\n"])
def test_what_a_power_cut_leaves_behind_the_last_line_is_dropped(out, garbage):
    with journal_file(out).open("ab") as stream:
        stream.write(garbage)
    assert kept(out) == OUTCOMES


def test_another_command_is_refused_and_says_how_it_differs(out):
    with pytest.raises(SettingsError, match="then: the command"):
        Journal(out, "another command\n")


def test_a_folder_where_nothing_was_done_yet_takes_another_command(tmp_path):
    assert kept(tmp_path / "out", "first\n") == []
    assert kept(tmp_path / "out", "second\n") == []


def test_a_foreign_folder_and_a_file_are_refused_and_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(SettingsError, match="not empty"):
        Journal(tmp_path, "x\n")
    with pytest.raises(SettingsError, match="is a file"):
        Journal(tmp_path / "photo.jpg", "x\n")
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


def test_two_at_a_time_are_refused(out):
    with Journal(out, "the command\n"), pytest.raises(SettingsError, match="another extraction"):
        Journal(out, "the command\n")
    assert kept(out) == OUTCOMES


def test_a_full_disk_adds_nothing(out, monkeypatch):
    def full(descriptor, data):
        write(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    before, write = journal_file(out).read_bytes(), os.write
    with Journal(out, "the command\n") as journal:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            journal.append(OUTCOMES)
        monkeypatch.undo()
        assert journal_file(out).read_bytes() == before


def test_a_full_disk_that_takes_bytes_at_the_sync_leaves_whole_lines(out, monkeypatch):
    """Where a file is written late, only the sync finds that there was no room."""

    def full(descriptor):
        os.truncate(journal_file(out), os.fstat(descriptor).st_size - 5)
        raise OSError(28, "No space left on device")

    with Journal(out, "the command\n") as journal:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            journal.sync()
        monkeypatch.undo()
        assert list(journal.outcomes()) == OUTCOMES[:3]
        journal.append(OUTCOMES[3:])
    assert kept(out) == OUTCOMES
