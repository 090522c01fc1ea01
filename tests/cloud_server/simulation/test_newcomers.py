"""Robots with something new, and robots that claim too much, over rounds of real learning.

The labels of `learning.py` are pulled apart, so that a fleet has learned all it knows long before
the newcomer joins: its updates are then hundreds of times as long as those of the others.
"""

from dataclasses import replace

import numpy as np
import pytest
from timed_robots import Robots, changed

from cloud_server.models.own_weights import Rows
from cloud_server.rounds.round_journal import MemoryJournal
from cloud_server.simulation import learning
from cloud_server.simulation.learning import BIAS, KERNEL, HeadTask
from cloud_server.state.learning_settings import CheckSettings
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import TrainConfig

CHECKS = CheckSettings()
UNBOUND = changed(CHECKS, max_norm_ratio=0)
OLD, NEW = (0, 1, 2), (3, 4)
ALONE, GAINED = (0, 0, 0, 0.5, 0.5), (0.2, 0.2, 0.2, 0.2, 0.2)
KNOWN = (1 / 3, 1 / 3, 1 / 3, 0, 0)
EXAMPLES = 60


@pytest.fixture
def task(monkeypatch):
    monkeypatch.setattr(learning, "DISTANCE", 1.0)
    return HeadTask(0)


class Course:
    """Rounds of a fleet; `mixes` may be changed between them."""

    def __init__(self, task, mixes, checks=CHECKS):
        self.task, self.mixes, self.checks = task, dict(mixes), checks
        self.robots, self.journal = Robots({}), MemoryJournal()
        self.checkpoint, self.record = task.start(), None
        for name in mixes:
            self.robots.robots[name] = {"answer": self._answer(name)}

    def _answer(self, name):
        number = sorted(self.mixes).index(name)

        def train(request):
            mix = np.array(self.mixes[name])
            return self.task.fit(number, EXAMPLES, mix, request.checkpoint, request.config)

        return train

    def join(self, name, mix):
        self.mixes[name] = mix
        self.robots.robots[name] = {"answer": self._answer(name)}

    def close(self, rounds):
        for _ in range(rounds):
            version = self.checkpoint.version
            request = RobotRequest(
                deadline_s=60.0, run="run", round=version + 1, checkpoint=self.checkpoint,
                config=TrainConfig(learning_rate=0.1, seed=version), trainer="", trainer_bytes=0,
            )  # fmt: skip
            self.checkpoint, self.record = self.robots.round(
                request=request, checks=self.checks, journal=self.journal
            )
            self.journal.close(version + 1)

    def accuracy(self, labels):
        return accuracy(self.task, self.checkpoint.weights, labels)


def accuracy(task, weights, labels):
    """Return the share of right answers on examples of these labels that no robot has."""
    kernel, test = task._basis @ weights[KERNEL], task._test
    mine = np.isin(test.label, labels)
    answers = (test.latent[mine] @ kernel + weights[BIAS]).argmax(axis=1)
    return float((answers == test.label[mine]).mean())


def newcomer(task, checks):
    course = Course(task, {"a": KNOWN, "b": KNOWN}, checks)
    course.close(40)
    course.join("new", ALONE)
    return course


def gains_labels(task, checks):
    course = Course(task, {"a": KNOWN, "b": KNOWN}, checks)
    course.close(40)
    course.mixes["b"] = GAINED
    return course


def labels_are_added(task, checks):
    """As `cloud-server labels add` does: the fleet has never had the rows of the new labels."""
    course = Course(task, {"a": KNOWN, "b": KNOWN}, checks)
    course.close(40)
    rows = Rows([f"{one}" for one in OLD + NEW], {KERNEL: 1, BIAS: 0})
    old = [f"{one}" for one in OLD]
    weights = {
        name: rows.placed(name, tensor[..., : len(OLD)], old)
        for name, tensor in course.checkpoint.weights.items()
    }
    course.checkpoint = replace(course.checkpoint, weights=weights, server_state={})
    course.join("new", ALONE)
    return course


@pytest.mark.parametrize("story", [newcomer, gains_labels, labels_are_added])
def test_new_labels_are_learned_as_fast_as_without_a_bound_and_cost_the_old_ones_nothing(
    story, task
):
    bound, unbound = story(task, CHECKS), story(task, UNBOUND)
    before = bound.accuracy(OLD)
    assert bound.accuracy(NEW) < 0.1

    for course in (bound, unbound):
        course.close(8)

    assert bound.accuracy(NEW) >= max(0.8, unbound.accuracy(NEW) - 0.05)
    assert bound.accuracy(OLD) >= before - 0.03
    assert all(robot.accepted for robot in bound.record.robots)


def test_a_robot_with_new_labels_is_accepted_and_told_when_its_update_is_cut(task):
    course = newcomer(task, changed(CHECKS, max_norm_of_model=0.1))

    course.close(1)

    cut = next(robot for robot in course.record.robots if robot.name == "new")
    assert cut.accepted
    assert 0 < cut.cut_to < cut.norm / 3
    assert cut.outcome.text.startswith("accepted, but its length (L2) ")


HONEST = {f"r{number}": GAINED for number in range(6)}


def with_hostile(task, claim, checks=CHECKS):
    """One more robot has shifted every label by one, and claims `claim` examples."""
    course = Course(task, HONEST, checks)
    train = course._answer("r0")

    def shifted(request):
        weights = {name: np.roll(w, -1, -1) for name, w in request.checkpoint.weights.items()}
        update = train(replace(request, checkpoint=replace(request.checkpoint, weights=weights)))
        back = {name: np.roll(w, 1, -1) for name, w in update.weights.items()}
        praise = {**update.metrics, "accuracy_after": 1.0, "held_out": float(claim)}
        return replace(update, weights=back, num_examples=claim, metrics=praise)

    course.robots.robots["hostile"] = {"answer": shifted}
    course.close(8)
    return course


def test_the_largest_claim_gives_a_robot_no_more_than_its_share(task):
    alone = Course(task, HONEST)
    alone.close(8)

    hostile, modest = (
        with_hostile(task, claim) for claim in (CHECKS.max_examples_per_robot, EXAMPLES)
    )

    np.testing.assert_array_equal(
        hostile.checkpoint.weights[KERNEL], modest.checkpoint.weights[KERNEL]
    )
    assert hostile.accuracy(OLD + NEW) >= alone.accuracy(OLD + NEW) - 0.02
    record = next(robot for robot in hostile.record.robots if robot.name == "hostile")
    assert record.outcome.text.startswith(f"accepted, but 10000 examples count as {EXAMPLES}: ")
    low, high = hostile.record.spread["accuracy_after"]
    assert low < high == 1.0


def test_without_the_bound_the_same_claim_takes_the_model_over(task):
    unbound = with_hostile(task, 10_000, changed(CHECKS, max_examples_ratio=0))

    assert unbound.accuracy(OLD + NEW) < 0.2
