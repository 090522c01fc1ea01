import pytest

from cloud_server.aggregation.rules.fedexp import FedExP
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base


def w(checkpoint):
    return checkpoint.weights["w"][0].tolist()


def test_where_updates_differ_the_step_is_longer(fold):
    """Four at right angles or opposite: the mean is (1, 0), |d|^2 = 1, epsilon 1.

    Squares: (25 + 9 + 16 + 16) / 4 = 16.5; / (2 * 2) = 4.125.
    """
    changes = [(5, 0), (-3, 0), (1, 15**0.5), (1, -(15**0.5))]

    assert w(fold(FedExP(epsilon=1.0), changes)) == pytest.approx([14.125, 1])


def test_the_step_is_never_shorter_than_that_of_fedavg(fold):
    assert w(fold(FedExP(), [(4, 2), (4, 2)])) == [14, 3]


def test_examples_and_age_weigh(fold):
    """Lengths as they count: 8 * .5 = 4 and 2; d = (1 * 4 + 3 * -2) / 4 = -.5.

    Squares: (16 + 3 * 4) / 4 = 7; / (2 * (.25 + .75)) = 3.5; 10 - 1.75.
    """
    result = fold(FedExP(epsilon=0.75), [(8, 0), (-2, 0)], examples=[1, 3], staleness=[3, 0])

    assert w(result) == pytest.approx([8.25, 1])


def test_an_epsilon_of_0_is_refused():
    with pytest.raises(SettingsError, match="epsilon is 0, expected above 0"):
        FedExP(epsilon=0)
