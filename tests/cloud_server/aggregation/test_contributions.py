import numpy as np
import pytest

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from fleet_model.types import Update

pytestmark = pytest.mark.base


def one(robot="r", examples=6, staleness=0):
    return Contribution(robot=robot, site="hall", examples=examples, staleness=staleness)


def update(value=1.0):
    weights = {"w": np.full((2, 3), value, np.float32)}
    return Update(robot="r", base_version=1, weights=weights, num_examples=999, num_steps=1)


def test_the_weight_is_the_examples_discounted_by_age():
    assert (one(examples=6, staleness=3).discount, one(examples=6, staleness=3).weight) == (
        0.5,
        3.0,
    )
    assert one(examples=6).weight == 6.0


def test_two_contributions_of_the_same_numbers_are_two():
    first, second = one(), one()
    both = UpdatesInMemory([(first, update(1.0)), (second, update(2.0))])

    assert len(both) == 2
    assert [both.tensor(each, "w")[0, 0] for each in (first, second)] == [1.0, 2.0]


def test_they_come_by_robot_and_oldest_first_whatever_the_order_they_were_given_in():
    some = [one("b"), one("a", staleness=1), one("a"), one("a", staleness=2)]
    all_of_them = UpdatesInMemory([(each, update()) for each in some])

    expected = [("a", 2), ("a", 1), ("a", 0), ("b", 0)]
    for _ in range(2):
        assert [(each.robot, each.staleness) for each in all_of_them] == expected


def test_an_update_has_the_examples_that_count_and_its_tensors_as_they_were_sent():
    old = one(examples=6, staleness=3)
    given = UpdatesInMemory([(old, update(5.0))])

    assert given.update(old).num_examples == 6
    np.testing.assert_array_equal(given.update(old).weights["w"], np.full((2, 3), 5.0))
    np.testing.assert_array_equal(given.numbers(old, "w", 4, 99), [5.0, 5.0])
