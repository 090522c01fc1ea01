"""SCAFFOLD by hand, and against Algorithm 1 written down as the paper has it."""

import logging

import numpy as np
import pytest

from cloud_server.aggregation.asked import asking
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.aggregation.rules.scaffold import Scaffold
from cloud_server.simulation.control import VirtualControls
from fleet_model.errors import SettingsError
from fleet_model.optimizer import step, still
from fleet_model.protocol.control import (
    BEGAN,
    CONTROL,
    FOLDED,
    MADE,
    TAGS,
    tag_of,
)
from fleet_model.types import Checkpoint, TrainConfig, Update

pytestmark = pytest.mark.base
ZERO = Checkpoint(version=0, weights={"w": np.zeros(2, np.float32)})
CONFIG = TrainConfig(learning_rate=0.05, momentum=0.0)


def sent(control, began=0, made=1, change=(0, 0)):
    """Return an update of w and of a control variate; tags by their numbers."""
    tags = {BEGAN: tag_of(began), MADE: tag_of(made)}
    groups = {CONTROL: {"w": np.array(control, np.float32)}, TAGS: tags}
    weights = {"w": np.array(change, np.float32)}
    return Update(
        robot="", base_version=0, weights=weights, num_examples=1, num_steps=1, groups=groups
    )


def folded(checkpoint, updates, rule=None, **about):
    pairs = [
        (Contribution(robot=name, site="", **{"examples": 1, **about.get(name, {})}), one)
        for name, one in updates.items()
    ]
    return (rule or Scaffold()).fold(checkpoint, UpdatesInMemory(pairs))


def c_of(checkpoint):
    return Scaffold().asks(checkpoint).groups[CONTROL]["w"].tolist()


def tags_of(checkpoint):
    return Scaffold().asks(checkpoint).groups[TAGS][FOLDED].tolist()


def test_two_rounds_by_hand():
    """c = ((2, 0) + (4, 2)) / 2 = (3, 1); then a changes by (2, 2), so c by (1, 1).

    w moves by half of the mean change whatever the examples are: .5 * ((1, 1) + (3, 5)) / 2.
    """
    rule = Scaffold(learning_rate=0.5)
    first = {"a": sent((2, 0), made=1, change=(1, 1)), "b": sent((4, 2), made=2, change=(3, 5))}
    one = folded(ZERO, first, rule, a={"examples": 90})
    assert one.weights["w"].tolist() == [1, 1.5]
    assert c_of(one) == [3, 1]
    assert tags_of(one) == [[0, 1], [0, 2]]
    two = folded(one, {"a": sent((2, 2), began=1, made=3)}, rule)
    assert c_of(two) == [4, 2]
    assert tags_of(two) == [[0, 3], [0, 2]]


def test_a_robot_that_joins_makes_the_mean_one_of_more():
    one = folded(ZERO, {"a": sent((2, 0))})
    two = folded(one, {"b": sent((6, 2), made=2)})
    assert c_of(two) == [4, 1]


def test_old_updates_count_less_in_the_weights():
    updates = {"a": sent((0, 0), change=(4, 4))}
    assert folded(ZERO, updates, a={"staleness": 3}).weights["w"].tolist() == [2, 2]


def test_a_robot_that_has_lost_its_own_takes_part_and_c_keeps_the_last_one(caplog):
    both = {"a": sent((2, 0), made=1), "b": sent((4, 2), made=2)}
    one = folded(ZERO, both)
    with caplog.at_level(logging.INFO):
        two = folded(
            one, {"a": sent((5, 5), made=9, change=(1, 0)), "b": sent((0, 2), began=2, made=3)}
        )
    assert c_of(two) == [3, 2]  # of b alone: + (0, 2) / 2
    assert tags_of(two) == [[0, 1], [0, 3]]
    assert two.weights["w"].tolist() == [0.5, 0]
    assert caplog.messages == ["a has lost its control variate: c keeps its last one"]


def test_when_most_have_lost_theirs_c_begins_anew(caplog):
    one = folded(ZERO, {"a": sent((2, 0), made=1), "b": sent((4, 2), made=2)})
    with caplog.at_level(logging.WARNING):
        two = folded(one, {"a": sent((6, 6), made=8)})
    assert (c_of(two), tags_of(two)) == ([6, 6], [[0, 8]])
    assert caplog.messages == ["most robots have lost their control variates (a): c begins anew"]


def test_what_began_from_nothing_that_c_holds_is_left_out():
    one = folded(ZERO, {"a": sent((2, 0), made=1)})
    two = folded(one, {"a": sent((5, 5), began=77, made=2)})
    assert (c_of(two), tags_of(two)) == ([2, 0], [[0, 1]])


def test_a_change_that_is_far_longer_than_all_others_is_left_out_and_named(caplog):
    """|(2, 0)| = 2 is the lower median: 10 times 2 counts, more does not."""
    updates = {
        "a": sent((2, 0), made=1),
        "b": sent((0, 2), made=2),
        "bad": sent((300, 400), made=3, change=(3, 3)),
    }
    with caplog.at_level(logging.WARNING):
        one = folded(ZERO, updates)
    assert (c_of(one), tags_of(one)) == ([1, 1], [[0, 1], [0, 2]])
    assert one.weights["w"].tolist() == [1, 1]  # its weights are for the checks to judge
    assert caplog.messages == [
        "bad: its control variate changes by 500 (L2), at most 20 counts (max_control_ratio): it "
        "is left out of c"
    ]
    # A fleet that hardly changes any more takes a newcomer: it was 2 once.
    two = folded(one, {"a": sent((0, 0), began=1, made=5), "c": sent((9, 0), made=6)})
    assert c_of(two) == pytest.approx([11 / 3, 2 / 3])


