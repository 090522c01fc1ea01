import math

import pytest

from fleet_model.protocol.example_counts import (
    as_metrics,
    counts_of,
    is_count,
    taught_metrics,
    tell_labels,
    tell_left_out,
    tell_taught,
)

pytestmark = pytest.mark.base


def concerns(training=100, **metrics):
    return counts_of(training, {"held_out": 25.0, "labels": 3.0, **metrics}).concerns


def test_examples_that_are_as_they_should_be_give_no_concern():
    assert concerns(left_out_unlabelled=900.0, left_out_too_near=8.0) == {}


def test_more_than_a_fifth_of_the_labelled_examples_with_unknown_labels_is_a_concern():
    # 100 training, 25 held out, 0 too near: a fifth of all is 31.25
    assert concerns(left_out_unknown_label=31.0) == {}
    assert concerns(left_out_unknown_label=32.0) == {
        "unknown_labels": "32 of 157 labelled examples"
    }


def test_one_label_and_few_held_out_examples_are_concerns():
    assert concerns(labels=1.0) == {"one_label": "125 examples"}
    assert concerns(held_out=20.0) == {}
    assert concerns(held_out=4.0) == {"few_held_out": "4 held-out examples"}


def test_counts_by_label_say_how_many_examples_there_are():
    counts = counts_of(25, {"held_out": 25.0, "left_out_unknown_label": 60.0}, {"a": 50, "b": 200})

    assert counts.concerns == {}  # an evaluation rests on 25 of them: 60 is less than a fifth
    one = counts_of(25, {"held_out": 25.0, "labels": 1.0}, {"a": 50})
    assert one.concerns == {"one_label": "50 examples"}


def test_labels_are_told_with_their_numbers_and_of_very_many_the_fewest():
    assert tell_labels({"b": 2, "a": 0}) == "b 2, a 0"
    assert tell_labels({}) == ""
    told = tell_labels({f"label-{n}": n for n in reversed(range(200))})
    assert told.startswith("label-0 0, label-1 1, ")
    assert told.endswith("label-19 19, and 180 more with as many or more")


def test_a_count_is_no_measure():
    counts = ("labels", "held_out", "left_out_copy", "unreadable", "taught_examples")
    assert all(map(is_count, counts))
    assert not is_count("accuracy")


def test_a_robot_that_tells_nothing_gives_no_concern():
    assert counts_of(7, {"accuracy_after": 1.0}).concerns == {}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -5.0, 1e300])
def test_numbers_of_a_stranger_become_counts(number):
    found = counts_of(1, {"left_out_copy": number, "held_out": number, "labels": number})
    for count in (found.held_out, found.labels, found.left_out.get("copy", 0)):
        assert 0 <= count <= 2**53


def test_what_is_left_out_travels_as_metrics_and_is_told_in_words():
    left_out = {"unknown_label": 60, "unreadable": 2}
    metrics = as_metrics(left_out, labels=3)
    assert metrics == {"left_out_unknown_label": 60.0, "left_out_unreadable": 2.0, "labels": 3.0}
    assert counts_of(1, metrics).left_out == left_out
    assert tell_left_out(left_out) == (
        "60 with a label that this fleet does not learn, 2 unreadable"
    )
    assert tell_left_out({}) == ""


def test_a_teacher_s_examples_are_told_where_there_are_some():
    assert taught_metrics([]) == {}
    assert tell_taught({}) == ""
    metrics = taught_metrics([0.5, 0.75, 0.25])
    assert metrics == {"taught_examples": 3.0, "taught_weight": 0.5}
    assert tell_taught(metrics) == "3 training examples labelled by a teacher, weight 0.5"
