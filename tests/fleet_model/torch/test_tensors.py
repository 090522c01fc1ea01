"""A module's tensors travel as NumPy float32, dense kernels as (in, out)."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch


@pytest.fixture
def model():
    import torch
    from torch import nn

    torch.manual_seed(0)
    made = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2), nn.LayerNorm(2))
    made.register_buffer("steps", torch.arange(4))
    return made


def found(model):
    from fleet_model.torch.tensors import slots

    return slots(model, lambda name: name.replace(".", "/"))


def test_the_weight_of_a_linear_layer_is_a_turned_kernel(model):
    slots = found(model)
    assert {name: slot.shape for name, slot in slots.items()} == {
        "steps": (4,), "0/weight": (5, 3), "1/kernel": (3, 2), "1/bias": (2,), "2/weight": (2,),
        "2/bias": (2,),
    }  # fmt: skip
    kernel = slots["1/kernel"].value()
    assert kernel.flags.c_contiguous
    np.testing.assert_array_equal(kernel, model[1].weight.detach().numpy().T)


def test_what_is_assigned_is_what_is_read(model):
    rng = np.random.default_rng(0)
    for name, slot in found(model).items():
        value = rng.normal(size=slot.shape).astype(np.float32)
        if name == "steps":
            value = np.arange(4, 8)
        value.flags.writeable = False  # as a mapped file is
        slot.assign(value)
        assert slot.value().dtype == value.dtype
        np.testing.assert_array_equal(slot.value(), value)


def test_a_value_is_a_copy(model):
    slot = found(model)["1/bias"]
    before = slot.value()
    slot.assign(before + 1)
    assert not np.array_equal(before, slot.value())


def test_a_gradient_is_turned_as_its_tensor_is_and_zeros_if_it_was_not_used(model):
    import torch

    model[1](torch.ones(4, 3)).square().sum().backward()
    slots = found(model)
    np.testing.assert_array_equal(slots["1/kernel"].gradient(), model[1].weight.grad.numpy().T)
    assert not slots["0/weight"].gradient().any()


def test_a_tied_tensor_travels_once(model):
    from torch import nn

    tied = nn.Linear(3, 5, bias=False)
    tied.weight = model[0].weight
    model.append(tied)
    assert "4/kernel" not in found(model)
    assert "0/weight" in found(model)
