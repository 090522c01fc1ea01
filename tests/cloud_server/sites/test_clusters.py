import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.sites import clusters
from cloud_server.sites.clusters import (
    AXES,
    adjusted_rand,
    elbow,
    find_clusters,
    silhouette,
    similarity,
)

pytestmark = pytest.mark.base
TWO = np.array([[0.0], [2.0], [10.0], [12.0]])


def clouds(sites, groups, apart, axes=40, seed=0):
    """Return points around `groups` middles that are `apart` spreads from each other."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(groups, axes))
    middles *= apart / np.sqrt(2 * axes)
    truth = np.arange(sites) % groups
    noise = rng.normal(size=(sites, axes)) / np.sqrt(2 * axes)
    return middles[truth] + noise, truth


def test_the_silhouette_of_four_points_by_hand():
    # 0: a = 2, b = (10 + 12) / 2 = 11; 2: a = 2, b = (8 + 10) / 2 = 9; the others mirror them.
    expected = (9 / 11 + 7 / 9) / 2

    assert silhouette(TWO, np.array([0, 0, 1, 1])) == pytest.approx(expected)
    assert silhouette(TWO, np.array([0, 0, 1, 1]), np.array([0])) == pytest.approx(9 / 11)


def test_a_point_by_itself_counts_as_0_and_one_cluster_too():
    # 0 and 2 stay as they were towards one point at 10; 10 is alone.
    assert silhouette(TWO[:3], np.array([0, 0, 1])) == pytest.approx((8 / 10 + 6 / 8 + 0) / 3)
    assert silhouette(TWO, np.zeros(4, int)) == 0
    assert silhouette(np.zeros((4, 2)), np.array([0, 0, 1, 1])) == 0


def test_the_elbow_is_the_sharpest_bend_and_the_smaller_k_of_two_equals():
    # bends: k=2: 100 - 80 + 30 = 50, k=3: 40 - 60 + 28 = 8, k=4: 30 - 56 + 27 = 1
    assert elbow({1: 100, 2: 40, 3: 30, 4: 28, 5: 27}) == 2
    # k=2: 100 - 180 + 20 = -60, k=3: 90 - 40 + 15 = 65, k=4: 20 - 30 + 14 = 4
    assert elbow({1: 100, 2: 90, 3: 20, 4: 15, 5: 14}) == 3
    assert elbow({1: 20, 2: 10, 3: 5, 4: 0, 5: 0}) == 2  # bends 5, 0 and 5


def test_clear_groups_are_found_with_the_inertia_of_every_k():
    found = find_clusters(TWO)

    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.count == 2
    # around 6: 36 + 16 + 16 + 36; then 1 + 1 + 1 + 1; 0, 2 together and the others apart; none
    assert {k: round(v, 9) for k, v in found.inertia.items()} == {1: 104, 2: 4, 3: 2, 4: 0}
    assert set(found.silhouette) == {2, 3}


@pytest.mark.parametrize("choose", ["elbow", "silhouette"])
@pytest.mark.parametrize("groups", [2, 3, 4])
def test_both_choices_find_two_to_four_clear_groups(groups, choose):
    points, truth = clouds(sites=16, groups=groups, apart=6.0)

    assert adjusted_rand(find_clusters(points, choose).labels, truth) == 1


@given(st.integers(0, 10_000), st.integers(3, 20))
def test_sites_of_one_cloud_of_many_numbers_stay_one_cluster(seed, sites):
    points, _ = clouds(sites, 1, 0.0, axes=200, seed=seed)

    assert find_clusters(points).count == 1


@pytest.mark.parametrize("sites", [1, 2])
def test_one_or_two_sites_are_one_cluster(sites):
    found = find_clusters(np.array([[0.0], [100.0]])[:sites])

    assert found.count == 1
    assert found.silhouette == {}


def test_three_sites_may_be_two_clusters_but_not_three():
    found = find_clusters(np.array([[0.0], [1.0], [50.0]]))

    assert found.labels.tolist() == [0, 0, 1]
    assert set(found.silhouette) == {2}


def test_equal_sites_are_one_cluster():
    assert find_clusters(np.ones((6, 3), np.float32)).count == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        find_clusters(np.array([[0.0], [bad]]))


def test_points_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(0, 2\), expected"):
        find_clusters(np.zeros((0, 2)))
    with pytest.raises(ValueError, match=r"shape \(3,\), expected"):
        find_clusters(np.zeros(3))


@pytest.mark.parametrize("sites", [20, AXES + 40], ids=["exact", "projected"])
def test_long_vectors_are_clustered_as_their_distances_say(sites, monkeypatch):
    points, truth = clouds(sites, 3, apart=3.0, axes=5000)
    short = find_clusters(points.astype(np.float32))
    monkeypatch.setattr(clusters, "AXES", 5000)
    whole = find_clusters(points)

    assert adjusted_rand(short.labels, truth) == 1
    assert short.inertia == pytest.approx(whole.inertia, rel=1e-5 if sites == 20 else 0.05)
    assert short.silhouette == pytest.approx(whole.silhouette, abs=1e-5 if sites == 20 else 0.03)


def test_there_are_no_more_clusters_than_are_wanted():
    points, _ = clouds(40, 4, apart=20.0)

    assert find_clusters(points).count == 4
    found = find_clusters(points, most=3)
    assert found.count <= 3
    assert (set(found.inertia), set(found.silhouette)) == ({1, 2, 3, 4}, {2, 3})
    assert find_clusters(points, most=1).count == 1


def test_of_very_many_sites_a_sample_is_looked_at_and_the_same_one_again(monkeypatch):
    points, truth = clouds(120, 2, apart=4.0)
    monkeypatch.setattr(clusters, "SAMPLE", 30)

    one, other = find_clusters(points), find_clusters(points)

    assert adjusted_rand(one.labels, truth) == 1
    assert one.silhouette == other.silhouette


def test_similarity_is_the_cosine_from_the_mean_and_0_in_it():
    # the mean is (1, 1): the ways are (-1, 0), (1, 0), (0, 1), (0, -1), (0, 0)
    points = np.array([[0.0, 1], [2, 1], [1, 2], [1, 0], [1, 1]])

    expected = [[1, -1, 0, 0, 0], [-1, 1, 0, 0, 0], [0, 0, 1, -1, 0], [0, 0, -1, 1, 0], [0] * 5]
    np.testing.assert_allclose(similarity(points), expected, atol=1e-12)
    np.testing.assert_array_equal(similarity(np.full((2, 3), 0.1, np.float32)), np.zeros((2, 2)))


def test_the_adjusted_rand_index_by_hand():
    truth = np.array([0, 0, 1, 1])

    assert adjusted_rand(np.array([1, 1, 0, 0]), truth) == 1
    assert adjusted_rand(np.zeros(4, int), truth) == 0
    # no pair is together in both: (0 - 2 * 2 / 6) / (2 - 2 * 2 / 6)
    assert adjusted_rand(np.array([0, 1, 0, 1]), truth) == pytest.approx(-0.5)
    assert adjusted_rand(np.zeros(4, int), np.zeros(4, int)) == 1
