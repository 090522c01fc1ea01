"""Synchronous rounds, with robots whose hours pass in microseconds (timed_robots.py)."""

import json
import logging
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from timed_robots import CHECKS, REQUEST, RULES, START, Robots, changed, of, outcomes, update

from cloud_server.rounds.round_journal import DiskJournal, MemoryJournal
from cloud_server.rounds.round_loop import QuorumError, mean_metrics
from cloud_server.rounds.shares import NORMS
from cloud_server.state.round_record import parse_record
from cloud_server.state.words import NAMED
from fleet_model.errors import RoundError, StoppedError
from fleet_model.protocol.outcome import ACCEPTED, FAILED, NO_REPLY, NOT_REACHED, Outcome
from fleet_model.protocol.report import RobotReport
from fleet_model.types import Checkpoint

FULL = Outcome("failed", "disk full")


def test_a_round_closes_as_soon_as_everybody_has_replied():
    robots = Robots({"a": {"after": 5}, "b": {"after": 20, "answer": update(3.0)}})

    checkpoint, record = robots.round()

    assert checkpoint.version == 8
    np.testing.assert_array_equal(checkpoint.weights["w"], [2, 2, 2])
    assert 20 <= record.seconds < 21
    assert outcomes(record) == {"a": "accepted", "b": "accepted"}


def test_robots_are_asked_once_with_the_deadline_as_time_to_live():
    robots = Robots({"a": {}, "b": {}})

    robots.round()

    ((request, names, ttl_s),) = robots.sent
    assert (request.round, request.deadline_s, names, ttl_s) == (1, 60.0, ["a", "b"], 100.0)
    assert request.checkpoint is START


def test_a_straggler_is_left_behind_at_the_deadline():
    robots = Robots({"a": {}, "b": {}, "slow": {"after": 500, "answer": update(99.0)}})

    checkpoint, record = robots.round()

    assert outcomes(record)["slow"] == "no reply by the deadline"
    np.testing.assert_array_equal(checkpoint.weights["w"], [1, 1, 1])
    assert 100 <= record.seconds < 101


def test_a_round_waits_for_enough_robots_to_come_online():
    robots = Robots({"a": {}, "late": {"from": 25}})

    checkpoint, record = robots.round()

    assert checkpoint.version == 8
    assert 25 <= record.seconds < 26


def test_too_few_robots_online_end_the_wait_with_their_names():
    robots = Robots({"a": {}, "b": {"from": 31}})

    with pytest.raises(RoundError, match=r"1 robot online \(a\), expected at least 2; see"):
        robots.round()
    assert robots.sent == []
    assert 30 <= robots.now - robots.begin < 31


def test_a_wait_for_robots_says_at_once_and_at_most_once_a_minute_whom_it_waits_for(caplog):
    caplog.set_level(logging.INFO, "cloud_server.rounds.round_loop")
    fleet = {"a": {}, "b": {"from": 20}, "c": {"from": 150}}

    Robots(fleet).round(changed(RULES, quorum=3, wait_s=300.0))

    waits = [record for record in caplog.records if "round 1 waits: " in record.getMessage()]
    assert [record.getMessage().partition(", expected")[0] for record in waits] == [
        "round 1 waits: 1 robot online (a)",
        "round 1 waits: 2 robots online (a, b)",
    ]
    assert {(record.run, record.round) for record in waits} == {(REQUEST.run, 1)}


def test_a_message_about_very_many_robots_names_twelve_and_the_record_all():
    fleet = {f"r{i:03}": {"answer": FULL} for i in range(40)} | {
        "a": {},
        "b": {},
    }

    with pytest.raises(QuorumError) as error:
        Robots(fleet).round(changed(RULES, quorum=3))

    named = "; ".join(f"r{i:03}: failed: disk full" for i in range(12))
    assert str(error.value) == f"round 1: 2 good updates, expected 3 ({named}; and 30 more)"
    assert len(error.value.record.robots) == 42

    away = {f"r{i:03}": {"site": "yard"} for i in range(30)}
    here = changed(RULES, quorum=40, sites=("hall",))
    with pytest.raises(RoundError) as error:
        Robots(fleet | away).round(here)
    message = str(error.value)
    assert message.startswith("12 robots online (a, b, r030,")
    assert message.count("is left out") == 12
    assert "; and 18 more; see `cloud-server robots list DIR`" in message


