"""What of an update counts: no refusal, whatever the others have sent."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from timed_robots import START, changed

from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.shares import (
    NORMS,
    Share,
    counted,
    longest_norm,
    model_norm,
    norm_of,
    recent_norms,
    remember_norms,
    shares,
)
from cloud_server.state.learning_settings import CheckSettings
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.types import Checkpoint

CHECKS = CheckSettings()
SMALL = {"w": np.full(4, 0.5, np.float32)}  # its length is 1


def after(*lengths, weights=SMALL):
    """Return a checkpoint of a fleet whose updates had these lengths."""
    state = {NORMS: np.array(lengths, np.float64)}
    return Checkpoint(version=1, weights=weights, server_state=state)


@pytest.mark.parametrize(
    ("claimed", "weights"),
    [
        ([95, 95, 10_000], [95, 95, 95]),
        ([10, 10_000], [10, 10]),  # the lower of the two: the larger cannot vouch for itself
        ([1, 50, 60, 90], [1, 50, 50, 50]),
        ([7], [7]),
        ([20_000], [10_000]),
        ([], []),
    ],
)
def test_no_claim_weighs_more_than_the_median_of_the_round(claimed, weights):
    assert counted(claimed, CHECKS) == weights


def test_how_far_above_the_median_is_a_setting():
    claimed = [95, 95, 95, 10_000]

    assert counted(claimed, changed(CHECKS, max_examples_ratio=2.5)) == [95, 95, 95, 237]
    assert counted(claimed, changed(CHECKS, max_examples_ratio=0)) == claimed


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=20))
def test_everybody_weighs_something_and_nobody_more_than_the_claim(claimed):
    weights = counted(claimed, CHECKS)

    assert all(1 <= weight <= claim for weight, claim in zip(weights, claimed, strict=True))
    assert max(weights) <= sorted(claimed)[(len(claimed) - 1) // 2]


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
    ("norms", "before", "longest"),
    [
        ([1.0, 2.0, 1000.0], [], 20.0),
        ([1.0, 1000.0], [], 10.0),  # the lower of the two: the larger cannot vouch for itself
        ([1000.0], [1.0], 10.0),
        ([5.0], [], 50.0),
        ([9.0], [1.0, 2.0, 3.0], 20.0),
        ([], [], 1.0),
    ],
)
def test_lengths_are_measured_by_the_lower_median(norms, before, longest):
    assert longest_norm(norms, after(*before), CHECKS) == longest


@pytest.mark.parametrize("tiny", [0.0, 1e-12])
@pytest.mark.parametrize("hostile", [1, 2, 3])
def test_updates_of_almost_nothing_leave_an_honest_one_the_length_of_the_model(tiny, hostile):
    assert longest_norm([tiny] * hostile + [3.0] * 2, after(), CHECKS) >= 1.0


def test_a_fleet_that_has_learned_all_it_knows_leaves_room_for_a_new_label():
    assert longest_norm([0.002, 0.002, 0.8], after(*[0.002] * 100), CHECKS) == 1.0
    half = changed(CHECKS, max_norm_of_model=0.5)
    assert longest_norm([0.002, 0.002, 0.8], after(*[0.002] * 100), half) == 0.5


def test_a_model_of_zeros_has_the_length_of_one_with_small_numbers():
    zeros = {"w": np.zeros((100, 25), np.float32)}

    assert model_norm(zeros) == 0.5
    assert longest_norm([1e-9, 0.4], after(weights=zeros), CHECKS) == 0.5


def test_without_a_ratio_any_length_counts():
    off = changed(CHECKS, max_norm_ratio=0.0)

    assert longest_norm([1.0, 1e30], after(), off) == math.inf


lengths = st.lists(st.floats(0, 1e30), max_size=12)


@given(norms=lengths, before=lengths, data=st.data())
def test_the_order_of_lengths_does_not_matter(norms, before, data):
    shuffled = data.draw(st.permutations(norms))

    longest = longest_norm(norms, after(*before), CHECKS)

    assert longest == longest_norm(shuffled, after(*before), CHECKS)


@given(norms=st.lists(st.floats(1.0, 9.0), min_size=2), huge=st.floats(1e3, 1e30))
def test_one_huge_update_among_honest_ones_is_always_cut(norms, huge):
    assert max(norms) <= longest_norm([*norms, huge], after(), CHECKS) < huge


def kept(robot, norm, examples=10):
    return Kept(
        ticket=f"t-{robot}", robot=robot, site="hall", round=1, verdict=ACCEPTED, norm=norm,
        num_examples=examples,
    )  # fmt: skip


def test_a_share_is_what_counts_of_each_update():
    made = shares([kept("a", 2.0), kept("b", 2.0), kept("c", 90.0, 1000)], after(), CHECKS)

    assert [(one.weight, one.norm, one.is_cut) for one in made] == [
        (10, 2.0, False), (10, 2.0, False), (10, 20.0, True),
    ]  # fmt: skip


def test_an_update_is_cut_to_the_length_that_counts_and_keeps_its_direction():
    tensor = np.array([3.0, -4.0], np.float32)
    share = Share(kept=kept("a", 5.0), weight=1, norm=0.5)

    np.testing.assert_allclose(share.cut(tensor), [0.3, -0.4], rtol=1e-6)
    assert share.cut(tensor).dtype == np.float32
    assert replace(share, norm=5.0).cut(tensor) is tensor


def test_the_largest_numbers_that_there_are_can_be_cut():
    tensor = np.full(4, 3e38, np.float32)
    share = Share(kept=kept("a", norm_of({"w": tensor})), weight=1, norm=1e-3)

    np.testing.assert_allclose(share.cut(tensor), np.full(4, 5e-4), rtol=1e-6)


def test_the_last_hundred_lengths_are_remembered():
    remembered = remember_norms(np.arange(99.0), [200.0, 300.0])

    assert remembered.tolist() == [*range(1, 99), 200, 300]
    assert remembered.dtype == np.float64
    known = replace(START, server_state={NORMS: remembered})
    assert recent_norms(known) is remembered
    assert recent_norms(START).size == 0


def test_a_relay_weighs_as_many_robots_as_it_speaks_for():
    relay = replace(kept("relay", 2.0, 400), speaks_for=4)
    made = shares([relay, kept("b", 2.0, 50), kept("c", 2.0, 60)], after(), CHECKS)

    # The median robot is one of the relay's, with 100 examples.
    assert [one.weight for one in made] == [400, 50, 60]


def test_a_relay_that_claims_more_is_capped_for_each_of_its_robots():
    relay = replace(kept("relay", 2.0, 10**9), speaks_for=2)
    made = shares([relay, *(kept(name, 2.0, 50) for name in "abc")], after(), CHECKS)

    assert [one.weight for one in made] == [100, 50, 50, 50]


def test_sums_of_a_relay_count_as_those_of_its_robots():
    # Four robots of 100 each, and two: the median robot has 100.
    assert counted([400, 50, 1000], CHECKS, [4, 1, 1]) == [400, 50, 100]
    assert counted([10**9, 50, 50, 50], CHECKS, [2, 1, 1, 1]) == [100, 50, 50, 50]
