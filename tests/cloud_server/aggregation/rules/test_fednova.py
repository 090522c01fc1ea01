import logging

import pytest

from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.aggregation.rules.fednova import FedNova
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base


def w0(checkpoint):
    return float(checkpoint.weights["w"][0, 0])


def test_robots_that_take_more_steps_do_not_pull_more(fold):
    """Without momentum: t = (2 + 8) / 2 = 5; 5 * (4 / 2 + 8 / 8) / 2 = 7.5; FedAvg: 6."""
    changes, steps = [(4, 0), (8, 0)], [2, 8]

    assert w0(fold(FedNova(momentum=0), changes, steps=steps)) == 17.5
    assert w0(fold(FedAvg(), changes, steps=steps)) == 16


def test_examples_weigh(fold):
    """p = 1/4, 3/4: t = .25 * 2 + .75 * 4 = 3.5; 3.5 * (.25 * 4 / 2 + .75 * 8 / 4) = 7."""
    result = fold(FedNova(momentum=0), [(4, 0), (8, 0)], steps=[2, 4], examples=[1, 3])

    assert w0(result) == 17


def test_momentum_lets_steps_carry_further(fold):
    """r = .5: one step reaches (1 - .5 * .5 / .5) / .5 = 1, two reach (2 - .75) / .5 = 2.5.

    a = (1.5, 1) for two steps: the first gradient goes on by half. t = 1.75;
    1.75 * (4 / 1 + 5 / 2.5) / 2 = 5.25.
    """
    assert w0(fold(FedNova(momentum=0.5), [(4, 0), (5, 0)], steps=[1, 2])) == 15.25


def test_equal_steps_give_what_fedavg_gives(fold):
    changes, about = [(1, 2), (3, 4), (8, -2)], {"steps": [7] * 3, "examples": [1, 2, 5]}

    assert w0(fold(FedNova(), changes, **about)) == pytest.approx(
        w0(fold(FedAvg(), changes, **about))
    )


def test_steps_that_nobody_else_takes_count_as_a_bounded_number(fold, caplog):
    """10 * the median of 4 is 40: as if the last robot had said so."""
    changes = [(4, 0), (4, 0), (4, 0)]

    with caplog.at_level(logging.WARNING):
        claimed = fold(FedNova(), changes, steps=[4, 4, 10**12])

    assert caplog.messages == ["r002: of 1000000000000 steps that it says it took 40 count"]
    assert w0(claimed) == w0(fold(FedNova(), changes, steps=[4, 4, 40]))
    assert w0(fold(FedNova(), changes, steps=[0, -3, 0])) == 14  # a word, too: as one step


def test_options_out_of_range_are_refused():
    with pytest.raises(SettingsError, match=r"max_steps_ratio is 0\.5, expected 1 or more"):
        FedNova(max_steps_ratio=0.5)
