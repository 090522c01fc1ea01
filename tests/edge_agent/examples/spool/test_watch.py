"""The agent's side of the spool: when a child is started, and what happens when it fails."""

import threading
import time

import pytest

from edge_agent.examples.spool import watch as spool_watch
from edge_agent.examples.spool.watch import SpoolWatch
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink, StoreSettings

pytestmark = [pytest.mark.base, pytest.mark.slow]


@pytest.fixture
def watch(tmp_path):
    """Return a watch that is not started; its child only notes what it is asked for."""
    (tmp_path / "spool").mkdir()
    settings = AgentSettings(
        server=ServerLink(address="localhost:1"),
        state=tmp_path / "state",
        examples=ExampleSettings(spool=tmp_path / "spool"),
        store=StoreSettings(settle_s=0.05),
    )
    watch = SpoolWatch(settings, lambda totals: watch.reports.append(totals))
    watch.reports, watch.asked, watch.codes = [], [], []  # exit codes of the first children

    def note(complete):
        watch.asked.append([recording.path.name for recording in complete])
        return watch.codes.pop(0) if watch.codes else 0

    watch._ingest = note
    yield watch
    watch.close()


@pytest.fixture
def record(tmp_path):
    """Return what puts a recording into the spool that is complete from the first look on."""

    def put(name, content):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).replace(tmp_path / "spool" / name)

    return put


def wait_for(holds):
    end = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_child_is_started_for_what_is_new_and_only_then(watch, record, tmp_path):
    watch.start()
    time.sleep(0.4)
    assert watch.asked == []
    record("a.mcap", b"1")
    wait_for(lambda: watch.asked)
    record("b.mcap", b"1")
    wait_for(lambda: len(watch.asked) > 1)
    time.sleep(0.4)
    assert watch.asked == [["a.mcap"], ["a.mcap", "b.mcap"]]
    record("a.mcap", b"2 and more")
    wait_for(lambda: len(watch.asked) == 3)


def test_a_child_that_fails_is_started_again_less_and_less_often(
    watch, record, tmp_path, monkeypatch
):
    monkeypatch.setattr(spool_watch, "_LONGEST_RETRY_S", 0.8)
    watch._retry_s, watch.codes = 0.2, [12] * 4
    record("a.mcap", b"1")
    begin = time.monotonic()
    watch.start()
    wait_for(lambda: len(watch.asked) == 5)
    assert time.monotonic() - begin > 0.2 + 0.4 + 0.8 + 0.8
    time.sleep(1)
    assert len(watch.asked) == 5


def test_old_examples_are_looked_for_once_a_day_without_a_new_bag(watch, monkeypatch):
    monkeypatch.setattr(spool_watch, "_DAY_S", 0.2)
    watch.start()
    wait_for(lambda: len(watch.asked) >= 2)
    assert watch.asked[:2] == [[], []]


def test_totals_are_told_at_the_start_and_after_every_child(watch, record, tmp_path):
    (tmp_path / "state" / "examples").mkdir(parents=True)
    (tmp_path / "state" / "examples" / "totals.json").write_text('{"kept": 7}')
    watch.start()
    wait_for(lambda: watch.reports == [{"kept": 7}])
    (tmp_path / "state" / "examples" / "totals.json").write_text('{"kept": 8}')
    record("a.mcap", b"1")
    wait_for(lambda: watch.reports == [{"kept": 7}, {"kept": 8}])


def test_a_spool_that_is_not_there_is_said_once_and_watched_on(watch, record, tmp_path, caplog):
    (tmp_path / "spool").rmdir()
    watch.start()
    wait_for(lambda: "the spool spool: No such file or directory" in caplog.text)
    time.sleep(0.5)
    assert caplog.text.count("the spool spool: No such file or directory") == 1
    (tmp_path / "spool").mkdir()
    record("a.mcap", b"1")
    wait_for(lambda: watch.asked == [["a.mcap"]])


def test_close_ends_a_child_that_is_at_work(watch, record, tmp_path, monkeypatch):
    del watch._ingest  # the real one
    monkeypatch.setattr(spool_watch.sys, "executable", str(tmp_path / "sleeper"))
    (tmp_path / "sleeper").write_text("#!/bin/sh\ntrap '' TERM\nexec sleep 600\n")
    (tmp_path / "sleeper").chmod(0o755)
    record("a.mcap", b"1")
    watch.start()
    wait_for(lambda: watch._child is not None)
    watch.close()  # the child would sleep for longer than a test may take
    wait_for(lambda: watch._child.poll() is not None)
    wait_for(lambda: not any(t.name == "spool" for t in threading.enumerate()))
