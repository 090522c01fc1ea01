"""Sums of several robots are those of one that has all their frames, and travel as exactly."""

from dataclasses import replace

import numpy as np
import pytest

from fleet_model.errors import UpdateError
from fleet_model.sums.adding import added
from fleet_model.sums.class_sums import class_sums
from fleet_model.sums.packing import pack_sums, require_scatter, unpack_sums

WIDTH, LABELS = 12, 4


def frames(seed, count, labels=(0, 1, 2)):
    rng = np.random.default_rng(seed)
    classes = rng.choice(labels, count)
    # Far from zero: a raw second moment would lose digits.
    return rng.normal(50 + classes[:, None], 1.0, (count, WIDTH)).astype(np.float32), classes


def sums(*parts, rank=0):
    features, classes = (np.concatenate(side) for side in zip(*parts, strict=True))
    return class_sums(features, classes, LABELS, rank)


PARTS = [frames(0, 40), frames(1, 9, (2,)), frames(2, 60, (0, 3))]


def test_by_hand():
    one = class_sums(np.array([[1.0], [3.0]]), np.array([0, 0]), 2, 0)  # mean 2, scatter 2
    other = class_sums(np.array([[8.0], [5.0]]), np.array([0, 1]), 2, 0)
    both = added([(one, 1.0), (other, 1.0)])
    assert both.counts.tolist() == [3, 1]
    assert both.means.tolist() == [[4], [5]]
    assert both.scatter().tolist() == [[26]]  # 1, 3, 8 around 4
    assert both.robots == 2
    half = added([(one, 1.0), (other, 0.5)])
    assert half.counts.tolist() == [2.5, 0.5]
    np.testing.assert_allclose(half.means, [[3.2], [5]])  # (1 + 3 + 8 / 2) / 2.5
    np.testing.assert_allclose(half.scatter(), [[16.4]])  # 2.2^2 + 0.2^2 + 4.8^2 / 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_they_are_those_of_one_robot_with_all_frames(order):
    together = added((sums(PARTS[one]), 1.0) for one in order)
    expected = sums(*PARTS)
    assert np.array_equal(together.counts, expected.counts)
    np.testing.assert_allclose(together.means, expected.means, rtol=1e-13)
    np.testing.assert_allclose(together.scatter(), expected.scatter(), rtol=1e-10, atol=1e-10)
    require_scatter(together)
    assert together.robots == 3


def test_a_frame_may_count_for_less_and_the_sums_still_travel_exactly():
    together = added([(sums(PARTS[0]), 0.1), (sums(PARTS[2]), 1.0)])
    assert together.frames == pytest.approx(64, rel=1e-15)
    tensors = pack_sums(together)
    assert tensors["counts_low"].dtype == np.float32
    again = unpack_sums(tensors, LABELS, WIDTH)
    np.testing.assert_allclose(again.counts, together.counts, rtol=1e-14)
    np.testing.assert_allclose(again.means, together.means, rtol=1e-13)
    np.testing.assert_allclose(again.scatter(), together.scatter(), rtol=1e-12, atol=1e-12)


def test_whole_frames_travel_as_those_of_a_robot():
    together = added((sums(part), 1.0) for part in PARTS)
    for one in (together, sums(PARTS[0])):
        assert "counts_low" not in pack_sums(one)


def test_nothing_adds_up_to_nothing():
    with pytest.raises(ValueError, match="no sums to add up"):
        added([])


def test_leading_directions_count_no_parts_of_frames():
    few = sums(PARTS[0], rank=3)
    with pytest.raises(ValueError, match="only exact sums count parts"):
        pack_sums(replace(few, counts=few.counts * 0.1))


WRONG = {
    "not whole, or too large": lambda t: t.update(counts_low=t["counts_low"] - t["counts"].max()),
    "NaN": lambda t: t["counts_low"].fill(np.nan),
    "counts_low is float64": lambda t: t.update(counts_low=t["counts_low"].astype(np.float64)),
}


@pytest.mark.parametrize("words", WRONG)
def test_parts_of_frames_that_cannot_be_are_refused(words):
    tensors = dict(pack_sums(added([(sums(PARTS[0]), 0.1)])))
    WRONG[words](tensors)
    with pytest.raises(UpdateError, match=words):
        unpack_sums(tensors, LABELS, WIDTH)