def test_nobody_online_is_said_so():
    with pytest.raises(RoundError, match=r"0 robots online \(none\)"):
        Robots({}).round()


def test_robots_that_wait_for_the_operator_are_named_with_the_command_that_lets_them_in():
    robots = Robots({"a": {}})
    robots.shut_out = lambda: {"c": "suspended", "b": "suspended", "n": "pending"}

    with pytest.raises(RoundError) as error:
        robots.round()

    assert str(error.value) == (
        "1 robot online (a), expected at least 2; pending: n; suspended: b, c; "
        "`cloud-server robots approve DIR b c n` lets them take part, or lower rounds.quorum"
    )
    with pytest.raises(RoundError) as error:  # `rounds.robots` would leave the others out
        robots.round(changed(RULES, robots=("a", "c")))
    assert "expected at least 2; suspended: c; `cloud-server robots approve DIR c` " in str(
        error.value
    )
    robots.shut_out = lambda: {f"r{i:03}": "suspended" for i in range(500)}
    with pytest.raises(RoundError) as error:
        robots.round()
    assert len(str(error.value)) < 400


def test_too_few_good_updates_fail_the_round_and_say_who_and_why():
    robots = Robots(
        {
            "a": {},
            "broken": {"answer": Outcome("failed", "no frames in /camera")},
            "lost": {"lost": True},
            "slow": {"after": 1000},
        }
    )

    with pytest.raises(QuorumError) as error:
        robots.round()

    assert str(error.value) == (
        "round 1: 1 good updates, expected 2 (a: accepted; broken: failed: no frames in /camera; "
        "lost: could not be reached by the deadline; slow: no reply by the deadline)"
    )
    assert outcomes(error.value.record)["broken"] == "failed: no frames in /camera"
    assert error.value.record.asked == 3


def test_a_round_in_which_nobody_could_be_reached_says_so():
    robots = Robots({"a": {"lost": True}, "b": {"lost": True}})

    with pytest.raises(RoundError, match="a: could not be reached by the deadline; b: could"):
        robots.round()
    assert 100 <= robots.now - robots.begin < 101


@pytest.mark.parametrize("outcome", [ACCEPTED, NOT_REACHED, Outcome("late", "by me")])
def test_a_fleet_cannot_give_a_verdict_of_the_round(outcome, tmp_path):
    robots = Robots({"a": {}, "b": {}, "sly": {"answer": outcome}})

    checkpoint, record = robots.round(journal=DiskJournal(tmp_path))

    assert of(record, "sly").outcome == FAILED
    assert record.late == 0
    np.testing.assert_array_equal(checkpoint.weights["w"], [1, 1, 1])


