import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.sites.kmeans import in_order, k_means

pytestmark = pytest.mark.base
# Two pairs and one point far away: the means are 1, 11 and 100.
LINE = np.array([[0.0], [2.0], [10.0], [12.0], [100.0]])


@pytest.mark.parametrize(
    ("k", "labels", "inertia"),
    [
        (1, [0, 0, 0, 0, 0], 7172.8),  # the mean is 24.8
        (2, [0, 0, 0, 0, 1], 104.0),  # of 0, 2, 10, 12: the mean is 6
        (3, [0, 0, 1, 1, 2], 4.0),
        (5, [0, 1, 2, 3, 4], 0.0),
    ],
)
def test_hand_made_points_fall_into_the_groups_with_the_least_inertia(k, labels, inertia):
    found = k_means(LINE, k, seed=0)

    assert found.labels.tolist() == labels
    assert found.inertia == pytest.approx(inertia, abs=1e-9)


def test_a_point_as_near_to_two_means_goes_to_the_first_and_the_same_seed_gives_the_same():
    points = np.array([[0.0], [1.0], [2.0]])

    one, other = k_means(points, 2, seed=3), k_means(points, 2, seed=3)

    assert one.inertia == pytest.approx(0.5)
    assert one.labels.tolist() == other.labels.tolist()
    assert one.labels.tolist() in ([0, 0, 1], [0, 1, 1])


def test_copies_of_one_point_are_one_group_however_many_are_asked_for():
    found = k_means(np.full((4, 3), 7.0), 3, seed=0)

    assert found.labels.tolist() == [0, 0, 0, 0]
    assert found.inertia == 0


def test_fewer_distinct_points_than_groups_are_told_apart():
    found = k_means(np.array([[1.0], [5.0], [1.0], [5.0]]), 3, seed=0)

    assert found.labels.tolist() == [0, 1, 0, 1]
    assert found.inertia == 0


@pytest.mark.parametrize("k", [0, 3])
def test_more_groups_than_points_are_refused(k):
    with pytest.raises(ValueError, match=f"k is {k}, expected 1 to 2"):
        k_means(np.zeros((2, 1)), k, seed=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        k_means(np.array([[0.0], [bad]]), 1, seed=0)


def test_groups_are_numbered_in_the_order_of_their_first_points():
    assert in_order(np.array([5, 2, 5, 9, 2])).tolist() == [0, 1, 0, 2, 1]


@given(st.integers(0, 2**31), st.integers(1, 6), st.sampled_from([0.0, 1000.0]))
def test_no_other_labels_of_single_points_give_less_inertia_wherever_they_lie(seed, k, shift):
    points = np.random.default_rng(seed).normal(size=(8, 2))

    found = k_means(points + shift, k, seed=1)

    # By hand, on the points as they were: a shift may end in another of several optima.
    means = np.stack([points[found.labels == g].mean(0) for g in range(found.labels.max() + 1)])
    squares = ((points[:, None] - means) ** 2).sum(2)
    assert found.inertia == pytest.approx(squares[range(8), found.labels].sum(), rel=1e-6)
    assert found.inertia == pytest.approx(squares.min(1).sum(), rel=1e-6)
