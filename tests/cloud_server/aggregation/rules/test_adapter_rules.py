"""Rules of adapters, by hand: one tensor of 2 x 2 numbers with factors of rank 1 or 2."""

import numpy as np
import pytest

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.aggregation.rules.fedex_lora import FedExLora
from cloud_server.aggregation.rules.flora_residual import FloraResidual
from cloud_server.aggregation.rules.flora_stacking import FloraStacking
from cloud_server.aggregation.rules.lora_fair import LoraFair
from fleet_model.adapters.lora import merged
from fleet_model.adapters.spec import LoraSpec
from fleet_model.errors import RoundError, SettingsError
from fleet_model.types import Checkpoint, Update

pytestmark = pytest.mark.base
A, B, R = "w.lora_a", "w.lora_b", "w.lora_residual"


def f32(*rows):
    return np.array(rows, np.float32)


START = {A: f32([1], [1]), B: f32([0, 0]), "bias": f32(1)}
# A_1 = (2, 1), B_1 = (1, 0); A_2 = (0, 1), B_2 = (0, 1)
TWO = [
    {A: f32([1], [0]), B: f32([1, 0]), "bias": f32(1)},
    {A: f32([-1], [0]), B: f32([0, 1]), "bias": f32(3)},
]


def fold(rule, start, changes, examples=(1, 1), staleness=(0, 0)):
    pairs = []
    for n, change in enumerate(changes):
        if R in start:  # as the server gives it: nobody sends one
            change = {**change, R: np.zeros_like(start[R])}
        update = Update(robot="", base_version=4, weights=change, num_examples=1, num_steps=1)
        one = Contribution(
            robot=f"r{n}", site="", examples=examples[n], staleness=staleness[n], norm=1
        )
        pairs.append((one, update))
    checkpoint = Checkpoint(version=4, weights=start, seed=3)
    return rule.fold(checkpoint, UpdatesInMemory(pairs))


def test_fedex_puts_what_the_means_lose_into_the_residual():
    """Means: A = (1, 1), B = (.5, .5), A B = [[.5, .5], [.5, .5]].

    Products: [[2, 0], [1, 0]] and [[0, 0], [0, 1]]; their mean [[1, 0], [.5, .5]].
    """
    weights = fold(FedExLora(), START, TWO).weights
    assert weights[A].tolist() == [[1], [1]]
    assert weights[B].tolist() == [[0.5, 0.5]]
    assert weights[R].tolist() == [[0.5, -0.5], [0, 0]]
    assert weights["bias"].tolist() == [3]


def test_fedex_counts_examples_and_keeps_the_residual_of_earlier_rounds():
    """With 3 of 4 examples: A = (.5, 1), B = (.25, .75); mean product [[.5, 0], [.25, .75]]."""
    weights = fold(FedExLora(), {**START, R: f32([1, 1], [1, 1])}, TWO, examples=(1, 3)).weights
    assert weights[R].tolist() == [[1.375, 0.625], [1, 1]]


def test_fedex_halves_an_update_that_is_three_versions_old():
    """The first robot then has A_1 = (1.5, 1), B_1 = (.5, 0): [[.75, 0], [.5, 0]].

    Means: A = (.75, 1), B = (.25, .5), A B = [[.1875, .375], [.25, .5]].
    """
    weights = fold(FedExLora(), START, TWO, staleness=(3, 0)).weights
    assert weights[R].tolist() == [[0.1875, -0.375], [0, 0]]


@pytest.mark.parametrize("rule", [FedExLora(), FloraStacking()], ids=["fedex", "stacking"])
def test_the_new_w_is_the_mean_of_the_robots_own(rule):
    """Over three rounds, for a convolution; FedAvg beside it is far off."""
    random = np.random.default_rng(6)
    spec = LoraSpec(rank=3, alpha=6, targets={"w": (3, 3, 4, 5)})
    base = {"w": random.normal(size=(3, 3, 4, 5)).astype(np.float32)}
    weights = {n: random.normal(size=s).astype(np.float32) for n, s in spec.factors.items()}
    for _ in range(3):
        changes = [
            {n: random.normal(size=s).astype(np.float32) for n, s in spec.factors.items()}
            for _ in range(4)
        ]
        shares = np.array([1, 2, 3, 4]) / 10
        own = [
            merged(spec, {**weights, **{n: weights[n] + d for n, d in one.items()}}, base)["w"]
            for one in changes
        ]
        expected = sum(share * w.astype(np.float64) for share, w in zip(shares, own, strict=True))
        examples, fresh = (1, 2, 3, 4), (0, 0, 0, 0)
        plain = fold(FedAvg(), weights, changes, examples, fresh).weights
        weights = fold(rule, weights, changes, examples, fresh).weights
        scale = np.abs(expected).max()
        assert np.abs(merged(spec, weights, base)["w"] - expected).max() < 1e-6 * scale
        assert np.abs(merged(spec, plain, base)["w"] - expected).max() > 0.1 * scale