BAD = {
    "shape": (update(weights={"w": np.zeros(4, np.float32)}), r"w has shape \(4,\), expected"),
    "dtype": (update(weights={"w": np.zeros(3)}), "w is float64, expected float32"),
    "nan": (update(math.nan), "w holds NaN"),
    "infinity": (update(math.inf), "w holds NaN or infinity"),
    "missing": (update(weights={}), "lacks w of shape"),
    "unknown": (
        update(weights={"w": np.zeros(3, np.float32), "x" * 999: np.zeros(1, np.float32)}),
        "has the unknown tensor x",
    ),
    "stale": (update(base_version=6), "based on version 6, expected 7"),
    "future": (update(base_version=8), "based on version 8, expected 7"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_a_bad_update_is_refused_and_the_others_count(bad, reason):
    bad = replace(bad, metrics={"accuracy_after": 1.0, "held_out": 1000.0})
    good = update(metrics={"accuracy_after": 0.5, "held_out": 1.0})
    robots = Robots({"a": {"answer": good}, "b": {"answer": good}, "bad": {"answer": bad}})

    checkpoint, record = robots.round()

    np.testing.assert_array_equal(checkpoint.weights["w"], [1, 1, 1])
    refused = of(record, "bad")
    assert refused.refused
    assert refused.weight == 0
    assert len(refused.outcome.words) <= 300
    assert re.search(reason, refused.outcome.words)
    assert record.metrics == {"accuracy_after": 0.5}


def test_updates_that_add_up_to_infinity_do_not_become_a_checkpoint():
    huge = replace(START, weights={"w": np.full(3, 3e38, np.float32)})
    robots = Robots({"a": {"answer": update(3e38)}, "b": {"answer": update(3e38)}})

    with (
        np.errstate(over="ignore"),
        pytest.raises(RoundError, match="aggregator: w holds NaN or infinity"),
    ):
        robots.round(request=replace(REQUEST, checkpoint=huge))


class Float32Sum:
    """A rule in which the order of updates shows: it rounds after every one."""

    def fold(self, checkpoint, contributions):
        total = checkpoint.weights["w"]
        for one in contributions:
            total = total + contributions.tensor(one, "w")
        return Checkpoint(version=8, weights={"w": total})


@given(delays=st.permutations(range(6)))
def test_the_result_does_not_depend_on_who_is_faster_to_the_last_bit(delays):
    rng = np.random.default_rng(0)
    answers = [
        update(weights={"w": rng.normal(size=3).astype(np.float32)}, num_examples=1 + i)
        for i in range(6)
    ]

    def weights(order):
        robots = {
            f"r{i}": {"after": after, "answer": answer}
            for i, (after, answer) in enumerate(zip(order, answers, strict=True))
        }
        return Robots(robots).round(rule=Float32Sum())[0].weights["w"].tobytes()

    assert weights(delays) == weights(range(6))


def test_the_record_is_json_and_says_what_each_robot_did():
    measured = update(
        num_examples=30, num_steps=6, metrics={"accuracy_after": 0.75, "held_out": 8.0}
    )
    robots = Robots({"b": {"answer": measured}, "a": {}, "c": {"answer": FULL}})

    _, record = robots.round()
    line = json.loads(json.dumps(record.as_json(), allow_nan=False))

    assert (line["run"], line["round"], line["version"]) == ("run", 1, 8)
    assert [robot["name"] for robot in line["robots"]] == ["a", "b", "c"]
    assert line["robots"][1] == {
        "name": "b",
        "site": "hall",
        "outcome": "accepted",
        "verdict": "accepted",
        "num_examples": 30,
        "num_steps": 6,
        "update_bytes": 12,
        "metrics": {"accuracy_after": 0.75, "held_out": 8.0},
        "norm": math.sqrt(3),
        "weight": 10,
        "staleness": 0,
        "capped": True,
        "cut_to": 0.0,
        "label_counts": {},
        "speaks_for": 1,
        "codec": "float32",
    }
    assert line["request_bytes"] == 12
    assert line["robots"][2]["outcome"] == "failed: disk full"
    assert line["robots"][2]["verdict"] == "failed"
    assert line["metrics"] == {"accuracy_after": 0.75}
    assert line["spread"] == {"accuracy_after": [0.75, 0.75]}
    assert [line[key] for key in ("asked", "late", "mode")] == [3, 0, "sync"]


def records(*metrics):
    answers = {f"r{i}": {"answer": update(metrics=m)} for i, m in enumerate(metrics)}
    return Robots(answers).round(changed(RULES, quorum=1))[1].robots


def test_metrics_are_weighted_by_the_held_out_examples_behind_them():
    assert mean_metrics(
        records(
            {"accuracy_after": 1.0, "held_out": 1.0},
            {"accuracy_after": 0.0, "held_out": 3.0},
            {"train_loss": 9.0},
        )
    ) == {"accuracy_after": 0.25}


def test_no_robot_reports_for_more_held_out_examples_than_the_median_has():
    honest = {"accuracy_after": 0.3, "held_out": 10.0}
    boasting = records(honest, honest, {"accuracy_after": 0.9, "held_out": 1e6})

    assert mean_metrics(boasting, 1.0) == {"accuracy_after": pytest.approx(0.5)}
    assert mean_metrics(boasting, 4.0) == {"accuracy_after": pytest.approx(0.7)}
    assert mean_metrics(boasting)["accuracy_after"] > 0.89


def test_a_measure_of_any_name_is_averaged_but_none_that_one_robot_alone_reports():
    honest = {"map50_before": 0.25, "map50_after": 0.5, "held_out": 1.0}
    liar = {**honest, **{f"noise{i}_after": 1.0 for i in range(50)}}

    assert mean_metrics(records(honest, honest, liar)) == {"map50_before": 0.25, "map50_after": 0.5}


def test_metrics_of_nothing_held_out_are_absent():
    assert mean_metrics(records({"accuracy_after": 1.0}, {})) == {}


@pytest.mark.parametrize("held_out", [-1.0, 1e308])
def test_a_robot_that_lies_about_its_held_out_examples_does_not_break_the_record(held_out):
    means = mean_metrics(
        records({"loss_after": 1e308, "held_out": held_out}, {"loss_after": 1.0, "held_out": 1.0})
    )

    assert means.get("loss_after", 1.0) == 1.0


def test_only_robots_that_the_rules_select_are_asked_and_the_others_are_named():
    robots = Robots(
        {
            "a": {},
            "away": {"site": "yard"},
            "b": {},
            "busy": {"report": RobotReport(busy="paused by hand")},
        }
    )

    _, record = robots.round(changed(RULES, sites=("hall",)))

    assert robots.sent[0][1] == ["a", "b"]
    assert record.asked == 2
    with pytest.raises(RoundError) as error:
        robots.round(changed(RULES, quorum=3, wait_s=0, sites=("hall",)))
    assert "2 robots online (a, b), expected at least 3" in str(error.value)
    assert "away is left out (site yard is not among rounds.sites)" in str(error.value)
    assert "busy is left out (busy: paused by hand)" in str(error.value)


def test_at_most_the_target_is_asked_the_same_ones_for_the_same_checkpoint():
    fleet = {f"r{i}": {} for i in range(8)}

    asked = []
    for _ in range(2):
        robots = Robots(fleet)
        robots.round(changed(RULES, target=3))
        asked.append(robots.sent[0][1])
    other = Robots(fleet)
    seed = replace(START, seed=5)
    other.round(changed(RULES, target=3), request=replace(REQUEST, checkpoint=seed))

    assert len(asked[0]) == 3
    assert asked[0] == asked[1] != other.sent[0][1]


def test_a_round_that_has_failed_draws_other_robots_at_the_next_attempt(tmp_path):
    """One dead robot must not fail it for ever; the journal counts, also over a restart."""

    def attempts(directory):
        robots = Robots({f"r{i}": {"answer": FULL} for i in range(8)})
        for _ in range(5):
            with pytest.raises(QuorumError):
                robots.round(changed(RULES, target=3), journal=DiskJournal(directory))
        return [names for _, names, _ in robots.sent]

    first = attempts(tmp_path / "first")

    assert len(set(map(tuple, first))) > 2
    assert attempts(tmp_path / "again") == first


def test_another_run_or_round_draws_other_robots():
    fleet = {f"r{i}": {} for i in range(30)}
    asked = set()
    for other in ({}, {"run": "other"}, {"round": 2}):
        robots = Robots(fleet)
        robots.round(changed(RULES, target=10), request=replace(REQUEST, **other))
        asked.add(tuple(robots.sent[0][1]))

    assert len(asked) == 3


def test_an_inflated_count_weighs_no_more_than_the_cap():
    honest, greedy = update(0.0, num_examples=10), update(4.0, num_examples=10**12)
    robots = Robots({"a": {"answer": honest}, "b": {"answer": greedy}})

    checks = changed(CHECKS, max_examples_per_robot=30, max_examples_ratio=0)
    checkpoint, record = robots.round(checks=checks)

    np.testing.assert_array_equal(checkpoint.weights["w"], [3, 3, 3])
    assert (of(record, "b").num_examples, of(record, "b").weight) == (10**12, 30)
    assert (of(record, "b").capped, of(record, "a").capped) == (True, False)


def test_a_thousandfold_update_counts_at_ten_times_the_length_of_the_others():
    answers = {name: {"answer": update(1.0)} for name in "abc"}
    robots = Robots({**answers, "d": {"answer": update(1000.0)}})

    checkpoint, record = robots.round(checks=changed(CHECKS, max_norm_ratio=10.0))

    np.testing.assert_allclose(checkpoint.weights["w"], [13 / 4] * 3, rtol=1e-6)
    assert of(record, "d").accepted
    assert "its length (L2) 1732 is cut to 17.32" in of(record, "d").outcome.words
    lengths = [math.sqrt(3)] * 3 + [10 * math.sqrt(3)]
    np.testing.assert_array_equal(checkpoint.server_state[NORMS], lengths)


LABELS = ("clear", "blocked", "cone")


def test_examples_of_every_label_are_kept_with_the_record_and_survive_a_restart(tmp_path):
    fleet = {
        "a": {"answer": update(label_counts=(6, 0, 0))},
        "b": {"answer": update(label_counts=(1, 2, 0)), "after": 9},
    }
    robots, journal = Robots(fleet), DiskJournal(tmp_path)
    with pytest.raises(StoppedError):
        robots.round(
            request=replace(REQUEST, labels=LABELS), journal=journal, stop=lambda: robots.now > 1005
        )

    _, record = robots.round(request=replace(REQUEST, labels=LABELS), journal=DiskJournal(tmp_path))

    assert (of(record, "a").label_counts, of(record, "b").label_counts) == (
        {"clear": 6}, {"clear": 1, "blocked": 2},
    )  # fmt: skip
    assert record.label_counts == {"clear": 7, "blocked": 2, "cone": 0}
    assert parse_record(json.dumps(record.as_json())) == record
    assert record.warnings == [
        "no robot of this round has examples of cone, so the model cannot learn that"
    ]


def test_counts_of_other_labels_than_those_that_were_asked_for_are_refused():
    answers = {"a": update(label_counts=(1, 2)), "b": update(), "c": update()}
    robots = Robots({name: {"answer": answer} for name, answer in answers.items()})

    _, record = robots.round(request=replace(REQUEST, labels=LABELS))

    assert outcomes(record)["a"] == "refused: it counts examples of 2 labels, expected 3"
    assert (record.label_counts, record.warnings) == ({}, [])  # nobody else tells


def test_of_a_label_that_only_an_older_agent_may_have_the_warning_says_so():
    answers = {"a": update(label_counts=(1, 2, 0)), "b": update()}
    robots = Robots({name: {"answer": answer} for name, answer in answers.items()})

    _, record = robots.round(request=replace(REQUEST, labels=LABELS))

    (warning,) = record.warnings
    assert "examples of cone, as far as they tell (1 do not: update their agents), so" in warning


def test_lengths_are_judged_by_those_of_earlier_rounds_too():
    checks = changed(CHECKS, max_norm_ratio=10.0)
    known = replace(START, server_state={NORMS: np.full(5, 1.0)})
    robots = Robots({name: {"answer": update(100.0)} for name in "ab"})

    checkpoint, _ = robots.round(checks=checks, request=replace(REQUEST, checkpoint=known))

    np.testing.assert_allclose(checkpoint.weights["w"], [10 / math.sqrt(3)] * 3, rtol=1e-6)


def test_a_late_update_is_counted_in_the_round_in_which_it_arrives_and_dropped():
    def slow_at_first(request):
        return update(99.0, base_version=request.checkpoint.version)

    robots = Robots({"a": {"after": 5}, "b": {"after": 5}, "slow": {"answer": slow_at_first}})
    robots.robots["slow"]["after"] = 103

    checkpoint, (first, second) = robots.rounds(2, RULES)

    assert (first.late, second.late) == (0, 1)
    assert outcomes(first)["slow"] == outcomes(second)["slow"] == "no reply by the deadline"
    np.testing.assert_array_equal(checkpoint.weights["w"], [2, 2, 2])


class Trickling(Robots):
    """A look takes a minute and returns one reply, as where models are large."""

    def replies(self, tickets):
        self.now += 60
        here = [t for t in sorted(tickets) if self.now >= self.tickets[t][0]]
        return super().replies(here[:1])


def test_replies_that_lie_there_at_the_deadline_are_still_taken():
    robots = Trickling({name: {"after": 5} for name in "abcd"} | {"slow": {"after": 1e6}})

    _, record = robots.round()

    assert outcomes(record) == {**dict.fromkeys("abcd", "accepted"), "slow": NO_REPLY.text}


def test_a_stop_is_heeded_while_the_last_replies_are_taken():
    robots = Trickling({name: {"after": 5} for name in "abcdef"})

    with pytest.raises(StoppedError):
        robots.round(stop=lambda: robots.now - robots.begin > 130)
    assert robots.now - robots.begin == 180


def test_a_reply_that_comes_twice_counts_once():
    class Echo(Robots):
        def replies(self, tickets):
            arrived = super().replies(tickets)
            return [*arrived, *arrived]

    checkpoint, _ = Echo({"a": {}, "b": {"answer": update(3.0)}}).round()

    np.testing.assert_array_equal(checkpoint.weights["w"], [2, 2, 2])


def test_a_question_that_can_no_longer_be_answered_does_not_hold_the_round():
    class Revoking(Robots):
        def still_open(self, tickets):
            return {ticket for ticket in tickets if not ticket.startswith("gone")}

    _, record = Revoking({"a": {}, "b": {}, "gone": {"after": 1000}}).round()

    assert record.seconds < 15
    assert outcomes(record)["gone"] == "no reply by the deadline"


def test_a_robot_that_cannot_be_reached_at_first_is_asked_until_the_deadline():
    robots = Robots({"a": {}, "b": {}, "shy": {"lost": True}})

    def reachable_later(seconds):
        robots.now += seconds
        if robots.now - robots.begin > 40:
            robots.robots["shy"]["lost"] = False

    robots.sleep = reachable_later

    _, record = robots.round()

    assert outcomes(record)["shy"] == "accepted"
    request, names, ttl_s = robots.sent[-1]
    assert names == ["shy"]
    assert 59 <= ttl_s <= 60
    assert request.deadline_s == ttl_s


def test_a_stop_ends_the_round_at_the_next_look_and_it_can_go_on():
    robots, journal = Robots({"a": {"after": 5}, "b": {"after": 50}}), MemoryJournal()

    with pytest.raises(StoppedError, match="run run was stopped in round 1"):
        robots.round(journal=journal, stop=lambda: robots.now - robots.begin > 20)
    assert robots.now - robots.begin < 21

    _, record = robots.round(journal=journal)

    assert outcomes(record) == {"a": "accepted", "b": "accepted"}
    assert len(robots.sent) == 1


def test_a_stop_ends_the_wait_for_robots():
    with pytest.raises(StoppedError):
        Robots({}).round(stop=lambda: True)


def test_a_failed_round_begins_anew_when_it_is_called_again():
    robots, journal = (
        Robots({"a": {}, "b": {"answer": FULL}}),
        MemoryJournal(),
    )
    with pytest.raises(QuorumError):
        robots.round(journal=journal)
    robots.robots["b"] = {}

    _, record = robots.round(journal=journal)

    assert outcomes(record) == {"a": "accepted", "b": "accepted"}


def test_whoever_watches_is_told_who_was_asked_and_has_answered():
    told = []

    Robots({"a": {}, "b": {"after": 5, "answer": FULL}, "c": {}}).round(watch=told.append)

    counts = dict.fromkeys((p.asked, p.answered, p.good) for p in told)
    assert list(counts) == [(3, 0, 0), (3, 2, 2), (3, 3, 2)]
    assert {p.deadline for p in told} == {1100.0}
    assert [told[0].awaited, told[-1].awaited] == [["a", "b", "c"], []]
    assert {(p.began, p.waits) for p in told} == {(1000.0, "")}


def test_of_very_many_awaited_robots_some_are_named_in_order_and_one_more_than_a_message_names():
    told, robots = [], [f"r{number:03}" for number in range(40)]

    Robots({name: {} for name in robots}).round(watch=told.append)

    assert told[0].awaited == robots[: NAMED + 1]
    assert told[-1].awaited == []


def test_whoever_watches_a_wait_for_robots_is_told_why_and_when_it_ends():
    told = []

    Robots({"a": {}, "b": {"from": 20}}).round(watch=told.append)

    assert told[0].waits.startswith("1 robot online (a), expected at least 2; see")
    assert (told[0].asked, told[0].began, told[0].deadline) == (0, 1000.0, 1030.0)
    assert told[-1].waits == ""


def test_the_log_says_once_what_became_of_whoever_was_not_accepted(caplog):
    caplog.set_level("INFO", logger="cloud_server")
    robots = Robots(
        {
            "a": {}, "b": {}, "full": {"answer": FULL}, "slow": {"after": 1e6},
            "long": {"answer": update(9.0)},
            "rich": {"answer": update(num_examples=10**9)},
            "wrong": {"answer": update(num_examples=0)},
        }
    )  # fmt: skip

    robots.round(checks=changed(CHECKS, max_norm_ratio=3.0, max_examples_per_robot=10_000))

    lines = [(line.robot, line.getMessage()) for line in caplog.records if hasattr(line, "robot")]
    at_arrival, at_close = lines[:6], lines[6:]
    assert ("full", "round 1: robot full: failed: disk full") in at_arrival
    assert ("wrong", "round 1: robot wrong: refused: it is of 0 examples, expected > 0") in lines
    assert at_close == [
        ("slow", "round 1: robot slow: no reply by the deadline"),
        ("long", "round 1: robot long: its length (L2) 15.59 is cut to 5.196: at most 3 times "
         "the median of recent updates (checks.max_norm_ratio)"),
        ("rich", "round 1: robot rich: 1000000000 examples count as 10: at most as many as the "
         "median robot of the round, so that no robot decides alone (checks.max_examples_ratio)"),
    ]  # fmt: skip


def test_the_log_names_twelve_of_very_many_silent_robots(caplog):
    caplog.set_level("INFO", logger="cloud_server")
    fleet = {f"r{i:03}": {"after": 1e6} for i in range(40)}
    good = {"a": {}, "b": {}, "z": {"answer": update(math.nan)}}

    with pytest.raises(QuorumError):
        Robots(fleet | good).round(changed(RULES, quorum=3))

    lines = [line.getMessage() for line in caplog.records]
    close = [line for line in lines if "received" not in line and "asked" not in line]
    assert close[0] == "round 1: robot z: refused: the update: w holds NaN or infinity, expected " \
        "finite numbers"  # fmt: skip
    assert len(close) == 14
    assert close[-1] == "round 1: and 28 more robots were not accepted"


def test_the_next_checkpoint_remembers_the_last_hundred_lengths():
    known = replace(START, server_state={NORMS: np.arange(99.0), "momentum": np.ones(2)})
    robots = Robots({"a": {}, "b": {"answer": update(2.0)}})

    checkpoint, _ = robots.round(request=replace(REQUEST, checkpoint=known))

    expected = [*range(1, 99), math.sqrt(3), math.sqrt(12)]
    np.testing.assert_array_equal(checkpoint.server_state[NORMS], expected)
    np.testing.assert_array_equal(checkpoint.server_state["momentum"], [1, 1])
    assert known.server_state[NORMS].size == 99
