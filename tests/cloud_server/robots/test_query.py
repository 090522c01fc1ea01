import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.robots.query import NAMES, facts_of, parse_query
from cloud_server.rounds.fleet import Participant
from fleet_model.errors import SettingsError
from fleet_model.protocol.report import RobotReport

FACTS = {
    "name": "r1",
    "site": "hall-1",
    "labels": ("gpu", "outdoor"),
    "online": True,
    "busy": "",
    "battery": 55.0,
    "charging": False,
    "free_disk_mb": 900,
    "docked": True,
    "floor": 2,
}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "  ",
        "True",
        "battery >= 30 and free_disk_mb > 500",
        "battery >= 30\nand free_disk_mb > 500",
        "20 < battery <= 55",
        "not charging",
        "not busy",
        'busy == ""',
        "charging or docked",
        '"gpu" in labels and "indoor" not in labels',
        'site in ("hall-1", "hall-2") and name not in ["r2"]',
        '"hall" in site',
        "floor == 2 and floor != 3 and floor > -1",
        "not (battery < 20 or floor == 9)",
        "True == online",
    ],
)
def test_a_query_that_holds(query):
    assert parse_query(query).matches(FACTS)


@pytest.mark.parametrize(
    "query",
    [
        "False",
        "battery > 55",
        "charging",
        "busy",
        "20 < battery < 50",
        '"indoor" in labels',
        'site == "hall-2" or floor == 1',
    ],
)
def test_a_query_that_does_not_hold(query):
    assert not parse_query(query).matches(FACTS)


@pytest.mark.parametrize(
    "query",
    [
        "speed",
        "speed < 1",
        "speed > 1",
        "speed == 1",
        "speed != 1",
        '"x" in speed',
        "1 < speed < 9",
        "speed not in (1, 2)",
        "1 in (speed, 2)",
    ],
)
def test_what_a_robot_does_not_report_holds_nothing(query):
    assert not parse_query(query).matches(FACTS)
    assert parse_query(f"not ({query})").matches(FACTS)


@pytest.mark.parametrize("query", ['battery < "full"', "name > 3", "3 in battery", "3 in name"])
def test_a_word_against_a_number_holds_nothing_and_fails_nothing(query):
    assert not parse_query(query).matches(FACTS)


@pytest.mark.parametrize(
    ("query", "position", "what"),
    [
        ("battery >=", 11, "invalid syntax"),
        ("battery >= 30 &", 16, "invalid syntax"),
        ("battery & 3", 1, "BinOp is not allowed here"),
        ("__import__('os')", 1, "Call is not allowed here"),
        ("name.upper == 'R1'", 1, "Attribute is not allowed here"),
        ("labels[0] == 'gpu'", 1, "Subscript is not allowed here"),
        ("online and (lambda: 1)", 13, "Lambda is not allowed here"),
        ("[x for x in labels]", 1, "ListComp is not allowed here"),
        ("(x := 3)", 2, "NamedExpr is not allowed here"),
        ("f'{name}' == 'r1'", 1, "JoinedStr is not allowed here"),
        ("battery is 3", 1, "`is` is not allowed here, use =="),
        ("battery == None", 12, "expected a number, a string, True or False"),
        ("name == b'r1'", 9, "expected a number, a string, True or False"),
        ("-battery < 3", 1, "expected `not`, or - before a number"),
        ("~3 == 3", 1, "expected `not`, or - before a number"),
        ("'ä' == name and Battery > 3", 17, "no name Battery, did you mean battery?"),
        ("batery > 30", 1, "no name batery, did you mean battery?"),
        ("_x > 30", 1, "no name _x"),
        ("not " * 21 + "online", 85, "nested more than 20 deep"),
        ("(" * 240 + "online" + ")" * 240, 1, ""),
        ("name == '\\d'", 9, "invalid escape sequence"),
        ("name == '\0'", 1, ""),
    ],
)
def test_a_wrong_query_is_refused_with_its_position_and_the_names(query, position, what):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SettingsError) as caught:
            parse_query(query)

    text = str(caught.value)
    assert what in text
    assert all(name in text for name in (*NAMES, "own facts", "rounds.query"))
    if what != "invalid escape sequence" and what:  # Python's own positions move with its version
        assert f"position {position} of" in text


def test_a_query_is_short():
    assert parse_query("online" + " or online" * 49).matches(FACTS)  # 496 characters
    with pytest.raises(SettingsError, match="501 characters, expected at most 500"):
        parse_query("'" + "x" * 499 + "'")


@given(st.text(max_size=60) | st.text(alphabet="()[]'\" abn<>=!-,.0123\\\n", max_size=60))
def test_any_text_is_a_query_or_a_settings_error(text):
    try:
        query = parse_query(text)
    except SettingsError:
        return
    assert query.matches(FACTS) in (True, False)
    assert query.matches({}) in (True, False)


def test_a_robot_that_is_left_out_is_told_why():
    query = parse_query("battery >= 80 and speed > 1 and battery < 90")

    assert query.names == ("battery", "speed")
    assert query.reason(FACTS) == (
        "rounds.query does not hold (battery = 55.0, it does not report speed)"
    )
    assert "nothing is known, it does not report battery, speed" in query.reason({})
    assert len(parse_query("floor == 1").reason({"floor": "x" * 10_000})) < 300


def participant(**fields):
    return Participant(**{"node_id": 1, "name": "r1", "site": "hall-1", **fields})


def test_facts_of_a_robot_that_reports_nothing_are_the_registers():
    facts = facts_of(participant(labels=("gpu",)))

    assert facts == {
        "name": "r1", "site": "hall-1", "labels": ("gpu",), "online": True, "protocol": 1
    }  # fmt: skip


def test_facts_are_what_a_robot_reports_and_nothing_that_it_does_not():
    report = RobotReport(battery=12, charging=False, trainer="keras", facts={"floor": 2})

    facts = facts_of(participant(report=report, last_seen_s=3.5), online=False)

    assert facts == {
        "name": "r1", "site": "hall-1", "labels": (), "online": False, "last_seen_s": 3.5,
        "protocol": 1,
        "busy": "", "battery": 12.0, "charging": False, "trainer": "keras", "floor": 2,
    }  # fmt: skip


def test_an_own_fact_hides_no_word_of_the_server():
    report = RobotReport(facts={"site": "hall-9", "labels": "gpu", "online": True, "busy": "no"})

    facts = facts_of(participant(report=report), online=False)

    assert (facts["site"], facts["labels"], facts["online"], facts["busy"]) == (
        "hall-1", (), False, "",
    )  # fmt: skip


def test_every_name_of_a_query_is_a_fact_of_a_robot_that_reports_all():
    report = RobotReport(
        model_version=1, battery=1, charging=True, free_disk_mb=1, examples=1,
        trainer="keras", software="1.0", busy="paused",
    )  # fmt: skip

    assert set(facts_of(participant(report=report, last_seen_s=1.0))) == set(NAMES)
