import numpy as np
import pytest

from cloud_server.aggregation.rules.norm_bounded import NormBounded
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base


def test_longer_updates_are_cut_to_the_bound(fold):
    """(3, 4) has the length 5: cut to 2.5 it is (1.5, 2); (1, 0) stays: the mean is (1.25, 1)."""
    result = fold(NormBounded(max_norm=2.5), [(3, 4), (1, 0)])

    np.testing.assert_allclose(result.weights["w"], [[11.25, 2]])


def test_the_bound_is_the_median_of_the_round_unless_it_is_set(fold):
    """Lengths 1, 2, 600: the last becomes 2: (1 + 2 + 2) / 3; of two the shorter one is it."""
    assert fold(NormBounded(), [(1, 0), (2, 0), (600, 0)]).weights["w"][0, 0] == pytest.approx(
        10 + 5 / 3
    )
    assert fold(NormBounded(), [(1, 0), (600, 0)]).weights["w"][0, 0] == 11


def test_examples_and_age_weigh_as_in_fedavg(fold):
    """(1 * 4 + 3 * 8 * .5) / 4 = 4."""
    result = fold(NormBounded(max_norm=100), [(4, 0), (8, 0)], examples=[1, 3], staleness=[0, 3])

    assert result.weights["w"][0, 0] == 14


def test_updates_of_nothing_but_zeros_change_nothing(fold):
    np.testing.assert_array_equal(fold(NormBounded(), [(0, 0)] * 3).weights["w"], [[10, 1]])


def test_a_negative_bound_is_refused():
    with pytest.raises(SettingsError, match="max_norm is -1, expected 0 or more"):
        NormBounded(max_norm=-1)
