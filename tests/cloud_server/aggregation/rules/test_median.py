import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.median import Median
from fleet_model.errors import RoundError, SettingsError
from fleet_model.types import Checkpoint, Update

pytestmark = pytest.mark.base
START = Checkpoint(
    version=4,
    weights={"w": np.array([[10, 1]], np.float32), "b": np.array(0.5, np.float32)},
    server_state={"s": np.ones(1)},
    seed=11,
)


def update(w, b=0.0):
    weights = {"w": np.array([w], np.float32), "b": np.array(b, np.float32)}
    return Update(robot="r", base_version=4, weights=weights, num_examples=1, num_steps=1)


def fold(updates, rule=None, start=START, **changes):
    pairs = [
        (Contribution(robot=f"r{n:03}", site="", **{"examples": 1, **changes}), one)
        for n, one in enumerate(updates)
    ]
    return (rule or Median()).fold(start, UpdatesInMemory(pairs))


def test_each_number_moves_by_its_middle_value():
    """Of 4, -1, 100 the middle is 4; of -7, 0, 2 it is 0; of 1, 3, 2 it is 2."""
    result = fold([update([4, -7], 1), update([-1, 0], 3), update([100, 2], 2)])

    np.testing.assert_array_equal(result.weights["w"], [[14, 1]])
    np.testing.assert_array_equal(result.weights["b"], 2.5)
    assert {w.dtype for w in result.weights.values()} == {np.dtype(np.float32)}


def test_of_an_even_count_it_is_the_mean_of_the_middle_two():
    """Of 1, 2, 4, 900: (2 + 4) / 2."""
    result = fold([update([900, 0]), update([1, 0]), update([4, 0]), update([2, 0])])

    np.testing.assert_array_equal(result.weights["w"], [[13, 1]])


def test_two_numbers_at_the_end_of_float32_have_a_finite_mean():
    start = Checkpoint(version=0, weights={"w": np.zeros((1, 2), np.float32)})

    result = fold([update([3e38, 0]), update([3e38, 0])], start=start)

    assert result.weights["w"][0, 0] == np.float32(3e38)


def test_a_minority_cannot_move_a_number_beyond_what_the_others_sent():
    honest = [update([value, 0]) for value in (1, 2, 3)]
    liars = [update([1e30, 0])] * 2

    assert 11 <= fold([*honest, *liars]).weights["w"][0, 0] <= 13


def test_neither_examples_nor_age_give_or_take_weight():
    few, many = [update([1, 0]), update([2, 0]), update([9, 0])], np.array([[12, 1]])

    np.testing.assert_array_equal(fold(few, examples=10_000).weights["w"], many)
    np.testing.assert_array_equal(fold(few, staleness=8).weights["w"], many)


def test_a_robot_with_two_updates_votes_with_its_newest():
    pairs = [
        (Contribution(robot="a", site="", examples=1, staleness=0), update([1, 0])),
        (Contribution(robot="a", site="", examples=1, staleness=2), update([50, 0])),
        (Contribution(robot="b", site="", examples=1), update([3, 0])),
    ]

    result = Median().fold(START, UpdatesInMemory(pairs))

    np.testing.assert_array_equal(result.weights["w"], [[12, 1]])


def test_the_next_checkpoint_has_the_next_version_and_keeps_the_rest():
    result = fold([update([1, 1])])

    assert (result.version, result.seed) == (5, 11)
    assert result.server_state is START.server_state
    np.testing.assert_array_equal(START.weights["w"], [[10, 1]])


def test_no_update_is_a_round_error():
    with pytest.raises(RoundError, match="no update"):
        fold([])


@pytest.mark.parametrize("memory_mb", [0, -1, float("nan")])
def test_room_for_nothing_is_refused(memory_mb):
    with pytest.raises(SettingsError, match=r"memory_mb is .*, expected above 0"):
        Median(memory_mb)


rows = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=7, max_size=7), min_size=1, max_size=9
)


@given(rows=rows, numbers=st.integers(1, 70))
def test_in_pieces_of_any_size_it_is_the_median_of_numpy(rows, numbers):
    start = Checkpoint(version=0, weights={"w": np.zeros((1, 7), np.float32)})

    result = fold([update(row) for row in rows], Median(numbers * 4 / 1e6), start)

    expected = np.median(np.array(rows, np.float64), axis=0).astype(np.float32)
    np.testing.assert_array_equal(result.weights["w"][0], expected)


class Reading(UpdatesInMemory):
    """Note how much is read at a time."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.pieces = []

    def numbers(self, one, name, start, stop):
        self.pieces.append((one.robot, name, start, stop))
        return super().numbers(one, name, start, stop)


def test_more_robots_make_smaller_pieces_and_every_number_is_read_once():
    start = Checkpoint(version=0, weights={"w": np.zeros((1, 1000), np.float32)})
    for robots in (1, 4, 40):
        pairs = [
            (Contribution(robot=f"r{n:02}", site="", examples=1), update([n] * 1000))
            for n in range(robots)
        ]
        reading = Reading(pairs)

        Median(memory_mb=0.002).fold(start, reading)  # room for 500 numbers

        assert {stop - start for *_, start, stop in reading.pieces} <= {500, 125, 12, 1000 % 12}
        spans = [(start, stop) for robot, _, start, stop in reading.pieces if robot == "r00"]
        assert [number for span in spans for number in range(*span)] == list(range(1000))
        assert len(reading.pieces) == robots * len(spans)
