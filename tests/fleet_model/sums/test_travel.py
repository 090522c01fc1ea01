"""Sums go through a Flower message bit for bit, in two bytes a number where that is enough."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from fleet_model.errors import UpdateError
from fleet_model.protocol.wire import pack_update, unpack_update, unpack_weights
from fleet_model.sums.class_sums import class_sums
from fleet_model.sums.packing import GROUP, pack_sums
from fleet_model.types import SUMS, Update


@pytest.mark.parametrize("rank", [0, 4])
def test_sums_arrive_as_they_were_sent(rank):
    rng = np.random.default_rng(0)
    tensors = pack_sums(class_sums(rng.normal(0, 1, (50, 9)), np.arange(50) % 3, 3, rank))
    sent = Update(
        kind=SUMS, robot="", base_version=2, weights={}, groups={GROUP: tensors}, num_examples=50,
        num_steps=0,
    )  # fmt: skip
    arrived = unpack_update(pack_update(sent), "r1")
    assert arrived.kind == SUMS
    assert arrived.groups[GROUP].keys() == tensors.keys()
    for name, tensor in arrived.groups[GROUP].items():
        assert (tensor.dtype, tensor.tobytes()) == (tensors[name].dtype, tensors[name].tobytes())


def test_float16_must_have_the_bytes_that_its_shape_says():
    array = Array(np.zeros(3, np.float16))
    array.data = array.data[:-2]
    with pytest.raises(UpdateError, match="do not fit its shape"):
        unpack_weights(ArrayRecord({"w": array}))
