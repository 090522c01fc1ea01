"""What holds for each rule of the table."""

import numpy as np
import pytest

from cloud_server.aggregation.aggregator import AGGREGATORS, build_aggregator
from cloud_server.aggregation.contributions import UpdatesInMemory
from fleet_model.errors import RoundError

pytestmark = pytest.mark.base
RULES = sorted(AGGREGATORS)
SEVEN = [(4, -7, 1), (3, -6, 2), (5, -8, 0), (4, -6, 1), (3, -8, 1), (5, -7, 2), (4, -7, 0)]


@pytest.mark.parametrize("name", RULES)
def test_the_next_checkpoint_has_float32_of_the_same_shapes_and_keeps_the_rest(name, fold, start):
    result = fold(build_aggregator(name, {}), SEVEN)

    assert (result.version, result.seed) == (5, 11)
    np.testing.assert_array_equal(result.server_state["s"], [1])
    assert {k: (w.shape, w.dtype.name) for k, w in result.weights.items()} == {
        "w": ((1, 2), "float32"),
        "b": ((), "float32"),
    }
    np.testing.assert_array_equal(start.weights["w"], [[10, 1]])


@pytest.mark.parametrize("name", RULES)
def test_all_robots_that_agree_are_followed(name, fold):
    """Each number moves to the side on which all updates are; by how much is the rule's."""
    result = fold(build_aggregator(name, {}), SEVEN)

    assert result.weights["w"][0, 0] > 10
    assert result.weights["w"][0, 1] < 1


@pytest.mark.parametrize("name", RULES)
def test_a_round_without_updates_fails_with_words(name, start):
    with pytest.raises(RoundError, match=r"no update|robots answered"):
        build_aggregator(name, {}).fold(start, UpdatesInMemory([]))


@pytest.mark.parametrize(
    "name", sorted(set(RULES) - {"fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold"})
)
def test_rules_without_memory_keep_nothing_of_a_round(name, fold):
    assert set(fold(build_aggregator(name, {}), SEVEN).server_state) == {"s"}


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "krum", "multi_krum", "norm_bounded"])
@pytest.mark.parametrize("hostile", [(-4e4, 7e4, -1e4), (4e8, 7e8, 1e8)], ids=["flipped", "scaled"])
def test_one_robot_of_eight_that_sends_anything_leaves_robust_rules_near_the_others(
    name, hostile, fold
):
    result = fold(build_aggregator(name, {}), [*SEVEN, hostile])

    np.testing.assert_allclose(result.weights["w"], [[14, -6]], atol=3.1)
