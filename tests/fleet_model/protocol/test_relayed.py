"""A mean with the rest of its sum: nothing of the sum is lost, and nothing else fits in."""

import numpy as np
import pytest

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.mean import average, exact_sums
from fleet_model.errors import UpdateError
from fleet_model.protocol.relayed import LOW, require_low, speaks_for, split
from fleet_model.types import Update

pytestmark = pytest.mark.base
EXAMPLES = {"a": 20, "b": 35, "c": 50}


def update(weights, examples=55, low=None, **metrics):
    groups = {} if low is None else {LOW: low}
    return Update(
        robot="relay", base_version=0, weights=weights, num_examples=examples, num_steps=1,
        groups=groups, metrics=metrics,
    )  # fmt: skip


def drawn(name):
    return {"w": np.random.default_rng(ord(name)).normal(0, 0.01, (1280, 20)).astype(np.float32)}


def contributions(*parts):
    pairs = [
        (Contribution(robot=str(n), site="", examples=one.num_examples), one)
        for n, one in enumerate(parts)
    ]
    return UpdatesInMemory(pairs)


def test_the_sum_is_split_by_hand():
    mean, low = split({"w": np.array([1.0, 0.1, 3.0])}, 3)

    third, thirtieth = np.float32(1 / 3), np.float32(0.1 / 3)
    assert mean["w"].tolist() == [third, thirtieth, 1.0]
    assert low["w"].tolist() == [
        np.float32(1.0 - 3 * float(third)),
        np.float32(0.1 - 3 * float(thirtieth)),
        0.0,
    ]


def test_a_relayed_mean_is_the_mean_of_all_robots_to_the_last_bit():
    like = {"w": np.zeros((1280, 20), np.float32)}
    direct = average(contributions(*(update(drawn(n), k) for n, k in EXAMPLES.items())), like)
    sums, examples = exact_sums(contributions(*(update(drawn(n), EXAMPLES[n]) for n in "ab")), like)
    mean, low = split(sums, int(examples))
    relayed = average(contributions(update(mean, 55, low), update(drawn("c"), 50)), like)

    assert (relayed["w"] == direct["w"]).all()
    without = average(contributions(update(mean, 55), update(drawn("c"), 50)), like)
    assert (without["w"] != direct["w"]).mean() > 0.1  # so it is `low` that does it


def test_low_is_no_second_update():
    weights = {"w": np.array([1.0, 0.0], np.float32)}
    least = np.spacing(np.float32(1.0))
    require_low(update(weights, 2, {"w": np.array([2 * least, 0.0], np.float32)}))

    for wrong in ([3 * least, 0.0], [0.0, 1e-30]):
        with pytest.raises(UpdateError, match="more than the last bit"):
            require_low(update(weights, 2, {"w": np.array(wrong, np.float32)}))
    with pytest.raises(UpdateError, match="relay's update"):
        require_low(update(weights, 2, {"w": np.zeros(3, np.float32)}))
    with pytest.raises(UpdateError, match="finite"):
        require_low(update(weights, 2, {"w": np.array([np.nan, 0.0], np.float32)}))


@pytest.mark.parametrize(
    ("told", "most", "counts"), [(3.0, 12, 3), (40.0, 12, 12), (3.0, 1, 1), (-2.0, 12, 1)]
)
def test_a_relay_speaks_for_no_more_robots_than_the_register_says(told, most, counts):
    assert speaks_for(update({}, relayed_robots=told), most) == counts


def test_a_robot_speaks_for_itself():
    assert speaks_for(update({}), 12) == 1
