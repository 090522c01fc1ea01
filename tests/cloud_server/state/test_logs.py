import json
import logging
import os
import subprocess
import sys

import pytest
from service_manager import journal

from cloud_server.state.logs import MAX_SAID, JsonLines, Seldom, SeldomLines, TextLines

pytestmark = pytest.mark.base


def record(message, *arguments, level=logging.INFO, error=None, **fields):
    info = (type(error), error, None) if error else None
    made = logging.LogRecord("cloud_server.x", level, __file__, 1, message, arguments, info)
    made.created = 1_700_000_000.25
    vars(made).update(fields)
    return made


def test_a_json_line_holds_time_level_logger_message_and_fields():
    line = JsonLines().format(record("round %d closed", 3, run="20260101", round=3, robot="r1"))

    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "cloud_server.x",
        "message": "round 3 closed",
        "run": "20260101",
        "round": 3,
        "robot": "r1",
    }


def test_an_exception_is_a_field_of_its_json_line():
    line = JsonLines().format(record("oh", level=logging.ERROR, error=ValueError("bad\nthing")))

    assert "\n" not in line
    assert "ValueError: bad\nthing" in json.loads(line)["exception"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (0.5, 0.5),
        (True, True),
        (None, None),
        (("a", float("inf")), ["a", "inf"]),
        ({1}, "{1}"),
        ("\ud800", "\ud800"),
    ],
)
def test_any_field_fits_into_json(value, expected):
    assert json.loads(JsonLines().format(record("x", field=value)))["field"] == expected


def test_a_field_never_replaces_what_every_line_has():
    made = record("x")
    vars(made).update(level="y", time="z", logger="w")

    line = json.loads(JsonLines().format(made))

    assert (line["level"], line["logger"], line["message"]) == ("info", "cloud_server.x", "x")


@pytest.mark.parametrize("words", ["a\n2026 INFO forged", "\x1b[2Jgone", "a\u2028b", "a\u202eb"])
def test_words_of_a_robot_cannot_forge_a_line_of_text(words):
    text = TextLines().format(record("robot r1: %s", words))

    assert text.isprintable()


def test_printable_words_of_any_language_stay_as_they_are():
    assert TextLines().format(record("Türsteher: %s", "門衛 🤖")).endswith(" Türsteher: 門衛 🤖")


def test_a_traceback_cannot_forge_a_line_of_text():
    text = TextLines().format(record("oh", error=ValueError("x\n2026-01-01 INFO forged")))

    first, *rest = text.splitlines()
    assert first.endswith("INFO oh")
    assert all(line.startswith("  | ") for line in rest)


CODE = """
import logging, threading, warnings
from pathlib import Path
from cloud_server.state.logs import log_to_stderr
from cloud_server.state.settings import LogSettings
log_to_stderr(LogSettings(format=FORMAT, level=LEVEL), Path("my fleet"))
logging.getLogger("cloud_server.a").debug("ours, debug")
logging.getLogger("library").debug("theirs, debug")
logging.getLogger("library").info("theirs, info")
logging.getLogger("httpx").info("every request")
command = "cloud-server robots approve DIR r1"
logging.getLogger("cloud_server.a").warning("ours, warning: %s", command, extra={"robot": "r1"})
warnings.warn("old\\nthing")
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
raise KeyError("main")
"""


def lines_of(log_format, level):
    code = CODE.replace("FORMAT", repr(log_format)).replace("LEVEL", repr(level))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_everything_that_a_process_tells_is_json_when_json_is_asked_for():
    lines = [json.loads(line) for line in lines_of("json", "info")]

    assert [line["level"] for line in lines] == [
        "info", "warning", "warning", "critical", "critical",
    ]  # fmt: skip
    assert lines[0]["message"] == "theirs, info"
    assert lines[1]["robot"] == "r1"
    assert lines[1]["message"].endswith("cloud-server robots approve 'my fleet' r1")
    assert "old\nthing" in lines[2]["message"]
    assert "thread worker" in lines[3]["message"]
    assert "ZeroDivisionError" in lines[3]["exception"]
    assert "KeyError" in lines[4]["exception"]


def test_debug_is_about_this_project_only():
    text = "\n".join(lines_of("text", "debug"))

    assert "ours, debug" in text
    assert "theirs, debug" not in text
    assert "every request" not in text


def test_level_warning_leaves_out_what_is_only_information():
    text = "\n".join(lines_of("text", "warning"))

    assert "ours, warning" in text
    assert "info" not in text


def test_the_same_is_said_once_a_minute_and_then_how_often_it_was_not():
    now = [0.0]
    seldom = Seldom(now_s=lambda: now[0])

    assert [seldom.more("a"), *(seldom.more("a") for _ in range(500)), seldom.more("b")] == [
        "", *[None] * 500, "",
    ]  # fmt: skip
    now[0] = 60.0
    assert seldom.more("a") == " (and 500 times more until now)"
    now[0] = 120.0
    assert seldom.more("a") == ""


def test_what_is_remembered_of_strangers_is_bounded():
    seldom = Seldom()
    for number in range(5000):
        seldom.more(number)

    assert len(seldom._said) == MAX_SAID


def test_a_library_that_logs_every_request_is_heard_a_few_times_a_minute(caplog):
    now = [0.0]
    logger = logging.getLogger("a.library")
    logger.addFilter(SeldomLines(burst=5, now_s=lambda: now[0]))

    def flood():
        for number in range(1000):
            logger.warning("request %d is refused", number)

    flood()
    now[0] = 61.0
    flood()

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 10
    assert lines[5] == "request 0 is refused (and 995 times more until now)"


def test_in_the_journal_a_line_begins_with_its_level_and_not_with_its_time(tmp_path):
    log = tmp_path / "stderr"
    code = CODE.replace("FORMAT", repr("text")).replace("LEVEL", repr("info"))
    with log.open("wb") as stream:
        environment = {**os.environ, **journal(log)}
        subprocess.run([sys.executable, "-c", code], stderr=stream, env=environment)

    lines = log.read_text().splitlines()
    assert lines[0] == "<6>theirs, info"
    assert lines[1] == "<4>ours, warning: cloud-server robots approve 'my fleet' r1"
    assert {line[:3] for line in lines[3:]} == {"<2>"}  # tracebacks, too