def test_stacking_begins_new_adapters_after_each_round():
    first = fold(FloraStacking(), START, TWO).weights
    assert first[R].tolist() == [[1, 0], [0.5, 0.5]]
    assert first[B].tolist() == [[0, 0]]
    again = fold(FloraStacking(), START, TWO).weights
    assert np.array_equal(first[A], again[A])
    assert not np.array_equal(first[A], START[A])
    assert np.sqrt(np.square(first[A]).mean()) == pytest.approx(1)  # as large as it was
    assert first["bias"].tolist() == [3]


def test_stacking_takes_robots_of_different_ranks_without_noise():
    """The first trains one column of A; its other row of B stays zero: that column adds nothing.

    A_1 = [[2, 5], [1, 5]], B_1 = [[1, 0], [0, 0]]: [[2, 0], [1, 0]].
    A_2 = [[1, 6], [1, 5]], B_2 = [[1, 1], [0, 1]]: [[1, 7], [1, 6]].
    """
    start = {A: f32([1, 5], [1, 5]), B: f32([0, 0], [0, 0])}
    one = {A: f32([1, 0], [0, 0]), B: f32([1, 0], [0, 0])}
    two = {A: f32([0, 1], [0, 0]), B: f32([1, 1], [0, 1])}
    weights = fold(FloraStacking(), start, [one, two]).weights
    assert weights[R].tolist() == [[1.5, 3.5], [1, 3]]


def test_stacking_leaves_out_what_began_from_other_adapters(caplog):
    weights = fold(FloraStacking(), START, TWO, staleness=(0, 1)).weights
    assert weights[R].tolist() == [[2, 0], [1, 0]]
    assert "left out, as they began from other adapters: r1" in caplog.text
    with pytest.raises(RoundError, match="no update of this version"):
        fold(FloraStacking(), START, TWO, staleness=(1, 1))


def test_fair_corrects_b_towards_the_mean_of_products():
    """A = (1, 1), M - A B = [[.5, -.5], [0, 0]]; A^T A = 2, A^T (M - A B) = (.5, -.5).

    Without regularization D = (.25, -.25); with 1 times the eigenvalue 2, half of it.
    """
    exact = fold(LoraFair(regularization=0), START, TWO).weights
    assert exact[B].tolist() == [[0.75, 0.25]]
    half = fold(LoraFair(regularization=1), START, TWO).weights
    assert half[B].tolist() == [[0.625, 0.375]]
    assert half[A].tolist() == [[1], [1]]
    assert half.keys() == START.keys()


def test_fair_without_regularization_is_the_nearest_b():
    random = np.random.default_rng(2)
    start = {A: random.normal(size=(6, 2)).astype(np.float32), B: np.zeros((2, 4), np.float32)}
    changes = [{n: random.normal(size=t.shape).astype(np.float32) for n, t in start.items()}
               for _ in range(2)]  # fmt: skip
    weights = fold(LoraFair(regularization=0), start, changes).weights
    mean = sum((start[A] + one[A]) @ (start[B] + one[B]) for one in changes) / 2
    nearest, *_ = np.linalg.lstsq(weights[A], mean, rcond=None)
    assert weights[B] == pytest.approx(nearest, abs=1e-5)


def test_fair_takes_an_a_with_equal_columns():
    start = {A: f32([1, 1], [1, 1]), B: f32([0, 0], [0, 0])}
    one = {A: f32([0, 0], [0, 0]), B: f32([2, 0], [2, 0])}
    assert np.isfinite(fold(LoraFair(0), start, [one, one]).weights[B]).all()


def test_a_negative_regularization_is_refused():
    with pytest.raises(SettingsError, match="regularization is -1, expected 0 or more"):
        LoraFair(regularization=-1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 1.2), ({"momentum": 0.5}, 2), ({"use_residual": False}, 3), ({"momentum": 1}, 3)],
)
def test_of_the_mean_residual_a_part_counts(options, expected):
    """The mean of 1 and 3 is 2, added to 1: a tenth, a half, all of it."""
    assert fold(FloraResidual(**options), START, TWO).weights["bias"] == pytest.approx(expected)


@pytest.mark.parametrize("momentum", [0, 1.1, -0.1])
def test_a_momentum_that_is_no_part_is_refused(momentum):
    with pytest.raises(SettingsError, match="momentum is"):
        FloraResidual(momentum=momentum)
