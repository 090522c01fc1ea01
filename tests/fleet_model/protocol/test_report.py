import base64
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.errors import UpdateError
from fleet_model.protocol.report import (
    MAX_INT,
    MAX_REPORT_BYTES,
    RobotReport,
    Standing,
    pack_report,
    pack_standing,
    unpack_report,
    unpack_standing,
)
from fleet_model.protocol.version import FIRST_PROTOCOL, PROTOCOL

pytestmark = pytest.mark.base

FULL = RobotReport(
    model_version=7,
    busy="paused: inventory 24/7",
    battery=55.5,
    charging=True,
    free_disk_mb=1200,
    examples=0,
    trainer="my_package:Trainer",
    software="0.4.0",
    not_installed="manifest.json is of protocol 9: update the agent",
    facts={"docked": True, "floor": -2, "speed": 0.5, "shift": "früh"},
)


def packed(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize("report", [FULL, RobotReport()])
def test_a_report_arrives_as_it_was_sent(report):
    text = pack_report(report)

    assert unpack_report(text) == report
    assert type(unpack_report(text).facts.get("docked", True)) is bool
    assert set(text) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )  # nothing that a URL would change, for the proof covers it


def test_an_idle_robots_report_is_short():
    assert len(pack_report(RobotReport(model_version=7, battery=50, charging=False))) < 100


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "report: "),
        ({"battery": 101}, "'battery'"),
        ({"battery": "much"}, "'battery'"),
        ({"battery": math.inf}, "'battery'"),
        ({"free_disk_mb": -1}, "'free_disk_mb'"),
        ({"examples": MAX_INT + 1}, "'examples'"),
        ({"model_version": 10**400}, "'model_version'"),
        ({"busy": "x" * 101}, "'busy'"),
        ({"busy": "\x1b[2J"}, "'busy'"),
        ({"trainer": "a\nb"}, "'trainer'"),
        ({"software": "\u202e"}, "'software'"),
        ({"facts": {"Floor": 1}}, "'facts.Floor"),
        ({"facts": {"floor": None}}, "'facts.floor"),
        ({"facts": {"floor": math.nan}}, "'facts.floor"),
        ({"facts": {"picture": "/home/robot/a.png"}}, "'facts.picture"),
        ({"facts": {"picture": "x" * 65}}, "'facts.picture"),
        ({"facts": {"picture": "\x1b[2J"}}, "'facts.picture"),
        ({"facts": {f"f{n}": 1 for n in range(17)}}, "'facts'"),
        ({"facts": {"ü\x1b": 1}}, r"'facts.\xfc\x1b"),
        ({"facts": {"x" * 900: 1}}, "'facts.xxxx"),
    ],
)
def test_a_wrong_field_is_named_in_a_line_without_strange_characters(value, message):
    with pytest.raises(UpdateError) as caught:
        unpack_report(packed(value))

    assert message in str(caught.value)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["frames", "ü\x1b", "\ud800", "x" * 900])
def test_a_field_of_a_newer_robot_is_not_kept(name):
    assert unpack_report(packed({name: 1, "battery": 50})) == RobotReport(battery=50)


@pytest.mark.parametrize("text", ["", "A", "äöü", "AAAA", packed("[" * 900), "W1tb" * 400])
def test_what_is_no_report_is_said_to_be_none(text):
    with pytest.raises(UpdateError, match="report: "):
        unpack_report(text)


@given(st.text(max_size=200) | st.binary(max_size=200).map(
    lambda content: base64.urlsafe_b64encode(content).decode()
))  # fmt: skip
def test_garbage_raises_nothing_but_update_errors(text):
    with pytest.raises(UpdateError):
        unpack_report(text)


def test_a_report_is_bounded_on_both_sides():
    facts = {f"fact_{number}": "ü" * 64 for number in range(16)}
    with pytest.raises(UpdateError, match=r"report: .* give fewer or shorter facts"):
        pack_report(RobotReport(trainer="x" * 100, busy="y" * 100, facts=facts))
    with pytest.raises(UpdateError, match=f"expected at most {MAX_REPORT_BYTES}"):
        unpack_report("A" * (MAX_REPORT_BYTES + 1))


@pytest.mark.parametrize(
    "standing",
    [
        Standing(),
        Standing(state="suspended", reason="3 refused", notice="run a round 1: ü", notice_id="a/1"),
    ],
)
def test_a_standing_arrives_as_it_was_sent(standing):
    text = pack_standing(standing)

    assert text.isascii()
    assert "\n" not in text
    assert unpack_standing(text) == standing.model_copy(update={"protocol": PROTOCOL})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "king"}', "[" * 7000, "\x00"])
def test_a_standing_that_makes_no_sense_is_the_default(text):
    assert unpack_standing(text) == Standing()


def test_a_server_that_announces_no_number_speaks_the_first_protocol():
    assert unpack_standing('{"state": "pending"}').protocol == FIRST_PROTOCOL


def test_a_newer_servers_standing_is_read_without_what_is_new():
    assert unpack_standing('{"state": "pending", "mood": "good"}') == Standing(state="pending")
