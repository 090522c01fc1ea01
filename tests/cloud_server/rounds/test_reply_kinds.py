"""Kinds of replies: training, evaluation, and one that only this test knows."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
from timed_robots import CHECKS, REQUEST, RULES, START, Robots, changed, outcomes, update

from cloud_server.rounds.reply_kinds import KINDS, ReplyKind, check_evaluation, mean_measures
from cloud_server.rounds.round_journal import DiskJournal
from cloud_server.rounds.round_loop import QuorumError
from cloud_server.rounds.update_checks import check_reply
from cloud_server.state.round_record import RobotRecord
from fleet_model.errors import RoundError, StoppedError, UpdateError
from fleet_model.protocol.outcome import ACCEPTED, Outcome
from fleet_model.types import EVALUATE

# ------------------------------------------------ a kind that no file of ours has


def sums(value, count=4):
    """What a robot answers to "sums": a group of tensors, no update."""
    return update(
        kind="sums",
        weights={},
        groups={"sums": {"x": np.full(2, value, np.float32)}, "count": {"n": np.float32([count])}},
        num_examples=count,
        num_steps=0,
    )


def only_sums(reply, checkpoint, asked_version, checks):
    check_reply(reply, asked_version, checks)
    if reply.groups.keys() != {"sums", "count"} or reply.weights:
        raise UpdateError("expected the groups sums and count")


def mean_into_state(end):
    read = [end.journal.read(one.kept) for one in end.accepted]
    total = sum(one.groups["sums"]["x"] for one in read)
    count = sum(one.groups["count"]["n"] for one in read)
    return replace(end.checkpoint, server_state={"mean": total / count})


SUMS = ReplyKind(check=only_sums, length=lambda _: 0.0, use=mean_into_state, means=lambda *_: {})
ASKED = replace(REQUEST, kind="sums")
WITH_SUMS = {**KINDS, "sums": SUMS}


def test_a_kind_of_ones_own_goes_through_journal_and_loop(tmp_path):
    robots = Robots({"a": {"answer": sums(1.0)}, "b": {"answer": sums(5.0), "after": 9}})
    checkpoint, record = robots.round(request=ASKED, journal=DiskJournal(tmp_path), kinds=WITH_SUMS)
    np.testing.assert_array_equal(checkpoint.server_state["mean"], np.float32([0.75, 0.75]))
    assert (checkpoint.version, checkpoint.weights) == (START.version, START.weights)
    assert outcomes(record) == {"a": "accepted", "b": "accepted"}
    assert {robot.update_bytes for robot in record.robots} == {12}


@pytest.mark.parametrize(("directions", "asked"), [(0, ["a", "b", "relay"]), (16, ["a", "b"])])
def test_a_relay_is_asked_for_sums_that_add_up_only(caplog, directions, asked):
    caplog.set_level(logging.INFO, "cloud_server.rounds.round_loop")
    fleet = {"a": {}, "b": {}, "relay": {"speaks_for": 5}}
    robots = Robots({name: {"answer": sums(1.0), **one} for name, one in fleet.items()})
    config = replace(REQUEST.config, sums_directions=directions)
    robots.round(request=replace(ASKED, config=config), kinds=WITH_SUMS)

    assert sorted(robots.sent[0][1]) == asked
    assert ("relay is left out" in caplog.text) == ("relay" not in asked)
    assert ("set start.directions = 0" in caplog.text) == ("relay" not in asked)


def test_it_survives_the_end_of_the_process(tmp_path):
    """The reply of `a` is read from the file that the process before has left."""
    stopped = iter([False] * 3)
    robots = Robots({"a": {"answer": sums(1.0)}, "b": {"answer": sums(5.0), "after": 9}})
    with pytest.raises(StoppedError):
        robots.round(
            request=ASKED, journal=DiskJournal(tmp_path), kinds=WITH_SUMS,
            stop=lambda: next(stopped, True),
        )  # fmt: skip
    (kept,) = DiskJournal(tmp_path).kept()
    assert (kept.robot, kept.kind, kept.groups) == ("a", "sums", ("sums", "count"))
    checkpoint, _ = robots.round(request=ASKED, journal=DiskJournal(tmp_path), kinds=WITH_SUMS)
    np.testing.assert_array_equal(checkpoint.server_state["mean"], np.float32([0.75, 0.75]))


def test_its_own_check_refuses(tmp_path):
    bad = replace(sums(1.0), groups={})
    fleet = {"a": {"answer": sums(1.0)}, "b": {"answer": sums(1.0)}, "c": {"answer": bad}}
    _, record = Robots(fleet).round(request=ASKED, kinds=WITH_SUMS)
    assert outcomes(record)["c"] == "refused: expected the groups sums and count"


def test_the_bound_on_bytes_counts_every_group():
    large = replace(sums(1.0), groups={"sums": {"x": np.zeros(250_001, np.float32)}})
    with pytest.raises(UpdateError, match=r"it has 1\.0 MB, expected at most 1 \("):
        check_reply(large, START.version, changed(CHECKS, max_update_mb=1))


# ------------------------------------------------ evaluation and training


def evaluation(accuracy, count=10, **changes):
    metrics = {"accuracy": accuracy, "loss": 1.0 - accuracy}
    told = update(kind=EVALUATE, weights={}, num_examples=count, num_steps=0, metrics=metrics)
    return replace(told, **changes)


MEASURE = replace(REQUEST, kind=EVALUATE)


def test_an_evaluation_is_averaged_by_examples_and_changes_no_weights(tmp_path):
    fleet = {"a": {"answer": evaluation(0.5)}, "b": {"answer": evaluation(1.0, count=30)}}
    checkpoint, record = Robots(fleet).round(
        request=MEASURE, journal=DiskJournal(tmp_path), rule=None
    )
    assert checkpoint is START
    assert record.metrics == {"accuracy": 0.75, "loss": 0.25}  # 30 count as 10
    assert record.spread == {"accuracy": (0.5, 1.0), "loss": (0.0, 0.5)}
    assert [robot.metrics["accuracy"] for robot in record.robots] == [0.5, 1.0]


def test_what_an_evaluation_counts_is_no_measure_but_is_told():
    counts = {"held_out": 10.0, "labels": 2.0, "left_out_unlabelled": 7.0, "unreadable": 3.0}
    told = evaluation(0.5)
    told = replace(told, metrics={**told.metrics, **counts}, label_counts=(6, 9))
    fleet = {name: {"answer": told} for name in "ab"}
    request = replace(MEASURE, labels=("clear", "blocked"))

    _, record = Robots(fleet).round(request=request, rule=None)

    assert record.metrics == {"accuracy": 0.5, "loss": 0.5}
    assert record.left_out == {"unlabelled": 14}
    assert record.label_counts == {"clear": 12, "blocked": 18}
    assert record.held_out == 20
    with pytest.raises(UpdateError, match="has no measures"):
        check_evaluation(replace(told, metrics=counts), START, START.version, CHECKS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_version": 3}, "it is based on version 3, expected 7"),
        ({"num_examples": 0}, "it is of 0 examples"),
        ({"weights": START.weights}, "measures only, this one has tensors"),
        ({"groups": {"sums": START.weights}}, "measures only, this one has tensors"),
        ({"metrics": {}}, "has no measures"),
        ({"metrics": {"loss": math.nan}}, "its metric 'loss' is nan, expected"),
    ],
)
def test_an_evaluation_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(UpdateError, match=message):
        check_evaluation(evaluation(0.5, **changes), START, START.version, CHECKS)


def test_a_robot_that_answers_another_kind_is_refused():
    fleet = {"a": {}, "b": {"answer": evaluation(0.5)}, "c": {}}
    _, record = Robots(fleet).round()
    assert outcomes(record)["b"] == "refused: it is of kind evaluate, expected train"
    fleet = {"a": {"answer": evaluation(0.5)}, "b": {}, "c": {"answer": evaluation(0.5)}}
    _, record = Robots(fleet).round(request=MEASURE)
    assert outcomes(record)["b"] == "refused: it is of kind train, expected evaluate"


def test_training_without_a_rule_says_so():
    robots = Robots({"a": {}, "b": {}})
    with pytest.raises(RoundError, match="needs an aggregation rule"):
        KINDS["train"].use(_end_of(robots))


def _end_of(robots):
    from cloud_server.rounds.reply_kinds import RoundEnd
    from cloud_server.rounds.round_journal import MemoryJournal

    return RoundEnd(checkpoint=START, accepted=(), journal=MemoryJournal(), rule=None)


def test_robots_of_protocol_1_are_not_asked_for_what_they_do_not_know():
    robots = Robots({"a": {}, "b": {}})
    robots.participant = lambda name, make=robots.participant: replace(make(name), protocol=1)
    with pytest.raises(RoundError) as caught:
        robots.round(request=MEASURE)
    assert "its agent speaks protocol 1, this request needs 2: update the agent" in str(
        caught.value
    )
    assert robots.sent == []


def test_means_leave_out_who_was_refused_and_what_is_not_finite():
    def record(name, outcome, weight, **metrics):
        return RobotRecord(name=name, site="", outcome=outcome, weight=weight, metrics=metrics)

    records = [
        record("a", ACCEPTED, 1, loss=1.0, huge=1e308, own=4.0),
        record("b", ACCEPTED, 3, loss=2.0, huge=1e308),
        record("c", Outcome("refused"), 0, loss=99.0),
    ]
    assert mean_measures(records, CHECKS) == {"loss": 1.75}


def test_too_few_evaluations_end_the_round():
    fleet = {"a": {"answer": evaluation(0.5)}, "b": {"answer": Outcome("failed", "none held out")}}
    with pytest.raises(QuorumError, match="none held out"):
        Robots(fleet).round(RULES, request=MEASURE)
