"""When runs begin by themselves; time is a number."""

import time
from pathlib import Path

import pytest

from cloud_server.runs.run_store import Run
from cloud_server.runs.schedule import (
    Schedule,
    ScheduleFile,
    duration_in_words,
    follow,
    parse_duration,
)
from fleet_model.errors import RoundError, SettingsError, StorageError

DAY = 86400.0
DAILY = Schedule(rounds=3, every_s=DAY, set_at=1000.0)
CONTINUOUS = Schedule(rounds=3, set_at=1000.0)


def run(started_at, state="finished", *, scheduled=True, took=10.0):
    ended_at = None if state == "running" else started_at + took
    return Run(
        id=f"r{started_at:.0f}", rounds=3, state=state, started_at=started_at, ended_at=ended_at,
        scheduled=scheduled,
    )  # fmt: skip


def test_the_first_run_begins_at_once():
    assert DAILY.is_due([], now=1000.0)
    assert DAILY.is_due([run(500.0), run(900.0, scheduled=False)], now=1000.0)


def test_the_next_one_begins_a_period_after_the_last_began():
    runs = [run(1000.0)]

    assert not DAILY.is_due(runs, now=1000.0 + DAY - 1)
    assert DAILY.is_due(runs, now=1000.0 + DAY)
    assert DAILY.due_at(runs) == 1000.0 + DAY


def test_a_time_that_was_missed_starts_one_run_at_once():
    runs = [run(1000.0)]
    assert DAILY.is_due(runs, now=1000.0 + 10 * DAY)

    runs.append(run(1000.0 + 10 * DAY))
    assert not DAILY.is_due(runs, now=1000.0 + 10 * DAY + 60)


def test_a_run_that_somebody_has_started_is_waited_for_and_changes_nothing():
    assert not DAILY.is_due([run(1000.0), run(2000.0, "running", scheduled=False)], now=9 * DAY)
    by_hand = [run(1000.0), run(1000.0 + DAY / 2, scheduled=False)]
    assert DAILY.due_at(by_hand) == 1000.0 + DAY


def test_continuous_runs_follow_each_other():
    assert not CONTINUOUS.is_due([run(1000.0, "running")], now=5000.0)
    assert CONTINUOUS.is_due([run(1000.0)], now=1010.0)


def test_failures_in_a_row_make_the_pause_longer_up_to_an_hour():
    runs = [run(1000.0)]
    pauses = []
    for number in range(1, 10):
        runs.append(run(1000.0 + number, "failed"))
        pauses.append(CONTINUOUS.due_at(runs) - runs[-1].ended_at)

    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    runs.append(run(5000.0))
    assert CONTINUOUS.due_at(runs) == runs[-1].ended_at


def test_a_clock_that_ran_ahead_does_not_put_the_next_run_off():
    future = 1000.0 + 4000 * DAY
    assert DAILY.is_due([run(future)], now=2000.0)
    assert DAILY.is_due([run(1000.0), run(future)], now=1000.0 + DAY)
    assert not DAILY.is_due([run(2000.0), run(future)], now=2000.0 + DAY / 2)
    assert Schedule(rounds=1, every_s=DAY, set_at=future).set_by(2000.0).is_due([], now=2000.0)


def test_a_schedule_outlives_the_process_and_can_be_cleared(tmp_path):
    file = ScheduleFile(tmp_path / "schedule.json")
    assert file.load() is None

    file.save(DAILY)

    assert ScheduleFile(tmp_path / "schedule.json").load() == DAILY
    assert file.clear()
    assert not file.clear()
    assert file.load() is None


def test_a_damaged_schedule_is_told_with_the_way_out(tmp_path):
    (tmp_path / "schedule.json").write_text('{"rounds": 0}')

    with pytest.raises(SettingsError, match="cloud-server schedule clear"):
        ScheduleFile(tmp_path / "schedule.json").load()


def test_following_starts_runs_and_tells_a_complaint_once(tmp_path, caplog):
    file, started = ScheduleFile(tmp_path / "schedule.json"), []
    file.save(DAILY)
    looks = iter([False, False, False, True])

    def start(rounds):
        started.append(rounds)
        raise RoundError("another goes on")

    follow(file, runs=list, start=start, pause=lambda _: next(looks))

    assert started == [3, 3, 3]
    assert caplog.text.count("another goes on") == 1


def followed(file, *, looks=3, start=None):
    """Follow for so many looks, a run at most at each; return the runs, that end at once."""
    left, runs = iter([False] * looks + [True]), []

    def begin(rounds):
        runs.append(run(time.time() - 1.0, took=0.5))

    follow(file, runs=lambda: runs, start=start or begin, pause=lambda _: next(left))
    return runs


@pytest.mark.parametrize("ahead_s", [0.0, 4000 * DAY])
def test_a_schedule_of_a_clock_that_ran_ahead_begins_one_run_and_not_one_at_every_look(
    tmp_path, monkeypatch, ahead_s
):
    monkeypatch.setattr(time, "time", iter(range(10_000, 20_000)).__next__)
    file = ScheduleFile(tmp_path / "schedule.json")
    file.save(Schedule(rounds=3, every_s=DAY, set_at=9_990.0 + ahead_s))

    assert len(followed(file)) == 1
    assert file.load().set_at < 10_010


def test_a_disk_that_fails_for_a_moment_does_not_end_the_following(tmp_path, caplog, monkeypatch):
    file = ScheduleFile(tmp_path / "schedule.json")
    file.save(DAILY)
    read, failing = Path.read_bytes, iter([OSError(5, "Input/output error"), None, None])

    def reading(path):
        if error := next(failing):
            raise error
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", reading)

    assert len(followed(file)) == 1
    assert f"{file._path} cannot be read: Input/output error" in caplog.text


def test_a_schedule_that_cannot_be_written_or_removed_is_told(tmp_path):
    (tmp_path / "schedules").write_text("a file where a folder should be")
    file = ScheduleFile(tmp_path / "schedules" / "schedule.json")

    with pytest.raises(StorageError, match=r"schedule\.json cannot be written"):
        file.save(DAILY)
    with pytest.raises(StorageError, match=r"schedule\.json cannot be removed"):
        file.clear()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("24h", DAY), ("7d", 7 * DAY), ("1.5h", 5400)],
)
def test_durations_are_read_and_said(text, seconds):
    assert parse_duration(text) == seconds
    assert parse_duration(duration_in_words(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1w", "59s", "0d", "1h 30m", "1e9d"])
def test_other_durations_are_refused_with_an_example(text):
    with pytest.raises(SettingsError, match="30m, 24h or 7d"):
        parse_duration(text)
