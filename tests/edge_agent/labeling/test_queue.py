"""Of flat pictures, whose distance is that of their grays: 0.25 of white and more is far."""

import numpy as np
import pytest

from edge_agent.labeling.answer import FrameName
from edge_agent.labeling.queue import LEAST, Queue
from edge_agent.labeling.views import (
    ROW,
    SIZE,
    Sight,
    answer_distances,
    feature_distances,
    feature_row,
    thumbprint,
    typical_distance,
    view_distances,
)

pytestmark = pytest.mark.base
S = 10**9


def gray(share):
    return np.full(SIZE, share, np.float32)


@pytest.fixture
def queue():
    return Queue(20)


@pytest.fixture
def add(queue):
    def add(name, seconds, value, share, **how):
        queue.add(FrameName(name, "camera", round(seconds * S)), value, gray(share), **how)

    return add


def taken(queue):
    names = []
    while (name := queue.take()) is not None:
        names.append(name.source)
    return "".join(names)


def test_without_a_difference_the_most_uncertain_comes_first(queue, add):
    for number, (name, value) in enumerate(zip("abcd", (0.2, 0.9, 0.4, 0.3), strict=True)):
        add(name, 100 * number, value, number / 3)
    assert len(queue) == 4
    assert taken(queue) == "bcda"
    assert len(queue) == 0


def test_what_is_near_a_frame_that_was_taken_waits(queue, add):
    add("a", 0, 0.9, 0.5)
    add("b", 1, 0.8, 0.5)  # after a: (0 + 0.1) / 2 = .05 away, worth .04
    add("c", 5, 0.4, 0.6)  # after a: (0.4 + 0.5) / 2 = .45, worth .18
    add("d", 100, 0.1, 0.0)  # after a: 1, worth .1
    # After c: b is 4 s and .1 of gray from it, .4 away; .05 stays, since a is nearer.
    assert taken(queue) == "acdb"


def test_a_frame_that_was_answered_before_counts_as_taken(queue, add):
    add("a", 0, 0.0, 0.5, waits=False)
    add("b", 1, 0.9, 0.5)  # .05 away, worth .045
    add("c", 50, 0.1, 0.5)  # (0 + 1) / 2 away, worth .05
    assert taken(queue) == "cb"


def test_the_order_of_adding_changes_nothing(queue, add):
    add("b", 1, 0.9, 0.5)
    add("c", 50, 0.1, 0.5)
    add("a", 0, 0.0, 0.5, waits=False)
    assert taken(queue) == "cb"


def test_frames_of_equal_value_are_spread_over_time(queue, add):
    for number, name in enumerate("abcde"):
        add(name, 2.5 * number, 1.0, 0.5)
    assert taken(queue) == "aecbd"


def test_a_frame_may_get_another_value_while_it_waits(queue, add):
    add("a", 0, 0.9, 0.5)
    add("b", 100, 0.1, 0.9)
    add("b", 100, 0.95, 0.9)
    assert taken(queue) == "ba"


def test_a_frame_that_the_model_is_certain_of_is_asked_about_in_the_end(queue, add):
    add("a", 0, 0.0, 0.5)
    add("b", 100, LEAST / 2, 0.9)
    assert taken(queue) == "ab"


