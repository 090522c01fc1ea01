import errno
import os
from dataclasses import replace

import numpy as np
import pytest
from timed_robots import update

from cloud_server.rounds.fleet import Participant
from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.round_journal import DiskJournal, MemoryJournal, OpenRound, Ticket
from fleet_model.errors import StorageError
from fleet_model.protocol.outcome import ACCEPTED, Outcome

ROBOTS = tuple(Participant(node_id=2**63 + i, name=f"r{i}", site="hall") for i in range(3))
TICKETS = tuple(Ticket(id=f"t{i}", robot=r, round=1, version=7) for i, r in enumerate(ROBOTS))
ROUND = OpenRound(
    run="20260101-120000", round=1, base_version=7, mode="sync", robots=ROBOTS, tickets=TICKETS
)


def kept(number):
    return Kept(ticket=f"t{number}", robot=f"r{number}", site="hall", round=1, verdict=ACCEPTED)


@pytest.fixture(params=["memory", "disk"])
def journal(request, tmp_path):
    return MemoryJournal() if request.param == "memory" else DiskJournal(tmp_path / "run")


@pytest.fixture
def disk(tmp_path):
    return tmp_path / "run"


def test_nothing_is_open_at_first(journal):
    assert journal.load() is None
    assert list(journal.kept()) == []
    journal.close(1)
    assert journal.load() is None


def test_what_is_written_and_kept_is_there(journal):
    journal.write(ROUND)
    journal.keep(
        [(kept(0), update(2.0)), (replace(kept(1), verdict=Outcome("failed", "disk full")), None)]
    )

    assert journal.load() == ROUND
    assert list(journal.kept()) == [
        kept(0),
        replace(kept(1), verdict=Outcome("failed", "disk full")),
    ]
    np.testing.assert_array_equal(journal.read(kept(0)).weights["w"], [2, 2, 2])
    np.testing.assert_array_equal(journal.numbers(kept(0), "w", 1, 3), [2, 2])


def test_writing_the_same_round_again_keeps_its_replies(journal):
    journal.write(ROUND)
    journal.keep([(kept(0), update())])
    journal.write(replace(ROUND, tickets=TICKETS[1:]))

    assert list(journal.kept()) == [kept(0)]
    assert journal.load().tickets == TICKETS[1:]


@pytest.mark.parametrize("change", [{"round": 2}, {"base_version": 8}, {"run": "another"}])
def test_another_round_drops_the_replies(journal, change):
    journal.write(ROUND)
    journal.keep([(kept(0), update())])
    journal.write(replace(ROUND, **change))

    assert list(journal.kept()) == []


def test_closing_keeps_only_the_tickets_that_nobody_has_answered(journal):
    journal.write(ROUND)
    journal.keep([(kept(0), update())])
    journal.close(1)

    assert journal.load() == replace(ROUND, robots=(), tickets=TICKETS[1:], closed=True)
    assert list(journal.kept()) == []


def test_closing_another_round_changes_nothing(journal):
    journal.write(ROUND)
    journal.keep([(kept(0), update())])
    journal.close(2)

    assert journal.load() == ROUND
    assert list(journal.kept()) == [kept(0)]


def test_a_closed_round_can_be_opened_again_without_its_replies(journal):
    journal.write(ROUND)
    journal.keep([(kept(0), update())])
    journal.close(1)
    journal.write(ROUND)
    journal.keep([(kept(2), update(5.0))])

    assert list(journal.kept()) == [kept(2)]
    np.testing.assert_array_equal(journal.read(kept(2)).weights["w"], [5, 5, 5])


def test_the_next_process_takes_everything_up(disk):
    DiskJournal(disk).write(ROUND)
    DiskJournal(disk).keep([(kept(0), update())])
    DiskJournal(disk).keep([(kept(1), update(2.0))])

    journal = DiskJournal(disk)

    assert journal.load() == ROUND
    assert list(journal.kept()) == [kept(0), kept(1)]
    np.testing.assert_array_equal(journal.read(kept(1)).weights["w"], [2, 2, 2])


def test_a_closed_round_leaves_no_replies_on_disk(disk):
    journal = DiskJournal(disk)
    journal.write(ROUND)
    journal.keep([(kept(0), update())])
    journal.close(1)

    assert [file.name for file in disk.iterdir()] == ["round.json"]
    assert DiskJournal(disk).load().closed


def test_replies_of_rounds_that_are_over_are_removed_at_the_next_start(disk):
    DiskJournal(disk).write(ROUND)
    DiskJournal(disk).keep([(kept(0), update())])
    stray = disk / "replies-20260101-120000-000000-000006.spool"
    stray.write_bytes(b"left by a kill")

    assert list(DiskJournal(disk).kept()) == [kept(0)]
    assert not stray.exists()


def test_a_damaged_description_forgets_the_round_and_says_so(disk, caplog):
    DiskJournal(disk).write(ROUND)
    (disk / "round.json").write_text('{"run": 1')

    assert DiskJournal(disk).load() is None
    assert "round.json is damaged: its robots are asked again" in caplog.text


def test_a_run_is_never_a_path(disk):
    journal = DiskJournal(disk)
    journal.write(replace(ROUND, run="../../etc/x"))
    journal.keep([(kept(0), None)])

    assert len([file for file in disk.iterdir() if file.suffix == ".spool"]) == 1


def test_a_full_disk_is_told_with_the_next_step(disk, monkeypatch):
    journal = DiskJournal(disk)
    journal.write(ROUND)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for step in (
            lambda: journal.keep([(kept(0), update())]),
            lambda: journal.write(replace(ROUND, round=2)),
            lambda: journal.close(1),
        ):
            with pytest.raises(
                StorageError, match=r"No space left.*`cloud-server runs resume DIR`"
            ):
                step()

    assert DiskJournal(disk).load() == journal.load() == ROUND


def test_replies_need_an_open_round(disk):
    with pytest.raises(StorageError, match="no round is open"):
        DiskJournal(disk).keep([(kept(0), None)])
