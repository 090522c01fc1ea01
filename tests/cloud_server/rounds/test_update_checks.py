import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from timed_robots import START, changed, update

from cloud_server.rounds.update_checks import (
    NORMS,
    accepted_norms,
    check_update,
    largest_norm,
    norm_of,
    remember_norms,
    weight_of,
)
from cloud_server.state.settings import CheckSettings
from fleet_model.errors import UpdateError

CHECKS = CheckSettings()
NONE = np.zeros(0)


def named(**changes):
    return replace(update(robot="r1"), **changes)


BAD = {
    "another base": (named(base_version=6), "based on version 6, expected 7"),
    "no examples": (named(num_examples=0), "of 0 examples, expected > 0"),
    "negative": (named(num_examples=-5), "of -5 examples, expected > 0"),
    "too large": (
        named(weights={"w": np.zeros(200_000_000, np.float32)}),
        r"it has 800.0 MB, expected at most 512 \(checks.max_update_mb\)",
    ),
    "shape": (
        named(weights={"w": np.zeros((3, 1), np.float32)}),
        r"the update: w has shape \(3, 1\), expected \(3,\); was it built from the same workload",
    ),
    "dtype": (named(weights={"w": np.zeros(3)}), "the update: w is float64, expected float32"),
    "lacking": (named(weights={}), "the update: lacks w"),
    "unknown": (
        named(weights={"w": np.zeros(3, np.float32), "v": np.zeros(1, np.float32)}),
        "the update: has the unknown tensor v",
    ),
    "nan": (named(weights=update(math.nan).weights), "the update: w holds NaN or infinity"),
    "groups": (
        named(groups={"sums": {"x": np.full(2, math.nan, np.float32)}}),
        "the update has further tensors, the group 'sums', which nobody asked for",
    ),
    "infinity": (named(weights=update(-math.inf).weights), "the update: w holds NaN or infinity"),
}


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=BAD)
def test_an_update_that_does_not_fit_is_refused_with_who_and_why(bad, message):
    with pytest.raises(UpdateError, match=message):
        check_update(bad, START, 7, CHECKS)


def test_a_good_update_passes():
    check_update(named(), START, 7, CHECKS)


def test_an_old_update_passes_if_the_robot_was_sent_that_version():
    check_update(named(base_version=4), START, 4, CHECKS)

    for other in (4, 8):
        with pytest.raises(UpdateError, match=f"based on version {other}, expected 5"):
            check_update(named(base_version=other), START, 5, CHECKS)


@pytest.mark.parametrize(("claimed", "weight"), [(1, 1), (9999, 9999), (10_001, 10_000)])
def test_a_large_count_is_capped(claimed, weight):
    assert weight_of(claimed, CHECKS) == weight


def test_the_length_is_over_all_tensors():
    weights = {"a": np.array([[3.0]], np.float32), "b": np.array([0, 4.0], np.float32)}

    assert norm_of(weights) == 5.0
    assert norm_of({}) == 0.0
    assert norm_of({"empty": np.zeros((0, 3), np.float32)}) == 0.0


def test_the_length_of_large_numbers_does_not_overflow_and_long_tensors_are_summed_exactly():
    assert norm_of({"a": np.full(4, 3e38, np.float32)}) == pytest.approx(6e38, rel=1e-6)
    assert norm_of({"a": np.ones(1_000_000, np.float32)}) == 1000.0


def test_the_length_does_not_depend_on_how_a_tensor_lies_in_memory():
    tensor = np.random.default_rng(0).normal(size=(700, 900)).astype(np.float32)

    assert norm_of({"a": np.asfortranarray(tensor)}) == norm_of({"a": tensor})


@pytest.mark.parametrize(
    ("norms", "before", "largest"),
    [
        ([1.0, 2.0, 1000.0], [], 20.0),
        ([1.0, 1000.0], [], 10.0),  # the lower of the two: the larger cannot vouch for itself
        ([1000.0], [1.0], 10.0),
        ([5.0], [], math.inf),
        ([], [], math.inf),
        ([0.0, 0.0, 7.0], [], math.inf),
        ([9.0], [1.0, 2.0, 3.0], 20.0),
    ],
)
def test_lengths_are_measured_by_the_lower_median(norms, before, largest):
    assert largest_norm(norms, np.array(before), CHECKS) == largest


def test_without_a_ratio_any_length_passes():
    off = changed(CHECKS, max_norm_ratio=0.0)

    assert largest_norm([1.0, 1e30], NONE, off) == math.inf


lengths = st.lists(st.floats(0, 1e30), max_size=12)


@given(norms=lengths, before=lengths, data=st.data())
def test_the_order_of_lengths_does_not_matter(norms, before, data):
    shuffled = data.draw(st.permutations(norms))

    largest = largest_norm(norms, np.array(before), CHECKS)

    assert largest == largest_norm(shuffled, np.array(before), CHECKS)


@given(norms=st.lists(st.floats(1.0, 9.0), min_size=2), huge=st.floats(1e3, 1e30))
def test_one_huge_update_among_honest_ones_is_always_found(norms, huge):
    assert max(norms) <= largest_norm([*norms, huge], NONE, CHECKS) < huge


def test_the_last_hundred_accepted_lengths_are_remembered():
    kept = remember_norms(np.arange(99.0), [200.0, 300.0])

    assert kept.tolist() == [*range(1, 99), 200, 300]
    assert kept.dtype == np.float64
    known = replace(START, server_state={NORMS: kept})
    assert accepted_norms(known) is kept
    assert accepted_norms(START).size == 0
