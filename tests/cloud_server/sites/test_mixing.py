import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.sites import mixing
from cloud_server.sites.mixing import mixed

pytestmark = pytest.mark.base
SHARE = st.floats(0, 1)


def test_by_hand():
    own = np.array([[0.0], [4.0], [10.0]], np.float32)
    examples = np.array([1.0, 3.0, 4.0])

    after, fleet = mixed(own, examples, np.array([0, 0, 1]), 0.5, 0.25)

    # the cluster's mean is 3, the fleet's (0 + 12 + 40) / 8 = 6.5
    # near: 1.5, 3.5, 10; next: 0.75 near + 0.25 * 6.5
    assert after.tolist() == [[2.75], [4.25], [9.125]]
    assert fleet.tolist() == [6.5]


def test_a_single_site_keeps_every_bit():
    own = np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32)

    after, fleet = mixed(own, np.array([17.0]), np.array([0]), 0.3, 0.2)

    assert after.tobytes() == own.tobytes()
    assert fleet.tobytes() == own.tobytes()


@given(st.integers(0, 1000), SHARE, SHARE)
def test_the_fleet_s_mean_is_that_before_and_after_mixing(seed, cluster_mixing, global_mix):
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(5, 2, 3)).astype(np.float32)
    examples, clusters = rng.uniform(1, 9, 5), np.array([0, 1, 0, 2, 1])

    after, fleet = mixed(own, examples, clusters, cluster_mixing, global_mix)

    expected = np.tensordot(examples / examples.sum(), own, axes=1)
    np.testing.assert_allclose(fleet, expected, atol=1e-6)
    np.testing.assert_allclose(
        np.tensordot(examples / examples.sum(), after, axes=1), expected, atol=1e-6
    )


def test_full_mixing_gives_all_the_same_and_none_changes_nothing():
    own = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    examples, clusters = np.array([1.0, 2, 3, 4]), np.array([0, 1, 0, 1])

    same, fleet = mixed(own, examples, clusters, 0.3, 1.0)
    kept, _ = mixed(own, examples, clusters, 0.0, 0.0)
    near, _ = mixed(own, examples, clusters, 1.0, 0.0)

    assert all(row.tolist() == fleet.tolist() for row in same)
    assert kept.tobytes() == own.tobytes()
    assert near[0].tolist() == near[2].tolist() != near[1].tolist()


def test_pieces_give_what_the_whole_gives(monkeypatch):
    own = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    given_ = (own, np.array([1.0, 2, 3]), np.array([0, 0, 1]), 0.3, 0.2)
    whole = mixed(*given_)
    monkeypatch.setattr(mixing, "_PIECE", 7)

    np.testing.assert_allclose(mixed(*given_)[0], whole[0], atol=1e-7)
    np.testing.assert_allclose(mixed(*given_)[1], whole[1], atol=1e-7)
