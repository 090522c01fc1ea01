"""The parts of benchmarks/heads.py that can be wrong without anyone noticing."""

import numpy as np
import pytest

from benchmarks import heads
from benchmarks.closed_heads import Doubts, digit_accuracy, digit_sums, halves, turned
from benchmarks.digit_fleet import (
    ATTACKS,
    CLASSES,
    MEASURED,
    NAMED,
    Digits,
    contributions_of,
    digit_fleet,
    fit,
    hostile,
    learn,
)
from fleet_model.types import TrainConfig
from fleet_model.weights import l2_norm


@pytest.fixture(scope="module")
def digits():
    """Features of eight numbers in which each class has a direction of its own."""
    rng = np.random.default_rng(2)
    classes = np.arange(MEASURED + 400) % CLASSES
    features = np.eye(CLASSES, dtype=np.float32)[classes] * 3
    return Digits(features + rng.normal(0, 1, features.shape).astype(np.float32), classes)


def test_each_picture_is_dealt_once_and_none_that_trains_measures(digits):
    numbered = Digits(np.arange(len(digits.classes), dtype=np.float32)[:, None], digits.classes)

    fleet = digit_fleet(numbered, seed=1, skew=0.5)

    dealt = [float(x) for own in (*fleet.robots, fleet.measured) for x in own.features[:, 0]]
    assert sorted(dealt) == list(range(len(digits.classes)))
    assert len(fleet.measured.classes) == MEASURED


def test_a_fleet_learns(digits):
    fleet = digit_fleet(digits, seed=1, skew=0.5)

    learned = learn(fleet, "fedavg", {}, tau=1.0, exchanges=3)

    assert fleet.accuracy(fleet.first().weights) < 0.2
    assert fleet.accuracy(learned) > 0.8


def test_hostile_updates_are_as_long_as_the_server_lets_them_be(digits):
    fleet = digit_fleet(digits, seed=1, skew=0.5)
    honest = fit(fleet.robots[0], fleet.first(), TrainConfig()).weights

    flipped = hostile("flipped", honest, 5.0, [1])
    assert all(np.array_equal(flipped[name], -honest[name]) for name in honest)
    for attack in ("scaled", "noise"):
        assert l2_norm(hostile(attack, honest, 5.0, [1])) == pytest.approx(5.0, rel=1e-4)


def test_examples_count_as_those_of_the_median_robot_at_most(digits):
    fleet = digit_fleet(digits, seed=1, skew=0.1)
    updates = [fit(own, fleet.first(), TrainConfig(epochs=1)) for own in fleet.robots]

    counted = [one.examples for one in contributions_of(updates)]

    usual = int(np.median([one.num_examples for one in updates]))
    assert counted == [min(one.num_examples, usual) for one in updates]


def test_losses_are_against_the_plain_mean_without_an_attack():
    arms = ("fedavg", "adjusted", "flower", "central", *heads.CLOSED, *heads.OWN)
    camera = {arm: [0.9, 0.8] for arm in arms}
    camera["flower"] = [0.8, 0.6]
    table = {
        "fedavg": dict.fromkeys(ATTACKS, 0.5) | {"none": 0.85},
        NAMED: dict.fromkeys(ATTACKS, 0.84) | {"noise": 0.83},
    }

    digits = {"fedavg": [0.7], "adjusted": [0.8, 0.9], "closed": [0.92, 0.94], "kb": [60, 67]}
    digits |= {f"half_{rounds}": [0.9] for rounds in heads.HALVES}
    doubts = {"flip_named": 1.0, "false_removal": 0.0}
    made = heads.result(camera, digits, table, doubts)

    assert made.comparisons[0].ratio == pytest.approx(2.0)
    figures = made.figures
    assert (figures["demo_mean"], figures["demo_worst"]) == (pytest.approx(0.85), 0.8)
    assert figures["digits_five_exchanges_adjusted"] == pytest.approx(0.85)
    assert figures["digits_one_exchange"] == pytest.approx(0.93)
    assert figures["digits_one_exchange_kb"] == 67
    assert figures["flip_named"] == 1.0
    assert figures["attack_loss"] == pytest.approx(0.02)
    assert figures["attack_loss_fedavg"] == pytest.approx(0.35)


@pytest.fixture(scope="module")
def many():
    """The same with more pictures: labels of few are never told."""
    rng = np.random.default_rng(3)
    classes = np.arange(MEASURED + 2000) % CLASSES
    features = np.eye(CLASSES, dtype=np.float32)[classes] * 3
    noise = rng.normal(0, 1, features.shape).astype(np.float32)
    return digit_fleet(Digits(features + noise, classes), seed=1, skew=0.3)


def test_one_exchange_of_sums_teaches_a_fleet(many):
    fleet = many

    told, most_kb = digit_sums(fleet)

    assert most_kb < 5
    assert digit_accuracy(fleet, told) > 0.8
    few, more = halves(fleet, told, (1, 5), seed=1)
    assert few <= more


def test_reversed_labels_are_the_same_frames_under_other_names(many):
    own = digit_sums(many)[0]["r00"]

    other = turned(own)

    assert other.counts.tolist() == own.counts.tolist()[::-1]
    assert np.array_equal(other.means[0], own.means[-1])
    assert np.array_equal(other.scatter(), own.scatter())


def test_doubts_are_rates_over_cases():
    rates = Doubts(flipped=[True, False], honest=[False, False, True, False]).rates()

    assert rates == {"flip_named": 0.5, "false_removal": 0.25}
