"""The virtual robots' head: what is computed in few axes is what the full head would do."""

import numpy as np
import pytest

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.simulation import learning
from cloud_server.simulation.learning import BIAS, KERNEL, LABELS, LATENT, WIDTH, HeadTask
from fleet_model.types import TrainConfig
from fleet_model.weights import add, require_same_tensors

EVEN = np.full(LABELS, 1 / LABELS)


@pytest.fixture(scope="module")
def task():
    return HeadTask(seed=0)


def test_version_zero_is_a_head_of_25_6_kilobytes_that_knows_nothing(task):
    start = task.start()
    assert start.version == 0
    assert start.weights[KERNEL].nbytes == 25_600
    loss, accuracy = task.score(start.weights)
    assert loss == pytest.approx(np.log(LABELS))
    assert accuracy < 0.3


def test_an_update_fits_the_checkpoint_and_counts_its_examples_and_steps(task):
    start = task.start()
    update = task.fit(3, 100, EVEN, start, TrainConfig(epochs=2, batch_size=32))
    require_same_tensors(start.weights, update.weights, sender="robot")
    assert (update.base_version, update.num_examples, update.num_steps) == (0, 100, 8)
    assert update.metrics["held_out"] == 20
    assert update.metrics["loss_after"] < update.metrics["loss_before"]


def test_the_same_robot_learns_the_same_to_the_last_bit_and_another_one_something_else(task):
    first, again, other = (task.fit(r, 50, EVEN, task.start(), TrainConfig()) for r in (1, 1, 2))
    np.testing.assert_array_equal(first.weights[KERNEL], again.weights[KERNEL])
    assert not np.array_equal(first.weights[KERNEL], other.weights[KERNEL])


def full_descent(task, robot, count, checkpoint, config):
    """Train the whole head on features of WIDTH numbers, as a robot does."""
    rng = np.random.default_rng([task._seed, 1, robot])
    own = task._draw(rng, count, EVEN)
    features = own.latent @ task._basis  # (count, WIDTH)
    assert features.shape == (count, WIDTH)
    kernel, bias = checkpoint.weights[KERNEL].copy(), checkpoint.weights[BIAS].copy()
    origin, velocity = (kernel.copy(), bias.copy()), [np.zeros_like(kernel), np.zeros_like(bias)]
    order = np.random.default_rng([task._seed, 2, robot, checkpoint.version, config.seed])
    shares = (np.bincount(own.label, minlength=LABELS) + 0.5) / (count + 0.5 * LABELS)
    adjustment = config.logit_adjustment * np.log(shares)
    for _ in range(config.epochs):
        shuffled = order.permutation(count)
        for begin in range(0, count, config.batch_size):
            rows = shuffled[begin : begin + config.batch_size]
            x = features[rows]
            wrong = (
                learning._softmax(x @ kernel + bias + adjustment) - np.eye(LABELS)[own.label[rows]]
            )
            gradients = [x.T @ wrong / len(rows), wrong.mean(axis=0)]
            gradients[0] += config.proximal_mu * (kernel - origin[0])
            gradients[1] += config.proximal_mu * (bias - origin[1])
            length = np.sqrt(sum((g**2).sum() for g in gradients))
            if config.clip_norm:
                gradients = [g * min(1, config.clip_norm / length) for g in gradients]
            for v, g in zip(velocity, gradients, strict=True):
                v *= config.momentum
                v -= config.learning_rate * g
            kernel, bias = kernel + velocity[0], bias + velocity[1]
    return {KERNEL: kernel - origin[0], BIAS: bias - origin[1]}


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(epochs=2, learning_rate=0.1),
        TrainConfig(epochs=2, learning_rate=0.1, proximal_mu=0.5, clip_norm=0.1),
        TrainConfig(epochs=2, learning_rate=0.1, logit_adjustment=0.7),
    ],
    ids=["plain", "proximal and clipped", "own shares"],
)
def test_few_axes_give_the_update_that_the_full_head_gives(task, config):
    start = task.start()
    moved = task.fit(9, 60, EVEN, start, TrainConfig())  # not from zeros
    checkpoint = type(start)(version=1, weights=add(start.weights, moved.weights))
    update = task.fit(1, 70, EVEN, checkpoint, config)
    expected = full_descent(task, 1, 70, checkpoint, config)
    for name in (KERNEL, BIAS):
        np.testing.assert_allclose(update.weights[name], expected[name], rtol=1e-3, atol=1e-6)


def test_robots_with_one_label_each_learn_together_what_none_learns_alone(task):
    start, config = task.start(), TrainConfig(epochs=10, learning_rate=0.05)
    mixes = np.eye(LABELS)
    checkpoint = start
    for _ in range(15):
        updates = UpdatesInMemory(
            [
                (
                    Contribution(robot=str(robot), site="", examples=200),
                    task.fit(robot, 200, mix, checkpoint, config),
                )
                for robot, mix in enumerate(mixes)
            ]
        )
        checkpoint = FedAvg().fold(checkpoint, updates)
    alone = add(start.weights, task.fit(0, 200, mixes[0], start, config).weights)
    assert task.score(alone)[1] < 0.3
    assert task.score(checkpoint.weights)[1] > 0.6


def test_labels_come_in_the_shares_of_the_mix(task):
    mix = np.array([0.7, 0.0, 0.3, 0.0, 0.0])
    drawn = task._draw(np.random.default_rng(0), 10_000, mix)
    shares = np.bincount(drawn.label, minlength=LABELS) / 10_000
    np.testing.assert_allclose(shares, mix, atol=0.02)
    assert drawn.latent.shape == (10_000, LATENT)
