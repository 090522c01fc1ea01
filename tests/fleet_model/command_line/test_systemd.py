import logging
import os
import subprocess
import sys

import pytest
from service_manager import ServiceManager, journal

from fleet_model.command_line.systemd import JournalLines, notify, watchdog_s

pytestmark = pytest.mark.base


@pytest.mark.parametrize("kind", ["a file", "abstract"])
def test_what_is_told_arrives_in_one_message_at_either_kind_of_socket(kind, tmp_path, monkeypatch):
    address = f"{tmp_path}/notify" if kind == "a file" else f"@fleetlearn-{os.getpid()}"
    with ServiceManager(address) as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

        assert notify("READY=1", "STATUS=idle, größer")

        assert manager.until("STATUS") == ["READY=1", "STATUS=idle, größer"]


def test_outside_systemd_nothing_is_told(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    assert not notify("READY=1")


def test_a_manager_that_has_gone_is_a_warning_and_no_failure(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))

    assert not notify("READY=1")

    assert "systemd is not told READY=1: No such file or directory" in caplog.text


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("60000000", "our own", 30.0),
        ("60000000", "", 30.0),
        ("60000000", "1", None),  # of the process that started this one
        ("0", "", None),
        ("", "", None),
        ("soon", "", None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time_by_the_process_it_is_for(
    usec, pid, expected, monkeypatch
):
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "our own" else pid)

    assert watchdog_s() == expected


def test_every_line_of_a_record_has_its_level_in_the_journal():
    record = logging.makeLogRecord({"msg": "one\ntwo", "levelno": logging.ERROR})

    assert JournalLines(logging.Formatter("%(message)s")).format(record) == "<3>one\n<3>two"


FAIL = """
from fleet_model.command_line.app import make_app, run_app
from fleet_model.errors import SettingsError
app = make_app("x", "y")

@app.command()
def fail() -> None:
    raise SettingsError("a wrong key")

@app.command()
def other() -> None: ...

run_app(app, "program")
"""


@pytest.mark.parametrize("in_journal", [True, False])
def test_a_commands_last_words_are_an_error_in_the_journal_and_plain_elsewhere(
    in_journal, tmp_path
):
    log = tmp_path / "stderr"
    with log.open("wb") as stream:
        # A service that starts another program leaves it the variable: the stream decides.
        told = journal(log) if in_journal else {"JOURNAL_STREAM": "1:1"}
        environment = {**os.environ, **told}
        done = subprocess.run([sys.executable, "-c", FAIL, "fail"], stderr=stream, env=environment)

    assert done.returncode == 2
    assert log.read_text() == ("<3>" if in_journal else "") + "program: a wrong key\n"