def test_a_thumbprint_has_the_mean_colors_of_cells():
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:2, :2] = (255, 51, 0)
    cells = thumbprint(picture).reshape(8, 8, 3)
    assert cells[0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert not cells[1:].any()
    views = np.stack([gray(0.5), gray(0.6), gray(0.9)])
    assert view_distances(views, gray(0.5)).tolist() == pytest.approx([0.0, 0.4, 1.0], abs=1e-6)


def seen(degrees, *scores):
    """Return what a model sees in this direction, which 90 degrees are 1.41 apart, and says."""
    row = np.zeros(ROW, np.float32)
    row[:2] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return Sight(row, np.array(scores or (1.0, 0.0), np.float32))


def test_what_looks_alike_to_the_model_is_near_whatever_its_colors(queue, add):
    # Rows are .94 apart in the mean, so those at a right angle are far: 1. All say the same.
    add("a", 0, 0.9, 0.5, sight=seen(0))
    add("b", 100, 0.8, 1.0, sight=seen(0))  # after a: (0 + 0 + 1) / 3 away, worth .27
    add("c", 200, 0.5, 0.5, sight=seen(90))  # as dark as a, and (1 + 0 + 1) / 3 away: .33
    assert taken(queue) == "acb"


def test_frames_of_which_the_model_says_other_things_are_apart(queue, add):
    add("a", 0, 0.9, 0.5, sight=seen(0, 0.9, 0.1))
    add("b", 100, 0.8, 0.5, sight=seen(0, 0.8, 0.2))  # (0 + .1 + 1) / 3 away, worth .29
    add("c", 200, 0.5, 0.5, sight=seen(0, 0.1, 0.9))  # (0 + .8 + 1) / 3: .3
    add("d", 300, 0.7, 0.5, sight=seen(0, 0.9, 0.1))  # 1 / 3: .23
    assert taken(queue) == "acbd"


def test_how_far_frames_look_is_a_share_of_what_is_usual_here(queue, add):
    for _ in range(3):  # told again it is the same
        for number, value in enumerate((0.9, 0.75, 0.1, 0.1, 0.6)):
            add("abcde"[number], 100 * number, value, 0.5, sight=seen(4 * number))
    # Rows are .14 apart in the mean. After a: b is half of that from it, (.5 + 0 + 1) / 3 * .75 =
    # .37; e is far, .4. With a right angle as far, e were (.2 + 1) / 3 * .6 = .24 worth, b .26.
    assert taken(queue)[:3] == "aeb"


def test_frames_that_no_model_saw_are_compared_by_their_colors(queue, add):
    add("a", 0, 0.9, 0.5, waits=False)
    add("b", 100, 0.8, 0.5, sight=seen(0))  # (0 + 1) / 2: .4
    add("c", 200, 0.5, 0.9, sight=seen(0))  # 1: .5
    assert taken(queue) == "cb"


def test_a_frame_that_no_model_saw_is_compared_to_others_by_its_colors(queue, add):
    add("a", 0, 0.9, 0.5)
    add("b", 100, 0.8, 0.5, sight=seen(0))  # after a: .4
    add("c", 200, 0.5, 0.9, sight=seen(0))  # .5
    assert taken(queue) == "acb"


def test_far_is_as_far_by_what_a_model_makes_of_frames_as_by_colors(queue, add):
    add("a", 0, 0.9, 0.5, sight=seen(0))
    add("b", 100, 0.6, 0.5, sight=seen(90))  # after a: (1 + 0 + 1) / 3, worth .4
    add("c", 200, 0.6, 0.6)  # (.4 + 1) / 2: .42
    assert taken(queue) == "acb"


def test_what_is_seen_later_counts_once_a_frame_is_compared_anew(queue, add):
    add("a", 0, 0.0, 0.9, waits=False)
    add("b", 100, 0.8, 0.5, sight=seen(0))  # by colors far from a, worth .8
    add("c", 200, 0.7, 0.5, sight=seen(90))
    add("a", 0, 0.0, 0.9, sight=seen(0), waits=False)  # it is what b is: 1 / 3 * .8
    for name, seconds in (("b", 100), ("c", 200), ("a", 0), ("z", 0)):  # z could not be read
        queue.compare(FrameName(name, "camera", seconds * S))
    assert taken(queue) == "cb"


def test_a_frame_that_another_model_sees_is_what_that_one_sees(queue, add):
    add("a", 0, 0.0, 0.5, sight=seen(90), waits=False)
    add("b", 100, 0.8, 0.5, sight=seen(0))
    add("c", 200, 0.7, 0.5, sight=seen(90))
    add("d", 300, 0.1, 0.5, sight=seen(180))
    for name, seconds, value, degrees in (("b", 100, 0.8, 90), ("c", 200, 0.7, 0)):
        add(name, seconds, value, 0.5, sight=seen(degrees))
    assert queue.take().source == "c"  # b is now what a is


def test_a_model_that_tells_no_features_leaves_none_of_another(queue, add):
    add("a", 0, 0.0, 0.5, sight=seen(0), waits=False)
    add("b", 100, 0.8, 0.5, sight=seen(90))
    add("d", 300, 0.1, 0.6, sight=seen(180))
    add("b", 100, 0.2, 0.5)  # colors, (0 + 1) / 2 * .2 = .1
    add("d", 300, 0.16, 0.6)  # (.4 + 1) / 2 * .16 = .11
    assert taken(queue) == "db"


def test_models_of_other_classes_do_not_stop_it(queue, add):
    add("a", 0, 0.9, 0.5, sight=seen(0, 1.0, 0.0))
    add("b", 100, 0.8, 0.5, sight=seen(0, 1.0, 0.0))
    assert queue.take().source == "a"
    add("b", 100, 0.8, 0.5, sight=seen(0, 0.0, 0.0, 1.0))  # of a nothing is known: (0 + .5 + 1) / 3
    add("c", 200, 0.5, 0.5, sight=seen(0, 0.5, 0.5, 0.0))
    assert taken(queue) == "bc"


def test_views_that_are_all_the_same_to_the_model_are_not_told_apart_by_rounding(queue, add):
    for number, name in enumerate("abc"):
        add(name, 100 * number, (0.5, 0.3, 0.4)[number], 0.5, sight=seen(30))
    assert taken(queue) == "acb"


def test_features_become_one_row_of_length_one_that_keeps_distances():
    random = np.random.default_rng(1)
    whole = random.standard_normal((40, 1280)).astype(np.float32)
    rows = np.stack([feature_row({"features": one}) for one in whole])
    assert rows.shape == (40, ROW)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(40), abs=1e-5)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    kept = [
        np.linalg.norm(rows[i] - rows[k]) / np.linalg.norm(whole[i] - whole[k])
        for i in range(40)
        for k in range(i)
    ]
    assert np.mean(kept) == pytest.approx(1.0, abs=0.03)
    assert np.std(kept) < 0.08
    again = feature_row({"features": whole[3] * 5})
    assert again == pytest.approx(rows[3], abs=1e-5)


