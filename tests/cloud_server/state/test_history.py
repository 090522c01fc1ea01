import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.state import history_file
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history import ClosedRounds, write_csv
from cloud_server.state.round_record import RobotRecord, RoundRecord, parse_record
from fleet_model.protocol.outcome import ACCEPTED, NO_REPLY, Outcome
from fleet_model.types import Checkpoint


@pytest.fixture
def server_dir(tmp_path):
    return ServerDirectory(tmp_path)


def robot(name="r1", outcome=ACCEPTED, **more):
    return RobotRecord(name=name, site="hall", outcome=outcome, **more)


def closed(version, run="a", robots=(), **more):
    return RoundRecord(
        run=run,
        round=version,
        version=version,
        seconds=1.5,
        robots=robots or (robot(),),
        metrics={"accuracy_after": 0.5},
        **more,
    )


def rows(*records):
    stream = io.StringIO()
    write_csv(records, stream)
    return list(csv.DictReader(io.StringIO(stream.getvalue())))


def test_what_was_appended_is_read_back(server_dir):
    wanted = [closed(1, asked=3, late=1), closed(2, mode="buffered")]
    for record in wanted:
        server_dir.append_history(record.as_json())

    assert list(ClosedRounds(server_dir)) == wanted


def test_rounds_of_one_run_can_be_asked_for(server_dir):
    for version, run in ((1, "a"), (2, "b")):
        server_dir.append_history(closed(version, run=run).as_json())

    assert [record.version for record in list(ClosedRounds(server_dir, run="b"))] == [2]


def test_a_server_that_closed_no_round_has_no_history(server_dir):
    assert list(ClosedRounds(server_dir)) == []


def test_a_line_of_an_older_version_is_read_with_what_it_has(server_dir):
    line = closed(1).as_json()
    for name in ("asked", "late", "mode"):
        del line[name]
    for name in ("norm", "weight", "staleness", "capped"):
        del line["robots"][0][name]
    line["duplicates"] = 0  # was in every line once
    server_dir.append_history(line)

    (record,) = list(ClosedRounds(server_dir))

    assert (record.asked, record.mode, record.robots[0].weight) == (0, "sync", 0)


def test_a_line_that_is_there_twice_is_one_round(server_dir):
    server_dir.append_history(closed(1).as_json())
    server_dir.append_history(closed(1).as_json())

    assert len(list(ClosedRounds(server_dir))) == 1


def test_a_torn_line_costs_only_itself(server_dir):
    server_dir.append_history(closed(1).as_json())
    server_dir.history.write_bytes(server_dir.history.read_bytes() + b'{"run": "a", "rou')
    server_dir.append_history(closed(3).as_json())

    assert [record.version for record in list(ClosedRounds(server_dir))] == [1, 3]


@pytest.mark.parametrize("line", ["[]", "null", "3", '{"run": 1}', "\ufffd", '{"a": NaN}'])
def test_a_line_of_anything_else_is_left_out(server_dir, line):
    server_dir.history.write_text(line + "\n")

    assert list(ClosedRounds(server_dir)) == []


MEASURED = {"loss_after": 0.25}


def test_the_csv_has_one_row_per_robot_and_round():
    one, two = rows(
        closed(
            4,
            asked=2,
            robots=(
                robot(
                    "r1", weight=10, norm=0.5, metrics={"loss_after": 0.25}, label_counts={"ä": 3}
                ),
                robot("r2", NO_REPLY),
            ),
        )
    )

    assert (one["run"], one["round"], one["version"], one["asked"]) == ("a", "4", "4", "2")
    assert (one["robot"], one["verdict"], one["weight"], one["norm"]) == (
        "r1", "accepted", "10", "0.5",
    )  # fmt: skip
    assert (one["loss_after"], one["label_counts"], two["label_counts"]) == ("0.25", '{"ä": 3}', "")
    assert (two["robot"], two["verdict"], two["loss_after"]) == ("r2", "no_reply", "")


def test_the_csv_of_no_rounds_has_its_columns():
    stream = io.StringIO()
    write_csv([], stream)

    assert stream.getvalue().startswith("run,round,version,")


@given(words=st.text())
def test_a_robots_words_are_no_formula_and_no_line_of_their_own(words):
    (row,) = rows(closed(1, robots=(robot(outcome=Outcome("failed", words)),)))

    assert not row["outcome"].startswith(("=", "+", "-", "@"))
    assert row["outcome"].isprintable()


def test_the_newest_rounds_are_read_without_parsing_the_older_ones(server_dir, monkeypatch):
    for version in range(1, 31):
        server_dir.append_history(closed(version, run="ab"[version % 2]).as_json())
    parsed = []
    monkeypatch.setattr(
        history_file, "parse_record", lambda line: parsed.append(line) or parse_record(line)
    )

    assert [r.version for r in ClosedRounds(server_dir, newest=3)] == [28, 29, 30]
    assert [r.version for r in ClosedRounds(server_dir, "a", newest=2)] == [28, 30]
    assert len(parsed) == 5


@pytest.mark.parametrize("newest", [None, 2, 9])
def test_a_round_that_the_history_lost_comes_from_its_checkpoint(server_dir, newest):
    for version in (1, 2, 3, 4):
        checkpoint = Checkpoint(version=version, weights={"w": np.zeros(1, np.float32)})
        Checkpoints(server_dir.checkpoints).save(checkpoint, closed(version))
        if version != 3:
            server_dir.append_history(closed(version).as_json())
    expected = [1, 2, 3, 4] if newest != 2 else [3, 4]

    found = ClosedRounds(server_dir, newest=newest)

    assert [r.version for r in found][-len(expected) :] == expected
    assert list(found) == list(found)
    assert [r.version for r in ClosedRounds(server_dir, "b", newest=newest)] == []


def test_rounds_are_in_the_order_of_their_versions_whatever_the_order_of_lines(server_dir):
    for version in (3, 1, 2):
        server_dir.append_history(closed(version).as_json())

    assert [record.version for record in ClosedRounds(server_dir)] == [1, 2, 3]


def test_names_that_robots_invent_take_no_column_of_ours_and_not_very_many(tmp_path):
    robots = [
        RobotRecord(
            name=f"r{number}", site="hall", outcome=Outcome("accepted"),
            metrics={"loss": 1.0, "robot": 7.0, **{f"n{number}-{i}": 1.0 for i in range(99)}},
        )
        for number in range(5)
    ]  # fmt: skip
    record = RoundRecord(run="1", round=1, version=1, seconds=1.0, robots=robots, metrics={})
    stream = io.StringIO()

    write_csv([record], stream)

    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [row["robot"] for row in rows] == ["r0", "r1", "r2", "r3", "r4"]
    assert {row["loss"] for row in rows} == {"1.0"}
    assert len(rows[0]) < 300
    assert sum(int(row["other_metrics"]) for row in rows) == 5 * 101 - 5 - 199
