import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.trimmed_mean import TrimmedMean
from fleet_model.errors import RoundError, SettingsError
from fleet_model.types import Checkpoint, Update

pytestmark = pytest.mark.base


def test_the_ends_are_left_out_of_each_number(fold):
    """Of 1, 2, 3, 7, 900: (2 + 3 + 7) / 3 = 4; of 5, -900, 1, 0, 2: (0 + 1 + 2) / 3 = 1."""
    changes = [(900, 5), (1, -900), (7, 1), (2, 0), (3, 2)]

    np.testing.assert_allclose(fold(TrimmedMean(), changes).weights["w"], [[14, 2]])


def test_a_share_that_is_no_binary_number_is_rounded_as_a_person_would(fold):
    """.29 * 100 is 28.99...: 29 at each end are left out, and the 42 in the middle stay."""
    changes = [(1e6, 0)] * 29 + [(2, 0)] * 42 + [(-1e6, 0)] * 29

    assert fold(TrimmedMean(share=0.29), changes).weights["w"][0, 0] == 12


def test_too_few_robots_are_refused_rather_than_averaged(fold):
    words = "4 robots answered.* share 0.2 leaves out nobody: set rounds.quorum = 5 at least"
    with pytest.raises(RoundError, match=words):
        fold(TrimmedMean(), [(1, 0)] * 4)


def test_a_robot_has_one_vote(fold, start):
    def pair(robot, value, staleness):
        weights = {"w": np.array([[value, 0]], np.float32), "b": np.array(0, np.float32)}
        made = Update(robot="", base_version=4, weights=weights, num_examples=1, num_steps=1)
        return Contribution(robot=robot, site="", examples=1, staleness=staleness), made

    pairs = [pair(f"r{n}", n, 0) for n in range(5)]
    twice = [*pairs, *(pair("r4", 1e9, age) for age in (1, 2, 3))]

    a, b = (TrimmedMean().fold(start, UpdatesInMemory(p)).weights["w"] for p in (pairs, twice))
    np.testing.assert_array_equal(a, b)


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=5, max_size=12),
    st.sampled_from([1e-9, 1e-4, 64.0]),
)
def test_it_is_the_mean_of_what_sorting_leaves_in_whatever_pieces(values, memory_mb):
    start = Checkpoint(version=0, weights={"w": np.zeros((3, 2), np.float32)})
    columns = [np.roll(np.arange(6), n).reshape(3, 2) * np.float32(v) for n, v in enumerate(values)]
    pairs = [
        (
            Contribution(robot=f"r{n:02}", site="", examples=1),
            Update(
                robot="",
                base_version=0,
                weights={"w": c.astype(np.float32)},
                num_examples=1,
                num_steps=1,
            ),
        )
        for n, c in enumerate(columns)
    ]
    cut = int(0.2 * len(values))
    kept = np.sort(np.float32(columns), axis=0)[cut : len(values) - cut]

    result = TrimmedMean(memory_mb=memory_mb).fold(start, UpdatesInMemory(pairs))

    np.testing.assert_allclose(
        result.weights["w"], kept.mean(axis=0, dtype=np.float64), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(SettingsError, match=f"share is {share:g}, expected above 0 and below 0.5"):
        TrimmedMean(share=share)
