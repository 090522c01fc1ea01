"""SCAFFOLD's arithmetic, by hand."""

import numpy as np
import pytest

from fleet_model.optimizer import step, still
from fleet_model.protocol.control import (
    after_training,
    correction,
    no_tag,
    reach,
    tag_of,
)
from fleet_model.types import TrainConfig

pytestmark = pytest.mark.base


def tensors(*numbers):
    return {"w": np.array(numbers, np.float32)}


def trained(gradients, config, by=None):
    """Return the change of weights by steps with these gradients, whatever the weights are."""
    start = tensors(10, 20)
    weights, velocity = start, still(start)
    for gradient in gradients:
        weights, velocity = step(weights, velocity, tensors(*gradient), start, config, by)
    return {"w": weights["w"] - start["w"]}


def test_without_momentum_the_reach_is_the_number_of_steps():
    assert [reach(steps, 0.0) for steps in (1, 2, 40)] == [1, 2, 40]


def test_with_momentum_early_steps_carry_on():
    """r = .5, three steps: a = 1 + .5 + .25, 1 + .5, 1: 4.25 in all."""
    assert reach(3, 0.5) == pytest.approx(4.25)


def test_option_two_by_hand():
    """K = 2, rate .1, c - c_i = (1, -1); the robot's own gradients (2, 0), (4, 2).

    It moves by -.1 * ((2 + 1) + (4 + 1), (0 - 1) + (2 - 1)) = (-.8, 0);
    c_i <- -(1, -1) + (.8, 0) / (2 * .1) = (3, 1), the mean of its own gradients.
    """
    config = TrainConfig(learning_rate=0.1, momentum=0.0)
    by = correction(own=tensors(0, 3), mean=tensors(1, 2))
    assert by["w"].tolist() == [1, -1]
    change = trained([(2, 0), (4, 2)], config, by)
    assert change["w"] == pytest.approx([-0.8, 0], abs=1e-5)
    assert after_training(by, change, config, 2)["w"] == pytest.approx([3, 1], abs=1e-4)


def test_with_momentum_it_is_the_mean_by_how_far_each_gradient_carried():
    """r = .5: a = (1.75, 1.5, 1): (1.75 * 2 + 1.5 * 4 + 1 * 8) / 4.25 = 17.5 / 4.25."""
    config = TrainConfig(learning_rate=0.1, momentum=0.5)
    by = tensors(5, -5)
    change = trained([(2, 0), (4, 0), (8, 0)], config, by)
    made = after_training(by, change, config, 3)
    assert made["w"] == pytest.approx([17.5 / 4.25, 0], abs=1e-4)


def test_without_a_correction_it_is_the_mean_gradient():
    config = TrainConfig(learning_rate=0.1, momentum=0.0)
    change = trained([(2, 0), (4, 2)], config)
    assert after_training(None, change, config, 2)["w"] == pytest.approx([3, 1], abs=1e-4)


def test_clipping_is_of_the_robots_own_step_and_what_is_left_is_its_mean():
    """|(3, 4)| = 5 is clipped to (.6, .8), and only then corrected."""
    config = TrainConfig(learning_rate=1.0, momentum=0.0, clip_norm=1.0)
    by = tensors(10, 10)
    change = trained([(3, 4)], config, by)
    assert change["w"] == pytest.approx([-10.6, -10.8])
    assert after_training(by, change, config, 1)["w"] == pytest.approx([0.6, 0.8], abs=1e-5)


def test_tags_of_different_numbers_differ_and_none_is_zero():
    numbers = [0, 1, 2**24, 2**24 + 1, 2**48 - 1]
    tags = [tag_of(number) for number in numbers]
    assert np.array_equal(tags[0], no_tag())
    assert len({tuple(tag.tolist()) for tag in tags}) == len(numbers)
    assert all(tag.dtype == np.float32 for tag in tags)
