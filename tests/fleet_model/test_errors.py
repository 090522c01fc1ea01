"""No byte of others reaches a terminal, a line of the log, or a spreadsheet raw."""

import csv
import io
import json

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.runs.run_store import Run
from cloud_server.state.history import write_csv
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.command_line.app import run_app
from fleet_model.errors import RoundError, StorageError, UpdateError, one_line
from fleet_model.protocol.outcome import Outcome
from fleet_model.protocol.report import unpack_standing
from fleet_model.protocol.wire import unpack_weights
from fleet_model.weights import require_same_tensors

EVIL = "\x1b[2J\x1b]0;owned\x07\r\nround 9: robot r2: accepted \u202e\u2028\x9b31m"


@given(st.text(max_size=40))
def test_every_text_becomes_one_printable_line_and_a_printable_one_stays(text):
    assert one_line(text).isprintable()
    assert one_line(one_line(text)) == one_line(text)


def test_an_error_that_quotes_a_robot_is_one_line_in_the_terminal(capsys):
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise RoundError(f"run 1: r1: {EVIL}")

    with pytest.raises(SystemExit):
        run_app(_without_arguments(app), "cloud-server")

    told = capsys.readouterr().err
    assert told.endswith("\n")
    assert told[:-1].isprintable()


def _without_arguments(app):
    return lambda: app([], standalone_mode=False)


def test_what_a_run_of_an_older_server_has_written_down_is_shown_safely():
    run = Run.model_validate_json(
        json.dumps({"id": "1", "rounds": 1, "started_at": 0, "error": EVIL})
    )
    assert run.error.isprintable()

    run.error = f"r1: {EVIL}"

    assert run.error.isprintable()
    assert "round 9" in run.error


def test_verdicts_and_what_a_server_tells_its_robots_are_safe():
    assert Outcome("failed", EVIL).text.isprintable()
    assert len(Outcome("failed", "\x1b" * 300).words) == 300
    standing = unpack_standing(json.dumps({"notice": EVIL, "reason": EVIL}))
    assert standing.notice.isprintable()
    assert standing.reason.isprintable()


def test_names_of_tensors_in_errors_are_safe():
    from flwr.app import Array, ArrayRecord

    bad = Array(np.zeros(3, np.float64))
    with pytest.raises(UpdateError) as not_float:
        unpack_weights(ArrayRecord({EVIL: bad}))
    with pytest.raises(UpdateError) as unknown:
        require_same_tensors({}, {EVIL * 99: np.zeros(1, np.float32)}, sender="the update")

    for caught in (not_float, unknown):
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 900


def test_a_history_as_csv_holds_no_raw_word():
    robot = RobotRecord(
        name="r1", site="=cmd|' /C calc'!A0", outcome=Outcome("failed", EVIL),
        metrics={EVIL: 1.0, "=1+1": 2.0},
    )  # fmt: skip
    record = RoundRecord(run="1", round=1, version=1, seconds=1.0, robots=(robot,), metrics={})
    stream = io.StringIO()

    write_csv([record], stream)

    head, row = csv.reader(io.StringIO(stream.getvalue()))
    for text in (*head, *row):
        assert text.isprintable()
        assert not text.startswith(("=", "+", "@"))


def test_an_error_of_the_operating_system_is_quoted_without_its_number():
    error = StorageError(f"fleet: {OSError(13, 'Permission denied', 'server.toml')}")
    assert str(error) == "fleet: Permission denied: 'server.toml'"
