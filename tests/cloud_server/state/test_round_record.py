import json
from dataclasses import replace

import pytest

from cloud_server.state.round_record import RobotRecord, RoundRecord, parse_record
from fleet_model.protocol.outcome import ACCEPTED, Outcome

pytestmark = pytest.mark.base

RECORD = RoundRecord(
    run="r",
    round=3,
    version=9,
    seconds=12.5,
    robots=(
        RobotRecord(name="a", site="hall", outcome=ACCEPTED, norm=0.1 + 0.2, weight=3),
        RobotRecord(name="b", site="yard", outcome=Outcome("refused", "w holds NaN"), capped=True),
    ),
    metrics={"loss_after": 0.1},
    asked=2,
    late=1,
    mode="buffered",
)


def test_a_record_is_read_back_from_its_json():
    assert parse_record(json.dumps(RECORD.as_json(), allow_nan=False)) == RECORD


def test_a_line_of_an_older_release_is_read():
    texts = {
        "a": "accepted",
        "b": "refused: robot b: w holds NaN",
        "c": "it said: refused: by me",
        "d": "it went offline and did not come back within 120 s",
    }
    robots = [{"name": name, "site": "s", "outcome": text} for name, text in texts.items()]
    line = {"run": "r", "round": 1, "version": 2, "seconds": 1.0, "robots": robots, "metrics": {}}

    record = parse_record(json.dumps(line))

    assert (record.run, record.asked, record.mode) == ("r", 0, "sync")
    assert [robot.outcome for robot in record.robots] == [
        ACCEPTED,
        Outcome("refused", "w holds NaN"),
        Outcome("failed", "it said: refused: by me"),
        Outcome("offline", " within 120 s"),
    ]


def test_a_robots_words_do_not_become_a_verdict_when_its_line_is_read_back():
    forged = replace(RECORD.robots[0], outcome=Outcome("failed", "accepted"))
    record = replace(RECORD, robots=(forged,))

    assert parse_record(json.dumps(record.as_json())) == record


def test_a_line_with_a_kind_that_this_release_does_not_know_is_not_lost():
    line = RECORD.as_json()
    line["robots"] = [{**line["robots"][0], "verdict": "abducted", "outcome": "by aliens"}]

    (robot,) = parse_record(json.dumps(line)).robots
    assert robot.outcome == Outcome("failed", "by aliens")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"run": "r"', b"[]", b"\xff"])
def test_a_damaged_record_is_a_value_error(content):
    with pytest.raises(ValueError, match=r"valid|JSON"):
        parse_record(content)


def test_only_the_servers_verdict_is_a_refusal():
    assert [robot.refused for robot in RECORD.robots] == [False, True]


def test_what_robots_left_out_and_what_makes_their_scores_doubtful_is_told():
    def robot(name, outcome=ACCEPTED, **metrics):
        return RobotRecord(
            name=name, site="hall", outcome=outcome, num_examples=40, metrics=metrics
        )

    robots = (
        robot("a", held_out=4.0, left_out_unknown_label=110.0, labels=1.0),
        robot("b", held_out=30.0, left_out_unreadable=2.0, **{"left_out_forged words": 9.0}),
        robot("c", Outcome("refused", "w holds NaN"), held_out=3.0, left_out_copy=7.0),
        robot("old"),
    )
    told = replace(RECORD, robots=robots).as_json()

    assert (told["held_out"], told["left_out"]) == (34, {"unknown_label": 110, "unreadable": 2})
    assert told["warnings"] == [
        "many labels that this fleet does not learn, so look at their spelling: a (110 of 154 "
        "labelled examples)",
        "examples of one label only, which teach no difference: a (44 examples)",
        "fewer than 20 held-out examples, so scores say little: a (4 held-out examples)",
    ]
