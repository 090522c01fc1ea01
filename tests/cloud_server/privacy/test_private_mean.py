"""Clipping by hand, and what the noise is."""

import numpy as np
import pytest

from cloud_server.aggregation.aggregator import build_aggregator
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.privacy.private_mean import PrivateMean
from fleet_model.errors import RoundError
from fleet_model.protocol.private import fresh_generator, privately
from fleet_model.types import Checkpoint, Update

pytestmark = pytest.mark.base


class Silent:
    """A generator whose noise is 0."""

    def normal(self, mean, deviation, shape):
        return np.zeros(shape)


def start(numbers=2):
    weights = {"w": np.zeros(numbers, np.float32), "b": np.zeros((), np.float32)}
    return Checkpoint(version=3, weights=weights)


def fold(rule, changes, checkpoint=None, **about):
    pairs = []
    for n, (robot, w, b) in enumerate(changes):
        one = {name: values[n] for name, values in about.items()}
        weights = {"w": np.array(w, np.float32), "b": np.array(b, np.float32)}
        update = Update(robot="", base_version=3, weights=weights, num_examples=1, num_steps=1)
        pairs.append((Contribution(robot=robot, site="", **{"examples": 1, **one}), update))
    return rule.fold(checkpoint or start(), UpdatesInMemory(pairs))


def test_updates_are_clipped_over_all_tensors_and_count_the_same():
    """|(2, 1, 2)| = 3 is cut to 1.5, by a half; |(0, 1, 0)| stays; examples count for nothing."""
    rule = PrivateMean(FedAvg(), 1.5, 1.0, Silent)
    made = fold(rule, [("a", (2, 1), 2), ("b", (0, 1), 0)], examples=[1, 99])
    assert made.weights["w"].tolist() == [0.5, 0.75]
    assert made.weights["b"] == 0.5
    assert made.version == 4


def test_old_updates_count_less_after_clipping_and_a_robot_once():
    rule = PrivateMean(FedAvg(), 1.0, 1.0, Silent)
    changes = [("a", (9, 0), 0), ("a", (0, 4), 0), ("b", (1, 0), 0)]
    made = fold(rule, changes, staleness=[4, 3, 0])
    assert made.weights["w"].tolist() == [0.5, 0.25]  # a: (0, 1) / sqrt(1 + 3)


def test_the_noise_has_the_deviation_that_the_account_knows():
    """Of the sum: noise_multiplier * clip; of the mean of four a fourth of that."""
    rule = PrivateMean(FedAvg(), 2.0, 3.0, lambda: np.random.default_rng(5))
    nothing = [(name, np.zeros(40_000), 0) for name in "abcd"]
    noise = fold(rule, nothing, start(40_000)).weights["w"]
    assert noise.std() == pytest.approx(2.0 * 3.0 / 4, rel=0.02)
    assert abs(noise.mean()) < 0.03
    assert np.abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.02
    again = fold(PrivateMean(FedAvg(), 2.0, 3.0), nothing, start(40_000)).weights["w"]
    assert np.abs(np.corrcoef(noise, again)[0, 1]) < 0.02


def test_noise_is_never_the_same_twice():
    assert fresh_generator().normal() != fresh_generator().normal()


def test_the_rule_sees_one_update_of_nobody():
    seen = []

    class Looks:
        def fold(self, checkpoint, contributions):
            (one,) = contributions
            seen.append((len(contributions), one.robot, one.site, one.examples, one.steps))
            whole = contributions.update(one).weights["w"]
            np.testing.assert_array_equal(contributions.tensor(one, "w"), whole)
            np.testing.assert_array_equal(contributions.numbers(one, "w", 1, 2), whole[1:])
            return checkpoint

    fold(PrivateMean(Looks(), 1.0, 1.0), [("a", (1, 0), 0), ("b", (1, 0), 0)], steps=[9, 7])
    assert seen == [(1, "", "", 1, 1)]


def test_rules_with_momentum_go_on_from_the_private_mean():
    rule = PrivateMean(build_aggregator("fedavgm", {}), 1.0, 1.0, Silent)
    one = fold(rule, [("a", (1, 0), 0)])
    two = fold(rule, [("a", (1, 0), 0)], one)
    assert two.weights["w"].tolist() == pytest.approx([1 + 1.9, 0])


def test_a_round_without_updates_fails():
    with pytest.raises(RoundError, match="no update to average"):
        fold(PrivateMean(FedAvg(), 1.0, 1.0), [])


def test_what_a_robot_sends_is_clipped_and_has_noise_of_its_own():
    weights = {"w": np.full(40_000, 1, np.float32), "b": np.zeros((), np.float32)}
    sent = privately(weights, 2.0, 0.5, np.random.default_rng(1))
    assert sent["w"].dtype == sent["b"].dtype == np.float32
    assert sent["w"].mean() == pytest.approx(2.0 / 200, abs=0.015)
    assert sent["w"].std() == pytest.approx(2.0 * 0.5, rel=0.02)
    assert privately(weights, 2.0, 0.5, Silent())["w"] == pytest.approx(2.0 / 200)