def test_maps_count_by_their_means_and_several_features_by_their_names():
    maps = np.zeros((2, 2, 3), np.float32)
    maps[..., 0], maps[0, 0, 1] = 3.0, 16.0
    means = np.array([3.0, 4.0, 0.0])
    assert np.array_equal(feature_row({"f": maps}), feature_row({"f": means}))
    first, second = np.array([3.0]), np.array([4.0, 0.0])
    assert np.array_equal(feature_row({"b": second, "a": first}), feature_row({"f": means}))
    assert np.array_equal(feature_row({"f": means, "n": np.array(7.0)}), feature_row({"f": means}))
    whole = (means * 4).astype(np.int8)
    assert feature_row({"f": whole}) == pytest.approx(feature_row({"f": means}), abs=1e-6)


def test_what_says_nothing_is_no_row():
    assert feature_row({}) is None
    assert feature_row({"f": np.zeros(3)}) is None
    assert feature_row({"f": np.array([np.nan, 1.0])}) is None
    assert feature_row({"f": np.array([np.inf, 1.0])}) is None
    assert feature_row({"f": np.array(3.0)}) is None


def test_rows_are_as_far_as_their_typical_distance():
    rows = np.stack([seen(degrees).row for degrees in (0, 60, 180)])
    assert feature_distances(rows, rows[0], 2.0).tolist() == pytest.approx([0, 0.5, 1], abs=1e-3)
    assert feature_distances(rows, rows[0], 0.5).tolist() == pytest.approx([0, 1, 1], abs=1e-3)
    apart = [np.sum((a - b) ** 2) for a in rows for b in rows]
    assert typical_distance(rows.sum(axis=0), 3) == pytest.approx(np.sqrt(np.mean(apart)))
    assert typical_distance(seen(30).row, 1) == pytest.approx(0.0, abs=1e-3)


def test_answers_are_as_far_as_their_scores_differ():
    scores = np.array([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0]], np.float32)
    assert answer_distances(scores, scores[0]).tolist() == pytest.approx([0, 0.4, 0.9])
    many = np.array([[0.9, 0.8, 0.7], [0.0, 0.0, 0.0]], np.float32)  # of boxes
    assert answer_distances(many, many[1]).tolist() == pytest.approx([1, 0])
