"""The few of all boxes that are an answer, by value."""

import numpy as np
import pytest

from fleet_model.workloads.object_detector.imported.candidates import (
    MOST,
    Candidates,
    as_answer,
    without_overlaps,
)

pytestmark = pytest.mark.base


def candidates(*rows):
    boxes, scores, classes = zip(*rows, strict=True)
    return Candidates(np.array(boxes, np.float32), np.array(scores), np.array(classes))


def test_the_surest_come_first_and_what_is_nothing_goes():
    rows = [((0, 0, 1, 1), 0.2, 0), ((0, 0, 2, 2), 0.9, 1), ((0, 0, 3, 3), 0.0005, 2)]
    found = candidates(*rows).surest()
    assert (found.scores.tolist(), found.classes.tolist()) == ([0.9, 0.2], [1, 0])
    many = Candidates(np.zeros((3000, 4)), np.full(3000, 0.5), np.zeros(3000, int))
    assert len(many.surest().scores) == MOST


def test_a_score_that_is_no_number_is_none():
    assert len(candidates(((0, 0, 1, 1), np.nan, 0)).surest().scores) == 0


def test_the_less_sure_one_of_two_that_overlap_goes():
    """The first two share 60 of 140 square pixels, an IoU of 3/7."""
    rows = [((0, 0, 10, 10), 0.9, 0), ((4, 0, 14, 10), 0.8, 0), ((4, 0, 14, 10), 0.7, 1)]
    found = candidates(*rows)
    assert without_overlaps(found, 0.42, 100).scores.tolist() == [0.9, 0.7]  # of its class alone
    assert without_overlaps(found, 0.43, 100).scores.tolist() == [0.9, 0.8, 0.7]
    assert without_overlaps(found, 1.0, 100).scores.tolist() == [0.9, 0.8, 0.7]
    assert without_overlaps(found, 0.43, 2).scores.tolist() == [0.9, 0.8]


def test_a_box_that_is_left_out_leaves_out_no_other():
    """A chain: the second overlaps both others, which do not overlap each other."""
    rows = [((0, 0, 10, 10), 0.9, 0), ((4, 0, 14, 10), 0.8, 0), ((8, 0, 18, 10), 0.7, 0)]
    assert without_overlaps(candidates(*rows), 0.3, 100).scores.tolist() == [0.9, 0.7]


def test_boxes_without_area_are_no_error():
    rows = [((5, 5, 5, 5), 0.9, 0), ((5, 5, 5, 5), 0.8, 0), ((9, 9, 3, 3), 0.7, 0)]
    assert len(without_overlaps(candidates(*rows), 0.5, 100).scores) == 3


def test_an_answer_has_rows_without_a_box_and_ends_at_the_edges():
    answer = as_answer(candidates(((-5, 2, 900, 30), 1.0000001, 3)), 4, (64, 32))
    assert answer["boxes"].tolist() == [[0, 2, 64, 30], *[[0, 0, 0, 0]] * 3]
    assert answer["scores"].tolist() == [1, 0, 0, 0]
    assert answer["classes"].tolist() == [3, 0, 0, 0]
    assert [str(one.dtype) for one in answer.values()] == ["float32", "float32", "int32"]
