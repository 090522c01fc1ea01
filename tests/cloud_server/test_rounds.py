"""The round loop alone: the fleet and the clock are fakes, so that hours pass in microseconds."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.aggregation.fedavg import FedAvg
from cloud_server.rounds import Clock, Participant, Reply, RoundRules, mean_metrics, run_round
from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint, TrainConfig, Update
from fleet_model.wire import TrainRequest

RULES = RoundRules(quorum=2, deadline_s=100.0, wait_s=30.0)
START = Checkpoint(version=7, weights={"w": np.zeros(3, np.float32)})
REQUEST = TrainRequest(
    deadline_s=60.0,
    run="run",
    round=1,
    checkpoint=START,
    config=TrainConfig(),
    trainer="",
    trainer_bytes=0,
)


def update(value=1.0, **changes):
    weights = {"w": np.full(3, value, np.float32)}
    good = Update(robot="", base_version=7, weights=weights, num_examples=10, num_steps=2)
    return replace(good, **changes)


class Robots:
    """A fleet and its clock: robot -> when it comes online, when it replies, with what."""

    def __init__(self, robots):
        self.now = 1000.0
        self.begin = self.now
        self.robots = robots
        self.delivered = set()
        self.sent = []

    @property
    def clock(self):
        return Clock(now=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds

    def online(self):
        names = [n for n, r in self.robots.items() if self.now - self.begin >= r.get("from", 0)]
        return [Participant(node_id=hash(n), name=n, site="hall") for n in reversed(names)]

    def send(self, participants, request, ttl_s):
        self.sent.append((request, ttl_s))
        self.asked_at = self.now
        return {f"t-{p.name}": p for p in participants if not self.robots[p.name].get("lost")}

    def replies(self, tickets):
        assert not self.delivered & set(tickets), "asked again for what has arrived"
        arrived = []
        for ticket in tickets:
            robot = self.robots[ticket.removeprefix("t-")]
            if self.now - self.asked_at >= robot.get("after", 0):
                self.delivered.add(ticket)
                answer = robot.get("answer", update())
                given = {"reason" if isinstance(answer, str) else "update": answer}
                arrived.append(Reply(ticket=ticket, **given))
        return sorted(arrived, key=lambda reply: self.robots[reply.ticket[2:]].get("after", 0))

    def round(self, rules=RULES, rule=None):
        return run_round(self, rule or FedAvg(), REQUEST, rules, self.clock)


def outcomes(record):
    return {robot.name: robot.outcome for robot in record.robots}


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

    assert robots.sent == [(REQUEST, 100.0)]


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

    with pytest.raises(RoundError, match=r"1 robots online \(a\), expected at least 2; see"):
        robots.round()
    assert robots.sent == []
    assert 30 <= robots.now - robots.begin < 31


def test_nobody_online_is_said_so():
    with pytest.raises(RoundError, match=r"0 robots online \(none\)"):
        Robots({}).round()


def test_too_few_good_updates_fail_the_round_and_say_who_and_why():
    robots = Robots(
        {
            "a": {},
            "broken": {"answer": "no frames in /camera"},
            "lost": {"lost": True},
            "slow": {"after": 1000},
        }
    )

    with pytest.raises(RoundError) as error:
        robots.round(replace(RULES, quorum=2))

    assert str(error.value) == (
        "round 1: 1 good updates, expected 2 "
        "(a: accepted; broken: no frames in /camera; slow: no reply by the deadline)"
    )


def test_a_round_in_which_nobody_could_be_reached_says_so():
    robots = Robots({"a": {"lost": True}, "b": {"lost": True}})

    with pytest.raises(RoundError, match="no robot was reached"):
        robots.round()


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
    "stale": (update(base_version=6), "trained from version 6, expected 7"),
    "future": (update(base_version=8), "trained from version 8, expected 7"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_a_bad_update_is_refused_and_the_others_count(bad, reason):
    bad = replace(bad, metrics={"accuracy_after": 1.0, "held_out": 1000.0})
    good = update(metrics={"accuracy_after": 0.5, "held_out": 1.0})
    robots = Robots({"a": {"answer": good}, "b": {"answer": good}, "bad": {"answer": bad}})

    checkpoint, record = robots.round()

    np.testing.assert_array_equal(checkpoint.weights["w"], [1, 1, 1])
    refused = next(robot for robot in record.robots if robot.name == "bad")
    assert refused.outcome.startswith("refused: ")
    assert len(refused.outcome) <= 300
    assert re.search(reason, refused.outcome)
    assert record.metrics == {"accuracy_after": 0.5}


def test_updates_that_add_up_to_infinity_do_not_become_a_checkpoint():
    huge = replace(START, weights={"w": np.full(3, 3e38, np.float32)})
    robots = Robots({"a": {"answer": update(3e38)}, "b": {"answer": update(3e38)}})

    with (
        np.errstate(over="ignore"),
        pytest.raises(RoundError, match="aggregator: w holds NaN or infinity"),
    ):
        run_round(robots, FedAvg(), replace(REQUEST, checkpoint=huge), RULES, robots.clock)


class Float32Sum:
    """A rule in which the order of updates shows: it rounds after every one."""

    def begin(self, checkpoint):
        self.sum = checkpoint.weights["w"]

    def add(self, update):
        self.sum = self.sum + update.weights["w"]

    def finish(self):
        return Checkpoint(version=8, weights={"w": self.sum})


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
    robots = Robots({"b": {"answer": measured}, "a": {}, "c": {"answer": "disk full"}})

    _, record = robots.round()
    line = json.loads(json.dumps(record.as_json(), allow_nan=False))

    assert (line["run"], line["round"], line["version"]) == ("run", 1, 8)
    assert [robot["name"] for robot in line["robots"]] == ["a", "b", "c"]
    assert line["robots"][1] == {
        "name": "b",
        "site": "hall",
        "outcome": "accepted",
        "num_examples": 30,
        "num_steps": 6,
        "update_bytes": 12,
        "metrics": {"accuracy_after": 0.75, "held_out": 8.0},
    }
    assert line["robots"][2]["outcome"] == "disk full"
    assert line["metrics"] == {"accuracy_after": 0.75}


def records(*metrics):
    answers = {f"r{i}": {"answer": update(metrics=m)} for i, m in enumerate(metrics)}
    return Robots(answers).round(replace(RULES, quorum=1))[1].robots


def test_metrics_are_weighted_by_the_held_out_examples_behind_them():
    assert mean_metrics(
        records(
            {"accuracy_after": 1.0, "held_out": 1.0},
            {"accuracy_after": 0.0, "held_out": 3.0},
            {"train_loss": 9.0},
        )
    ) == {"accuracy_after": 0.25}


def test_metrics_of_nothing_held_out_are_absent():
    assert mean_metrics(records({"accuracy_after": 1.0}, {})) == {}


@pytest.mark.parametrize("held_out", [-1.0, 1e308])
def test_a_robot_that_lies_about_its_held_out_examples_does_not_break_the_record(held_out):
    means = mean_metrics(
        records({"loss_after": 1e308, "held_out": held_out}, {"loss_after": 1.0, "held_out": 1.0})
    )

    assert means.get("loss_after", 1.0) == 1.0
