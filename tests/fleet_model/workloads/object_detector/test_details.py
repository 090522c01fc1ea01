import math

import numpy as np
import pytest

from fleet_model.workloads.object_detector.average_precision import Found, Truth, evaluate
from fleet_model.workloads.object_detector.details import details_of

pytestmark = pytest.mark.base

NAN = pytest.approx(math.nan, nan_ok=True)


def details(kinds, found, labels):
    """Boxes of these classes stand in a row; of `found` (class, score, place) is told."""
    places = np.arange(len(kinds))[:, None] * 20.0
    boxes = np.hstack([places, np.zeros_like(places), places + 8, np.full_like(places, 8)])
    rows = [Found(boxes[[p for *_, p in found]], *np.array([row[:2] for row in found]).T[::-1])]
    return details_of(evaluate(rows, [Truth(boxes, np.array(kinds))], len(labels)), labels)


def test_each_class_has_its_row_and_those_with_boxes_a_curve():
    told = details([0, 0, 2], [(0, 0.9, 0), (2, 0.8, 2)], ["cup", "jug", "pan"])
    half = pytest.approx(51 / 101)
    assert told.table == {
        "cup": {"ap50": half, "ap": half, "boxes": 2.0},
        "jug": {"ap50": NAN, "ap": NAN, "boxes": 0.0},
        "pan": {"ap50": 1.0, "ap": 1.0, "boxes": 1.0},
    }
    assert list(told.curves.lines) == ["mean 0.752", "cup 0.505", "pan 1.000"]
    recall, mean = told.curves.lines["mean 0.752"]
    assert mean[recall <= 0.5] == pytest.approx(1.0)
    assert mean[recall > 0.5] == pytest.approx(0.5)


def test_the_mean_of_one_class_is_not_drawn_twice_and_without_boxes_nothing_is():
    assert list(details([0], [(0, 0.9, 0)], ["cup", "jug"]).curves.lines) == ["cup 1.000"]
    nothing = details_of(evaluate([], [], 1), ["cup"])
    assert nothing.curves.lines == {}
