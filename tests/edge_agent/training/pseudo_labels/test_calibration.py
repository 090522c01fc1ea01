"""From which score on a model may be trusted, by value."""

import numpy as np
import pytest

from edge_agent.training.pseudo_labels.calibration import LEAST, least_scores
from fleet_model.workload import Certainty

pytestmark = pytest.mark.base


def least(scores, right, precision=0.9, classes=None):
    classes = np.zeros(len(scores), int) if classes is None else np.asarray(classes)
    known = Certainty(classes, np.asarray(scores, float), np.asarray(right, bool))
    return least_scores(known, int(classes.max(initial=0)) + 1, precision).tolist()


def test_the_lowest_score_with_the_precision_is_taken():
    scores = np.linspace(0.99, 0.8, 20)
    right = np.ones(20, bool)
    right[[10, 15, 17]] = False  # of the best 15 one is wrong: .933; of 20 three: .85
    assert least(scores, right) == [pytest.approx(scores[14])]
    assert least(scores, right, precision=0.85) == [pytest.approx(0.8)]


def test_a_class_with_too_few_answers_has_none():
    assert least([0.9] * (LEAST - 1), [True] * (LEAST - 1)) == [np.inf]
    assert least([0.9] * LEAST, [True] * LEAST) == [0.9]
    assert least([], []) == [np.inf]


def test_equal_scores_are_trusted_together_or_not_at_all():
    scores, right = [0.9] * 12, [True] * 10 + [False] * 2
    assert least(scores, right) == [np.inf]  # .83, whatever comes first


def test_each_class_is_measured_by_itself():
    scores = np.tile(np.linspace(0.95, 0.5, 10), 2)
    right = [True] * 10 + [False] * 10
    assert least(scores, right, classes=[0] * 10 + [1] * 10) == [pytest.approx(0.5), np.inf]


def test_exactly_the_precision_is_enough():
    right = [True] * 19 + [False]
    assert least(np.linspace(0.9, 0.5, 20), right, precision=0.95) == [pytest.approx(0.5)]
