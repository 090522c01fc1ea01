import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint, Update

pytestmark = pytest.mark.base


def checkpoint(kernel, bias=(0.0,)):
    weights = {"head/kernel": np.array(kernel, np.float32), "head/bias": np.array(bias, np.float32)}
    state = {"state": np.ones(1, np.float32)}
    return Checkpoint(version=4, weights=weights, server_state=state, seed=11)


def update(kernel, bias=(0.0,), num_examples=1):
    return Update(
        robot="r",
        base_version=4,
        weights={
            "head/kernel": np.array(kernel, np.float32),
            "head/bias": np.array(bias, np.float32),
        },
        num_examples=num_examples,
        num_steps=1,
    )


def average(start, updates):
    """Fold updates of one robot each."""
    pairs = [
        (Contribution(robot=f"r{n:03}", site="hall", examples=one.num_examples), one)
        for n, one in enumerate(updates)
    ]
    return FedAvg().fold(start, UpdatesInMemory(pairs))


def test_the_mean_is_weighted_by_examples():
    """(1*4 + 3*8) / 4 = 7 and (1*(-2) + 3*2) / 4 = 1 are added to 10 and 0.5."""
    updates = [update([4, 0], [-2], num_examples=1), update([8, 0], [2], num_examples=3)]

    result = average(checkpoint([10, 1], [0.5]), updates)

    np.testing.assert_array_equal(result.weights["head/kernel"], [17, 1])
    np.testing.assert_array_equal(result.weights["head/bias"], [1.5])
    assert result.weights["head/kernel"].dtype == np.float32


def test_the_next_checkpoint_has_the_next_version_and_keeps_the_rest():
    start = checkpoint([0])

    result = average(start, [update([1])])

    assert (result.version, result.seed) == (5, 11)
    assert result.server_state is start.server_state


def test_the_checkpoint_that_the_round_starts_from_is_not_changed():
    start = checkpoint([10, 1])

    average(start, [update([4, 4])])

    np.testing.assert_array_equal(start.weights["head/kernel"], [10, 1])


def test_a_second_round_remembers_nothing_of_the_first():
    rule, one = FedAvg(), Contribution(robot="r", site="", examples=1)
    rule.fold(checkpoint([0]), UpdatesInMemory([(one, update([100]))]))

    result = rule.fold(checkpoint([1]), UpdatesInMemory([(one, update([2]))]))

    np.testing.assert_array_equal(result.weights["head/kernel"], [3])


def aged(pairs):
    """Fold updates of (kernel, examples, staleness)."""
    return (
        FedAvg()
        .fold(
            checkpoint([0]),
            UpdatesInMemory(
                [
                    (
                        Contribution(robot=f"r{n}", site="", examples=count, staleness=age),
                        update([value]),
                    )
                    for n, (value, count, age) in enumerate(pairs)
                ]
            ),
        )
        .weights["head/kernel"]
    )


def test_an_old_update_pulls_less_and_its_examples_still_count_in_the_mean():
    """(7 * 2 + 7 * 2 / 2) / 14 = 1.5: age 3 halves the update and not its examples."""
    np.testing.assert_array_equal(aged([(2.0, 7, 0), (2.0, 7, 3)]), [1.5])


@given(
    pairs=st.lists(
        st.tuples(st.floats(-100, 100, width=32), st.integers(1, 100_000), st.integers(0, 40)),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_an_old_update_is_discounted_to_the_bits_of_earlier_releases(pairs):
    """They scaled the update in float32 before the rule saw it, and summed in float64."""
    total = np.zeros(1)
    for value, count, age in pairs:
        scaled = np.array([value], np.float32) * np.float32(1 / np.sqrt(1 + age))
        total += scaled.astype(np.float64) * count
    expected = (total / sum(count for _, count, _ in pairs)).astype(np.float32)

    assert aged(pairs).tobytes() == (np.zeros(1, np.float32) + expected).tobytes()


def test_nothing_to_average_is_a_round_error():
    with pytest.raises(RoundError, match="no update"):
        average(checkpoint([0]), [])


values = st.floats(-100, 100, width=32)
kernels = st.lists(values, min_size=3, max_size=3)
examples = st.integers(1, 100_000)
many = st.lists(st.builds(update, kernels, num_examples=examples), min_size=1, max_size=8)


@given(updates=many, data=st.data())
def test_the_order_of_updates_does_not_matter(updates, data):
    shuffled = data.draw(st.permutations(updates))

    first, second = (
        average(checkpoint([0, 0, 0]), order).weights["head/kernel"]
        for order in (updates, shuffled)
    )

    np.testing.assert_allclose(first, second, rtol=1e-7, atol=1e-7)


@example(kernel=[0.1, 0.1, 0.1], counts=[847])  # 0.1 * 847 / 847 in float32 is 0.10000001
@given(kernel=kernels, counts=st.lists(examples, min_size=1, max_size=20))
def test_equal_updates_are_reproduced_exactly(kernel, counts):
    result = average(checkpoint([0, 0, 0]), [update(kernel, num_examples=n) for n in counts])

    assert result.weights["head/kernel"].tolist() == np.array(kernel, np.float32).tolist()


@given(updates=many, factor=st.integers(2, 50))
def test_only_the_proportion_of_examples_matters(updates, factor):
    more = [
        update(one.weights["head/kernel"], num_examples=one.num_examples * factor)
        for one in updates
    ]

    first, second = (
        average(checkpoint([0, 0, 0]), each).weights["head/kernel"] for each in (updates, more)
    )

    np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-6)


@given(updates=many)
def test_the_mean_lies_between_the_smallest_and_the_largest_update(updates):
    rows = np.array([one.weights["head/kernel"] for one in updates])

    mean = average(checkpoint([0, 0, 0]), updates).weights["head/kernel"]

    assert (mean >= rows.min(axis=0)).all()
    assert (mean <= rows.max(axis=0)).all()
