import json

import pytest

from cloud_server.state.round_record import RobotRecord, RoundRecord, parse_record

pytestmark = pytest.mark.base

RECORD = RoundRecord(
    run="r",
    round=3,
    version=9,
    seconds=12.5,
    robots=(
        RobotRecord(name="a", site="hall", outcome="accepted", norm=0.1 + 0.2, weight=3),
        RobotRecord(name="b", site="yard", outcome="refused: w holds NaN", capped=True),
    ),
    metrics={"loss_after": 0.1},
    asked=2,
    late=1,
    mode="buffered",
)


def test_a_record_is_read_back_from_its_json():
    assert parse_record(json.dumps(RECORD.as_json(), allow_nan=False)) == RECORD


def test_a_line_of_an_older_release_is_read():
    line = {"run": "r", "round": 1, "version": 2, "seconds": 1.0, "robots": [], "metrics": {}}

    assert parse_record(json.dumps(line)) == RoundRecord(
        run="r", round=1, version=2, seconds=1.0, robots=(), metrics={}
    )


@pytest.mark.parametrize("content", [b"", b"{}", b'{"run": "r"', b"[]", b"\xff"])
def test_a_damaged_record_is_a_value_error(content):
    with pytest.raises(ValueError, match=r"valid|JSON"):
        parse_record(content)


def test_only_the_servers_verdict_is_a_refusal():
    assert [robot.refused for robot in RECORD.robots] == [False, True]
