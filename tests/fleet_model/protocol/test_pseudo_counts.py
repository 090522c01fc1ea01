"""What a robot tells of its pseudo-labels."""

import numpy as np
import pytest

from fleet_model.protocol.example_counts import is_count
from fleet_model.protocol.pseudo_counts import MOST_CLASSES, as_metrics, in_words, named

pytestmark = pytest.mark.base


def test_numbers_travel_and_names_come_back():
    least, counts = np.array([0.875, np.inf, 0.5]), np.array([4, 0, 3])
    metrics = as_metrics(10, 7, 0.5, least, counts)
    assert metrics == {
        "pseudo_unlabelled": 10.0,
        "pseudo_examples": 7.0,
        "pseudo_weight": 0.5,
        "pseudo_least_0": 0.875,
        "pseudo_count_0": 4.0,
        "pseudo_least_2": 0.5,
        "pseudo_count_2": 3.0,
    }
    assert all(map(is_count, metrics))  # no measure of a model, for `cloud-server status`
    told = named({"accuracy_after": 1.0, **metrics}, ["cup", "fork", "plate"])
    assert told == {
        "unlabelled": 10,
        "examples": 7,
        "weight": 0.5,
        "counts": {"cup": 4, "plate": 3},
        "least": {"cup": 0.875, "plate": 0.5},
        "unsure": ["fork"],
    }
    assert in_words(told) == (
        "7 of 10 unlabelled examples, weight 0.5: 4 cup (from 0.88), 3 plate (from 0.50); none of "
        "fork: the model is not sure enough of them here"
    )


def test_a_round_without_them_tells_nothing():
    assert named({"accuracy_after": 1.0}, ["cup", "fork"]) == {}


def test_a_thousand_classes_are_not_told_one_by_one():
    metrics = as_metrics(1, 1, 1.0, np.full(1000, 0.5), np.ones(1000, int))
    assert len(metrics) == 3 + 2 * MOST_CLASSES
    assert named(metrics, [str(n) for n in range(1000)])["unsure"] == []
