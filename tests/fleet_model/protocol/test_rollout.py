"""Plan and stage by value: who is to have which version."""

import json

import pytest

from fleet_model.errors import TrustError
from fleet_model.protocol.rollout import (
    Named,
    Plan,
    Stage,
    choice,
    content_of,
    group_of,
    group_word,
    groups_that_follow,
    position,
    read_plan,
    read_stage,
)

GROUPS = ("10%", "site:hall-1", "50%", "100%")
A = "a" * 64


def plan(**more):
    fields = {"channel": "stable", "groups": GROUPS, "threshold": 0.2, "wait_s": 60.0}
    named = {
        name: Named(version=number, sha256=A)
        for name, number in (("present", 5), ("next", 7), ("fallback", 8))
    }
    return Plan(**{**fields, **named, **more})


def stage(state="advancing", groups=1, digest=A):
    return Stage(plan=digest, open=groups, state=state)


def test_a_robot_has_another_place_in_each_plan_and_the_same_each_time():
    places = [position(A, f"key {n}") for n in range(1000)]
    assert places == [position(A, f"key {n}") for n in range(1000)]
    assert all(0 <= one < 1 for one in places)
    assert 60 < sum(one < 0.1 for one in places) < 140
    assert position("b" * 64, "key 1") != places[1]


def test_a_robot_is_in_the_first_group_that_has_it():
    assert group_of(GROUPS, 0.05, "yard") == 0
    assert group_of(GROUPS, 0.3, "hall-1") == 1
    assert group_of(GROUPS, 0.05, "hall-1") == 0
    assert group_of(GROUPS, 0.3, "yard") == 2
    assert group_of(GROUPS, 0.999999, "") == 3


@pytest.mark.parametrize(
    ("state", "groups", "group", "active", "chosen"),
    [
        ("advancing", 1, 0, 5, "next"),
        ("advancing", 1, 1, 5, "present"),
        ("advancing", 2, 1, 5, "next"),
        ("halted", 2, 1, 7, "next"),  # it has it
        ("halted", 2, 1, 5, "present"),
        ("halted", 1, 1, 7, "present"),  # out of turn
        ("aborted", 1, 3, 5, "fallback"),
        ("aborted", 1, 0, 7, "fallback"),
        ("complete", 1, 3, 5, "next"),
        ("advancing", 0, 0, 5, "present"),
    ],
)
def test_what_a_robot_is_to_have(state, groups, group, active, chosen):
    assert choice(plan(), stage(state, groups), group, active) == chosen


def test_without_a_stage_it_has_not_begun():
    assert choice(plan(), None, 0, 7) == "present"


@pytest.mark.parametrize("group", ["", "10", "0%", "101%", "-5%", "1e1%", "site:", "site:a/b", "%"])
def test_what_is_no_group_is_refused(group):
    with pytest.raises(ValueError, match="expected a share as 10%, or a site as site:hall-1"):
        group_word(group)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ((), "0 groups"),
        (("10%",), "end with 100%"),
        (("100%", "site:a"), "end with 100%"),
        (("50%", "10%", "100%"), "shares must grow"),
        (("100%", "100%"), "shares must grow"),
        (("site:a",) * 20 + ("100%",), "21 groups"),
    ],
)
def test_groups_follow_each_other_to_all_robots(groups, words):
    with pytest.raises(ValueError, match=words):
        groups_that_follow(groups)


def test_a_plan_and_a_stage_are_read_as_they_were_signed():
    made = plan()
    assert read_plan(content_of(made), "stable") == made
    assert content_of(made) == content_of(plan())
    assert read_stage(content_of(stage()), made, A) == stage()


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"groups": ["10%"]}, {"threshold": 1}, {"next": {}}, {"wait_s": -1}]
)
def test_a_plan_that_cannot_be_followed_is_refused(change):
    content = json.dumps({**json.loads(content_of(plan())), **change}).encode()
    with pytest.raises(TrustError, match=r"cannot be followed .*; the active model stays"):
        read_plan(content, "stable")


def test_a_plan_of_another_channel_is_refused():
    with pytest.raises(TrustError, match="was made for another channel"):
        read_plan(content_of(plan()), "canary")
    with pytest.raises(TrustError, match="cannot be followed"):
        read_plan(b"no JSON", "stable")


def test_a_stage_says_nothing_that_the_plan_does_not():
    with pytest.raises(TrustError, match="is of another plan than the one that is signed"):
        read_stage(content_of(stage(digest="b" * 64)), plan(), A)
    with pytest.raises(TrustError, match="opens 5 groups, and the plan has 4"):
        read_stage(content_of(stage(groups=5)), plan(), A)
    for content in (b"", b"[]", content_of(stage()).replace(b"advancing", b"reversing")):
        with pytest.raises(TrustError, match="is no stage"):
            read_stage(content, plan(), A)
