"""Of flat pictures, whose distance is that of their grays: 0.25 of white and more is far."""

import numpy as np
import pytest

from edge_agent.labeling.answer import FrameName
from edge_agent.labeling.queue import LEAST, Queue
from edge_agent.labeling.views import (
    SIZE,
    feature_distances,
    features_of,
    thumbprint,
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


def seen(degrees):
    """Return features of length 1 in this direction: 60 degrees are 1 apart, which is far."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def test_what_looks_alike_to_the_model_is_near_whatever_its_colors(queue, add):
    add("a", 0, 0.9, 0.5, features=seen(0))
    add("b", 100, 0.8, 1.0, features=seen(0))  # after a: (0 + 1) / 2 away, worth .4
    add("c", 200, 0.6, 0.5, features=seen(60))  # as dark as a, and (1 + 1) / 2 away: .6
    assert taken(queue) == "acb"


def test_frames_without_features_are_compared_by_their_colors(queue, add):
    add("a", 0, 0.9, 0.5, waits=False)  # of an earlier session: no model has seen it now
    add("b", 100, 0.8, 0.5, features=seen(0))  # (0 + 1) / 2: .4
    add("c", 200, 0.5, 0.9, features=seen(0))  # 1: .5
    assert taken(queue) == "cb"


def test_features_of_another_network_are_not_compared(queue, add):
    add("a", 0, 0.9, 0.5, features=seen(0))
    add("b", 100, 0.8, 0.5, features=np.ones(3) / np.sqrt(3))
    add("c", 200, 0.5, 0.5, features=seen(60))
    assert taken(queue) == "acb"  # b: colors, .4; c: 1, .5


def test_features_become_one_row_of_length_one():
    maps = np.zeros((2, 2, 3), np.float32)
    maps[..., 0], maps[0, 0, 1] = 3.0, 16.0
    assert features_of({"features": maps}).tolist() == pytest.approx([0.6, 0.8, 0.0])
    two = features_of({"b": np.array([0.0, 4.0]), "a": np.array([3.0])})
    assert two.tolist() == pytest.approx([0.6, 0.0, 0.8])  # by name
    assert features_of({}) is None
    assert features_of({"features": np.zeros(3)}) is None
    assert features_of({"features": np.array([np.nan, 1.0])}) is None
    rows = np.stack([seen(0), seen(30), seen(60), seen(180)])
    expected = [0.0, 2 * np.sin(np.radians(15)), 1.0, 1.0]
    assert feature_distances(rows, seen(0)).tolist() == pytest.approx(expected, abs=1e-3)
