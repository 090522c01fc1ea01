import numpy as np
import pytest

from cloud_server.aggregation.rules.fedopt import FedAdagrad, FedAdam, FedYogi
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base
OPTIONS = {"learning_rate": 0.5, "beta_1": 0.5, "beta_2": 0.75, "tau": 1.0}


def w0(checkpoint):
    return float(checkpoint.weights["w"][0, 0])


def two_rounds(fold, rule):
    """Return the first number after the mean updates 4 and 2."""
    first = fold(rule(**OPTIONS), [(2, 0), (6, 0)])
    return w0(first), w0(fold(rule(**OPTIONS), [(1, 0), (3, 0)], first))


def test_fedadagrad(fold):
    """m = 2, v = 16: .5 * 2 / (4 + 1) = .2; m = 2, v = 20: .5 * 2 / (sqrt(20) + 1)."""
    assert two_rounds(fold, FedAdagrad) == pytest.approx((10.2, 10.2 + 1 / (20**0.5 + 1)))


def test_fedyogi(fold):
    """v = .25 * 16 = 4: 1 / 3; d^2 = 4 equals v, whose sign is 0: v stays 4, m = 2: 1 / 3."""
    assert two_rounds(fold, FedYogi) == pytest.approx((10 + 1 / 3, 10 + 2 / 3))


def test_fedyogi_lets_v_shrink_slowly(fold):
    """d = 4, v = 4; then d = 0: v = 4 - .25 * 0 * sign(4) = 4, where Adam has 3."""
    first = fold(FedYogi(**OPTIONS), [(4, 0)])

    assert fold(FedYogi(**OPTIONS), [(0, 0)], first).server_state["fedyogi/v/w"][0, 0] == 4


def test_fedadam_corrects_the_rate_by_its_own_rounds(fold):
    """Round 1: sqrt(.25) / .5 = 1; m = 2, v = 4: .5 * 2 / 3.

    Round 2: sqrt(1 - .75^2) / (1 - .25); m = 2, v = .75 * 4 + .25 * 4 = 4: .5 * 2 / 3.
    """
    second = (1 - 0.75**2) ** 0.5 / 0.75

    assert two_rounds(fold, FedAdam) == pytest.approx((10 + 1 / 3, 10 + 1 / 3 + second / 3))


def test_what_is_kept_is_small_and_float32(fold, start):
    state = fold(FedAdam(), [(1, 2, 3)]).server_state

    assert {k: (v.shape, v.dtype.name) for k, v in state.items() if k != "s"} == {
        "fedadam/m/w": ((1, 2), "float32"),
        "fedadam/v/w": ((1, 2), "float32"),
        "fedadam/m/b": ((), "float32"),
        "fedadam/v/b": ((), "float32"),
        "fedadam/step": ((1,), "int64"),
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beta_1": 1.0}, "beta_1 is 1, expected 0 or more and below 1"),
        ({"beta_2": -0.1}, "beta_2 is -0.1, expected 0 or more"),
        ({"tau": 0.0}, "tau is 0, expected above 0"),
        ({"learning_rate": np.inf}, "learning_rate is inf"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(SettingsError, match=words):
        FedAdam(**options)
