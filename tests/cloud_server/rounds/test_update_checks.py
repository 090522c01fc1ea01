import math
from dataclasses import replace

import numpy as np
import pytest
from timed_robots import START, update

from cloud_server.rounds.update_checks import check_update, without_asked_groups
from cloud_server.state.learning_settings import CheckSettings
from fleet_model.errors import UpdateError

CHECKS = CheckSettings()


def named(**changes):
    return replace(update(robot="r1"), **changes)


def test_a_residual_of_the_checkpoint_is_not_asked_of_robots():
    residual = {"w.lora_residual": np.ones(3, np.float32)}
    start = replace(START, weights={**START.weights, **residual})
    check_update(named(), start, 7, CHECKS)
    sent = named(weights={**named().weights, **residual})
    with pytest.raises(UpdateError, match=r"unknown tensor w\.lora_residual"):
        check_update(sent, start, 7, CHECKS)


BAD = {
    "another base": (named(base_version=6), "based on version 6, expected 7"),
    "no examples": (named(num_examples=0), "of 0 examples, expected > 0"),
    "negative": (named(num_examples=-5), "of -5 examples, expected > 0"),
    "too large": (
        named(weights={"w": np.zeros(200_000_000, np.float32)}),
        r"it has 800.0 MB, expected at most 512 \(checks.max_update_mb\)",
    ),
    "shape": (
        named(weights={"w": np.zeros((3, 1), np.float32)}),
        r"the update: w has shape \(3, 1\), expected \(3,\); was it built from the same workload",
    ),
    "dtype": (named(weights={"w": np.zeros(3)}), "the update: w is float64, expected float32"),
    "lacking": (named(weights={}), "the update: lacks w"),
    "unknown": (
        named(weights={"w": np.zeros(3, np.float32), "v": np.zeros(1, np.float32)}),
        "the update: has the unknown tensor v",
    ),
    "nan": (named(weights=update(math.nan).weights), "the update: w holds NaN or infinity"),
    "groups": (
        named(groups={"sums": {"x": np.full(2, math.nan, np.float32)}}),
        "the update has further tensors, the group 'sums', which nobody asked for",
    ),
    "accuracy": (
        named(metrics={"accuracy_after": 57.0}),
        "its metric 'accuracy_after' is 57, expected 0 to 1",
    ),
    "held out": (named(metrics={"held_out": -1.0}), "its metric 'held_out' is -1, expected 0 to"),
    "reserved": (
        named(metrics={"verdict": 1.0}),
        "its metric 'verdict' has the name of something that the server says of a robot",
    ),
    "infinity": (named(weights=update(-math.inf).weights), "the update: w holds NaN or infinity"),
}


ASKED = {"control": {"x": np.zeros(2, np.float32)}}


def test_groups_that_were_asked_for_are_taken_out_before_the_other_checks():
    good = named(groups={"control": {"x": np.ones(2, np.float32)}})
    check_update(without_asked_groups(good, ASKED), START, 7, CHECKS)
    more = without_asked_groups(replace(good, groups={**good.groups, "sums": {}}), ASKED)
    with pytest.raises(UpdateError, match="the group 'sums', which nobody asked for"):
        check_update(more, START, 7, CHECKS)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({}, "it lacks the group of tensors 'control', which the server's rule asks for"),
        ({"control": {"x": np.zeros(3, np.float32)}}, r"the group control: x has shape \(3,\)"),
        ({"control": {"x": np.full(2, np.nan, np.float32)}}, "the group control: x holds NaN"),
        ({"control": {**ASKED["control"], "y": np.zeros(1)}}, "has the unknown tensor y"),
    ],
)
def test_groups_that_are_not_as_asked_for_are_refused(groups, message):
    with pytest.raises(UpdateError, match=message):
        without_asked_groups(named(groups=groups), ASKED)


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=BAD)
def test_an_update_that_does_not_fit_is_refused_with_who_and_why(bad, message):
    with pytest.raises(UpdateError, match=message):
        check_update(bad, START, 7, CHECKS)


def test_a_good_update_passes():
    check_update(named(), START, 7, CHECKS)


def test_an_old_update_passes_if_the_robot_was_sent_that_version():
    check_update(named(base_version=4), START, 4, CHECKS)

    for other in (4, 8):
        with pytest.raises(UpdateError, match=f"based on version {other}, expected 5"):
            check_update(named(base_version=other), START, 5, CHECKS)
