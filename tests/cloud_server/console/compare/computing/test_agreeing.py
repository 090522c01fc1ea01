"""How much two answers agree."""

import pytest

from cloud_server.console.compare.computing.agreeing import agreement
from fleet_model.types import Prediction


def found(*boxes):
    return [Prediction(label=label, score=0.9, box=box) for label, *box in boxes]


def classes(*labels):
    return [Prediction(label=label, score=0.5) for label in labels]


def test_classes_agree_by_the_best_alone():
    assert agreement(classes("a", "b"), classes("a", "c")) == 1
    assert agreement(classes("a", "b"), classes("b", "a")) == 0


CUP = ("cup", 0.0, 0.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([CUP], [CUP], 1.0),
        ([CUP], [("pen", *CUP[1:])], 0.0),
        ([CUP], [], 0.0),
        ([], [], 1.0),
        ([CUP], [("cup", 0.0, 0.0, 10.0, 5.0)], 1.0),  # half of the union is enough
        ([CUP], [("cup", 0.0, 0.0, 10.0, 4.9)], 0.0),
        ([CUP], [CUP, CUP], 2 / 3),  # one box is not the counterpart of two
        ([CUP, ("pen", 20.0, 20.0, 30.0, 30.0)], [CUP], 2 / 3),
        ([CUP], [("cup", 10.0, 0.0, 20.0, 10.0)], 0.0),
    ],
)
def test_boxes_agree_by_the_share_that_has_a_counterpart(one, other, expected):
    ours, theirs = (
        [Prediction(label=b[0], box=tuple(b[1:])) for b in side] for side in (one, other)
    )
    assert agreement(ours, theirs) == agreement(theirs, ours) == pytest.approx(expected)