def test_replies_to_another_rule_count_without_and_a_robot_that_could_keep_nothing():
    plain = Update(
        robot="", base_version=0, weights={"w": np.ones(2, np.float32)}, num_examples=1,
        num_steps=1,
    )  # fmt: skip
    one = folded(ZERO, {"a": plain, "b": sent((0, 0), made=0)})
    assert one.weights["w"].tolist() == [0.5, 0.5]
    assert (c_of(one), tags_of(one)) == ([0, 0], [])


def test_a_model_of_other_shapes_begins_anew():
    one = folded(ZERO, {"a": sent((2, 0))})
    grown = Checkpoint(
        version=1, weights={"w": np.zeros(3, np.float32)}, server_state=one.server_state
    )
    assert (c_of(grown), tags_of(grown)) == ([0, 0, 0], [])


def test_requests_of_other_rules_stay_as_they_are():
    request = object()
    assert asking(request, FedAvg()) is request


@pytest.mark.parametrize("options", [{"learning_rate": 0}, {"max_control_ratio": 0.5}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(SettingsError, match=f"{next(iter(options))} is "):
        Scaffold(**options)


class Robot:
    """Minimizes (w - target)' diag(curvature) (w - target) / 2, and keeps its c_i."""

    def __init__(self, name, target, curvature, config, controls):
        self.name, self.config, self.controls = name, config, controls
        self.target, self.curvature = np.float32(target), np.float32(curvature)

    def answer(self, checkpoint, groups):
        def fit(towards):
            weights, velocity = start, still(start)
            for _ in range(4):
                slope = {"w": self.curvature * (weights["w"] - self.target)}
                weights, velocity = step(weights, velocity, slope, start, self.config, towards)
            change = {"w": weights["w"] - start["w"]}
            return Update(robot="", base_version=0, weights=change, num_examples=1, num_steps=4)

        start = checkpoint.weights
        return self.controls.train(ord(self.name), groups, self.config, fit)


ROBOTS = {"a": ((4, -2), (1, 3)), "b": ((-1, 5), (2, 0.5)), "c": ((0, 1), (5, 1))}


def reference(rounds, rate=0.05, steps=4):
    """Algorithm 1 with option II, float64, as the paper has it; yields x after each round.

    `rounds` has the robots whose replies arrive, by round. In the first round of a robot
    c - c_i is taken as 0, and N is the number of those that have had one.
    """
    x, c, own = np.zeros(2), np.zeros(2), {}
    for names in rounds:
        changes, deltas = [], []
        for name in names:
            target, curvature = map(np.array, ROBOTS[name])
            ci, y = own.get(name, c), x.copy()
            for _ in range(steps):
                y = y - rate * (curvature * (y - target) - ci + c)
            plus = ci - c + (x - y) / (steps * rate)
            changes.append(y - x)
            deltas.append(plus - own.get(name, 0 * c))
            own[name] = plus
        x = x + np.mean(changes, axis=0)
        c = np.mean(list(own.values()), axis=0)
        yield x


def course(rounds, lost=(), config=CONFIG):
    """Yield w after each round of the rule; `lost` has (round, robot) whose reply is lost."""
    controls = VirtualControls()
    robots = {name: Robot(name, *about, config, controls) for name, about in ROBOTS.items()}
    rule, checkpoint = Scaffold(), ZERO
    for number, names in enumerate(rounds):
        groups = rule.asks(checkpoint).groups
        replies = {name: robots[name].answer(checkpoint, groups) for name in names}
        arrived = {n: one for n, one in replies.items() if (number, n) not in lost}
        checkpoint = folded(checkpoint, arrived)
        yield checkpoint.weights["w"]


@pytest.mark.parametrize(
    "rounds",
    [["abc"] * 12, ["ab", "c", "ac", "abc", "b", "abc", "a", "bc"] * 2],
    ids=["all", "some"],
)
def test_it_is_algorithm_1(rounds):
    for ours, theirs in zip(course(rounds), reference(rounds), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_reply_that_is_lost_is_as_if_it_had_never_been_made():
    """The robot had written its new c_i; the next request does not name it."""
    rounds = ["abc"] * 6
    arrived = ["abc", "abc", "ab", "abc", "bc", "abc"]
    ours = course(rounds, lost={(2, "c"), (4, "a")})
    for mine, theirs in zip(ours, reference(arrived), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_it_ends_where_the_mean_of_all_losses_is_least_which_fedavg_does_not(momentum):
    config = TrainConfig(learning_rate=0.05, momentum=momentum)
    curvatures = np.array([curvature for _, curvature in ROBOTS.values()])
    targets = np.array([target for target, _ in ROBOTS.values()])
    least = (curvatures * targets).sum(0) / curvatures.sum(0)
    *_, ours = course(["abc"] * 200, config=config)
    np.testing.assert_allclose(ours, least, atol=1e-3)
    controls, checkpoint = VirtualControls(), ZERO
    robots = [Robot(n, *about, config, controls) for n, about in ROBOTS.items()]
    for _ in range(200):
        groups = Scaffold().asks(ZERO).groups
        updates = {one.name: one.answer(checkpoint, groups) for one in robots}
        checkpoint = folded(checkpoint, updates, FedAvg())
    assert np.abs(checkpoint.weights["w"] - least).max() > 0.05


def test_what_robots_do_not_train_has_no_control_variate():
    weights = {"w": np.ones(2, np.float32), "w.lora_residual": np.ones((2, 2), np.float32)}
    asked = Scaffold().asks(Checkpoint(version=1, weights=weights))
    assert set(asked.groups[CONTROL]) == {"w"}
    assert set(asked.reply_groups[CONTROL]) == {"w"}
