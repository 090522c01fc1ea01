import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.aggregation.fedavg import FedAvg
from cloud_server.aggregation.staleness import scaled, staleness_weight
from fleet_model.types import Checkpoint, Update

pytestmark = pytest.mark.base


def update(values=(2.0, -4.0), **weights):
    weights = {"w": np.array(values, np.float32), **weights}
    return Update(robot="r", base_version=1, weights=weights, num_examples=7, num_steps=3)


@pytest.mark.parametrize(("staleness", "weight"), [(0, 1.0), (3, 0.5), (8, 1 / 3), (99, 0.1)])
def test_the_weight_is_that_of_the_paper(staleness, weight):
    assert staleness_weight(staleness) == pytest.approx(weight, rel=1e-15)


def test_a_fresh_update_is_handed_on_as_it_is():
    fresh = update()

    assert scaled(fresh, 0) is fresh


def test_an_old_update_is_shortened_and_nothing_else_of_it_changes():
    old = update(scalar=np.array(8.0, np.float32))

    shorter = scaled(old, 3)

    np.testing.assert_array_equal(shorter.weights["w"], [1, -2])
    assert shorter.weights["scalar"].shape == ()
    assert {w.dtype for w in shorter.weights.values()} == {np.dtype(np.float32)}
    assert (shorter.robot, shorter.num_examples, shorter.num_steps) == ("r", 7, 3)
    np.testing.assert_array_equal(old.weights["w"], [2, -4])


def test_any_rule_takes_it_and_its_examples_still_count_in_the_mean():
    """(7 * 2 + 7 * 1) / 14 = 1.5: an old update pulls less, it does not speak for fewer."""
    rule = FedAvg()
    rule.begin(Checkpoint(version=1, weights={"w": np.zeros(1, np.float32)}))
    rule.add(update([2.0]))
    rule.add(scaled(update([2.0]), 3))

    np.testing.assert_array_equal(rule.finish().weights["w"], [1.5])


@given(staleness=st.integers(0, 10_000))
def test_older_never_counts_more(staleness):
    assert 0 < staleness_weight(staleness + 1) < staleness_weight(staleness) <= 1
