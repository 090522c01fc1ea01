import math
from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.training.class_shares import class_shift
from edge_agent.training.rows import Rows
from fleet_model.errors import TrainingError
from fleet_model.types import Target, TrainConfig

pytestmark = pytest.mark.base
ON = TrainConfig(logit_adjustment=2.0)


def workload(**about):
    task = SimpleNamespace(targets={"class": None}, classes=("cup", "fork", "plate"))
    return SimpleNamespace(task=task, **about)


def spec(*tensors):
    named = SimpleNamespace(name="vectors")
    return SimpleNamespace(tensors=dict.fromkeys(tensors), workload=named)


def rows(*targets):
    """`targets` are (class, weight)."""
    made = [Target(tensors={"class": np.array(c, np.int32)}, weight=w) for c, w in targets]
    return Rows([{}] * len(made), made)


def test_logits_are_shifted_by_the_robots_own_shares():
    """Three cups, one fork that counts twice, no plate: 3.5, 2.5, .5 of 6.5 beside 1/3, tau 2."""
    some = rows((0, 1), (1, 2), (0, 1), (0, 1))

    shift = class_shift(workload(class_bias="bias"), spec("kernel", "bias"), some, ON)

    expected = [2 * math.log(3 * share / 6.5) for share in (3.5, 2.5, 0.5)]
    assert list(shift) == ["bias"]
    assert shift["bias"].dtype == np.float32
    np.testing.assert_allclose(shift["bias"], expected, rtol=1e-6)


def test_a_workload_with_many_things_in_an_example_counts_them_itself():
    """Two cups and a fork, and a frame of weight 2 with a fork: 2.5, 3.5 and .5 of 6.5."""
    boxes = workload(class_bias="bias", class_counts=lambda t: np.bincount(t["class"], minlength=3))
    two = [
        Target(tensors={"class": np.array(classes)}, weight=weight)
        for classes, weight in (([0, 0, 1], 1), ([1], 2))
    ]

    shift = class_shift(boxes, spec("bias"), Rows([{}] * 2, two), TrainConfig(logit_adjustment=1.0))

    expected = [math.log(3 * share / 6.5) for share in (2.5, 3.5, 0.5)]
    np.testing.assert_allclose(shift["bias"], expected, rtol=1e-6)


def test_equal_shares_shift_nothing():
    shift = class_shift(workload(class_bias="bias"), spec("bias"), rows((0, 1), (1, 1), (2, 1)), ON)

    np.testing.assert_allclose(shift["bias"], 0, atol=1e-6)


def test_it_is_off_by_default_also_for_workloads_without_classes():
    assert class_shift(SimpleNamespace(), spec("kernel"), rows((0, 1)), TrainConfig()) == {}


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({}, "logit_adjustment is 2, and the workload 'vectors' has no class bias, by which"),
        ({"class_bias": "bias"}, "logit_adjustment is 2, and 'bias', by which it works, is not"),
    ],
)
def test_where_it_cannot_work_the_round_is_refused(about, words):
    with pytest.raises(TrainingError, match=words) as caught:
        class_shift(workload(**about), spec("kernel"), rows((0, 1)), ON)

    assert str(caught.value).endswith("set it to 0 in [training] of the server's server.toml")
