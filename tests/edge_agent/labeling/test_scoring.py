import math

import pytest

from edge_agent.labeling.scoring import (
    agreement,
    box_agreement,
    disagreement,
    overlap,
    scores_of,
    uncertainty,
    value,
)
from fleet_model.types import Box, Prediction

pytestmark = pytest.mark.base


def classes(**scores):
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    return [Prediction(label=label, score=score) for label, score in ranked]


def found(label, score, *corners):
    return Prediction(label=label, score=score, box=corners)


def box(label, *corners):
    return Box(label=label, **dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True)))


def test_classes_are_unsure_by_the_margin_of_the_best_two():
    assert uncertainty(classes(a=0.5, b=0.5)) == pytest.approx(1.0)
    assert uncertainty(classes(a=0.25, b=0.25, c=0.25, d=0.25)) == pytest.approx(1.0)
    assert uncertainty(classes(a=1.0, b=0.0)) == 0.0
    assert uncertainty(classes(a=0.7, b=0.2, c=0.1)) == pytest.approx(0.5)
    assert uncertainty(classes(a=0.7, b=0.2, c=0.1)[::-1]) == pytest.approx(0.5)
    assert uncertainty(classes(a=3.0, b=0.5)) == 0.0  # a workload whose scores are no shares


def test_an_answer_with_one_class_is_as_unsure_as_its_score_is_low():
    assert uncertainty([Prediction(label="a", score=0.7)]) == pytest.approx(0.3)
    assert uncertainty([Prediction(text="what it reads", score=0.7)]) == 0.0
    assert uncertainty([]) == 0.0


def test_boxes_are_unsure_on_average():
    boxes = [found("a", 0.5, 0, 0, 1, 1), found("a", 0.9, 0, 0, 1, 1), found("b", 0.1, 0, 0, 1, 1)]
    assert uncertainty(boxes) == pytest.approx((1.0 + 0.2 + 0.2) / 3)


def test_an_answer_has_the_highest_score_of_each_class():
    boxes = [found("b", 0.9, 0, 0, 1, 1), found("b", 0.5, 0, 0, 1, 1), found("z", 0.8, 0, 0, 1, 1)]
    assert scores_of(boxes, ("a", "b", "c")).tolist() == pytest.approx([0.0, 0.9, 0.0])
    assert scores_of(classes(a=0.2, b=0.8), ("a", "b")).tolist() == pytest.approx([0.2, 0.8])
    assert scores_of([], ("a", "b")).tolist() == [0.0, 0.0]


def test_models_differ_by_half_the_sum_of_the_differences_of_their_scores():
    assert disagreement(classes(a=0.9, b=0.1), classes(a=0.9, b=0.1)) == 0.0
    assert disagreement(classes(a=1.0, b=0.0), classes(a=0.0, b=1.0)) == 1.0
    assert disagreement(classes(a=0.9, b=0.1), classes(a=0.6, b=0.3, c=0.1)) == pytest.approx(0.3)


def test_models_differ_by_the_share_of_boxes_without_a_counterpart():
    one = [found("a", 0.9, 0, 0, 10, 10), found("a", 0.9, 20, 20, 30, 30)]
    other = [found("a", 0.5, 0, 0, 10, 10)]
    assert disagreement(one, other) == pytest.approx(1 - 2 * 1 / 3)
    assert disagreement(one, []) == 1.0
    assert disagreement([], []) == 0.0


def test_either_reason_makes_a_label_worth_it():
    assert value(0.5, 0.0) == 0.5
    assert value(0.0, 0.5) == 0.5
    assert value(0.5, 0.5) == 0.75


def test_overlap_is_intersection_over_union():
    assert overlap(box("a", 0, 0, 10, 10), box("a", 5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert overlap(box("a", 0, 0, 10, 10), box("a", 10, 0, 20, 10)) == 0.0


def test_each_box_has_one_counterpart_of_its_label_at_most():
    one = [box("a", 0, 0, 10, 10), box("a", 0, 0, 10, 9)]
    assert box_agreement(one, [box("a", 0, 0, 10, 10)]) == pytest.approx(2 / 3)
    assert box_agreement([box("a", 0, 0, 10, 10)], [box("b", 0, 0, 10, 10)]) == 0.0
    assert box_agreement([box("a", 0, 0, 10, 10)], [box("a", 0, 0, 10, 5)]) == 1.0  # just SAME
    assert box_agreement([box("a", 0, 0, 10, 10)], [box("a", 0, 0, 10, 4.9)]) == 0.0
    assert box_agreement([], []) == 1.0


def test_agreement_with_a_person():
    assert agreement(classes(a=0.6, b=0.4), "a", (), of_boxes=False) == 1.0
    assert agreement(classes(a=0.6, b=0.4), "b", (), of_boxes=False) == 0.0
    drawn = (box("a", 0, 0, 10, 10), box("b", 50, 50, 60, 60))
    seen = [found("a", 0.4, 0, 0, 10, 11)]
    assert agreement(seen, "", drawn, of_boxes=True) == pytest.approx(2 / 3)
    assert not math.isnan(agreement([], "", (), of_boxes=True))
