import numpy as np
import pytest

from cloud_server.aggregation.rules.fedavgm import FedAvgM
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base


def test_the_last_steps_go_on(fold):
    """d = 4, then 2: v = 4, then .5 * 4 + 2 = 4; w = 10 + .25 * 4 = 11, then 12."""
    rule = FedAvgM(momentum=0.5, learning_rate=0.25)

    first = fold(rule, [(2, 0), (6, 0)])
    second = fold(FedAvgM(momentum=0.5, learning_rate=0.25), [(1, 0), (3, 0)], first)

    assert first.weights["w"][0, 0] == 11
    assert second.weights["w"][0, 0] == 12  # by another object: all that it remembers is kept
    np.testing.assert_array_equal(second.server_state["fedavgm/w"], [[4, 0]])


def test_examples_and_age_weigh_as_in_fedavg(fold):
    """(1 * 4 + 3 * 8 * s) / 4 with s = 1 / sqrt(1 + 3) = .5: 4."""
    result = fold(FedAvgM(), [(4, 0), (8, 0)], examples=[1, 3], staleness=[0, 3])

    assert result.weights["w"][0, 0] == 14


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"momentum": 1.0}, "momentum is 1, expected 0 or more and below 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0, expected above 0"),
        ({"momentum": float("nan")}, "momentum is nan, expected 0 or more and below 1"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(SettingsError, match=words):
        FedAvgM(**options)
