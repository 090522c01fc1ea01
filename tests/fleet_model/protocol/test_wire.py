import io
import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fleet_model.errors import UpdateError
from fleet_model.flower import quiet
from fleet_model.protocol.wire import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EXAMPLES,
    NUM_STEPS,
    VERSION,
    TrainRequest,
    pack_request,
    pack_update,
    pack_weights,
    unpack_request,
    unpack_update,
    unpack_weights,
)
from fleet_model.types import Checkpoint, TrainConfig, Update

quiet()
WEIGHTS = {"head/kernel": np.full((4, 2), 0.5, np.float32), "head/bias": np.zeros(2, np.float32)}
UPDATE = Update(
    robot="the robot's own words",
    base_version=3,
    weights=WEIGHTS,
    num_examples=20,
    num_steps=5,
    metrics={"loss_after": 0.25, "held_out": 4.0},
)
REQUEST = TrainRequest(
    deadline_s=60.0,
    run="r1",
    round=2,
    checkpoint=Checkpoint(version=3, weights=WEIGHTS),
    config=TrainConfig(epochs=2, learning_rate=0.5, proximal_mu=0.1, seed=9),
    trainer="ab" * 32,
    trainer_bytes=927,
)

named_tensors = st.dictionaries(
    st.text(min_size=1, max_size=20),
    array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3).flatmap(
        lambda shape: arrays(np.float32, shape)
    ),
    max_size=4,
)


@given(weights=named_tensors)
def test_tensors_of_any_name_and_shape_arrive_bit_for_bit(weights):
    arrived = unpack_weights(pack_weights(weights))

    assert list(arrived) == list(weights)
    for name, tensor in weights.items():
        assert arrived[name].dtype == np.float32
        assert arrived[name].shape == tensor.shape
        assert arrived[name].tobytes() == tensor.tobytes()


def test_a_transposed_tensor_arrives_as_it_is():
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T

    arrived = unpack_weights(pack_weights({"w": tensor}))["w"]

    np.testing.assert_array_equal(arrived, tensor)
    assert not arrived.flags.writeable  # it is the message's own memory


def test_a_request_arrives_as_it_was_sent():
    arrived = unpack_request(pack_request(REQUEST))

    assert replace(arrived, checkpoint=REQUEST.checkpoint) != arrived  # eq=False: by identity
    for name in ("run", "round", "config", "trainer", "trainer_bytes"):
        assert getattr(arrived, name) == getattr(REQUEST, name)
    assert arrived.checkpoint.version == 3
    np.testing.assert_array_equal(arrived.checkpoint.weights["head/kernel"], WEIGHTS["head/kernel"])


def test_an_update_arrives_under_the_name_of_the_register():
    arrived = unpack_update(pack_update(UPDATE), "hall-1")

    assert arrived.robot == "hall-1"
    for name in ("base_version", "num_examples", "num_steps", "metrics"):
        assert getattr(arrived, name) == getattr(UPDATE, name)
    np.testing.assert_array_equal(arrived.weights["head/kernel"], WEIGHTS["head/kernel"])


def test_stock_flower_finds_its_own_names():
    content = pack_update(UPDATE)

    assert set(content) == {"arrays", "metrics"}
    assert content.metric_records["metrics"]["num-examples"] == 20


def test_an_update_of_a_head_for_four_classes_is_at_most_60_kb():
    weights = {"head/kernel": np.ones((1280, 4), np.float32), "head/bias": np.ones(4, np.float32)}
    content = pack_update(replace(UPDATE, weights=weights))
    arrays_bytes = sum(len(array.data) for array in content.array_records[ARRAYS].values())
    metrics_bytes = len(json.dumps(dict(content.metric_records[METRICS])))

    assert 20_000 < arrays_bytes + metrics_bytes <= 60_000


def request_with(**changes):
    content = pack_request(REQUEST)
    record = {**content.config_records[CONFIG], **changes}
    record = ConfigRecord({key: value for key, value in record.items() if value is not None})
    return RecordDict({ARRAYS: content.array_records[ARRAYS], CONFIG: record})


@pytest.mark.parametrize("key", list(pack_request(REQUEST).config_records[CONFIG]))
@pytest.mark.parametrize("value", [None, [1], b"x", True])
def test_a_request_with_a_missing_or_ill_typed_field_names_it(key, value):
    with pytest.raises(UpdateError, match=f"the message has {key}=.*same version of fleetlearn"):
        unpack_request(request_with(**{key: value}))


@pytest.mark.parametrize("name", [ARRAYS, CONFIG])
def test_a_request_without_a_record_names_it(name):
    content = pack_request(REQUEST)
    del content[name]

    with pytest.raises(UpdateError, match=f"lacks the record '{name}'"):
        unpack_request(content)


def update_with(**changes):
    content = pack_update(UPDATE)
    record = {**content.metric_records[METRICS], **changes}
    record = MetricRecord({key: value for key, value in record.items() if value is not None})
    return RecordDict({ARRAYS: content.array_records[ARRAYS], METRICS: record})


@pytest.mark.parametrize("key", [NUM_EXAMPLES, NUM_STEPS, VERSION])
@pytest.mark.parametrize("value", [None, 1.0, [1], [0.5] * 1000])
def test_an_update_with_a_missing_or_ill_typed_count_names_it(key, value):
    with pytest.raises(UpdateError, match=f"the message has {key}=.*expected int") as error:
        unpack_update(update_with(**{key: value}), "r1")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", [ARRAYS, METRICS])
def test_an_update_without_a_record_names_robot_and_record(name):
    content = pack_update(UPDATE)
    del content[name]

    with pytest.raises(UpdateError, match=f"the reply lacks the record '{name}'"):
        unpack_update(content, "r1")


@pytest.mark.parametrize("count", [0, -3])
def test_an_update_of_no_examples_is_refused(count):
    with pytest.raises(UpdateError, match=f"num-examples is {count}, expected > 0"):
        unpack_update(update_with(**{NUM_EXAMPLES: count}), "r1")


def test_metrics_that_have_no_place_in_json_are_left_out():
    content = update_with(loss_after=float("nan"), loss_before=float("inf"), accuracy_after=0.5)

    assert unpack_update(content, "r1").metrics == {"accuracy_after": 0.5, "held_out": 4.0}


@pytest.mark.parametrize(
    "changes", [{f"m{i}": 1.0 for i in range(200)}, {"m" * 101: 1.0}], ids=["many", "long"]
)
def test_a_robot_cannot_fill_the_history(changes):
    with pytest.raises(UpdateError, match="at most 100 metrics with names of at most 100"):
        unpack_update(update_with(**changes), "r1")


def npy(tensor):
    stream = BytesIO()
    np.save(stream, tensor, allow_pickle=tensor.dtype == object)
    return stream.getvalue()


def empty(shape):
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def npz():
    stream = BytesIO()
    np.savez_compressed(stream, x=np.zeros(10))
    return stream.getvalue()


WHOLE = npy(np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a float32 tensor"),
        (b"garbage", "is not a float32 tensor"),
        (npz(), "is not a float32 tensor"),
        (npy(np.ones(2)), "is not a float32 tensor"),
        (npy(np.ones(2, ">f4")), "is not a float32 tensor"),
        (npy(np.ones(2, np.int32)), "is not a float32 tensor"),
        (npy(np.array([{}], object)), "is not a float32 tensor"),
        (npy(np.asfortranarray(np.ones((2, 3), np.float32))), "is not a float32 tensor"),
        (WHOLE[:-1], "the bytes do not fit its shape"),
        (WHOLE + b"x", "the bytes do not fit its shape"),
        (WHOLE.replace(b"(2, 3)", b"(9999999999999, 3)"), "the bytes do not fit"),
        (WHOLE.replace(b"(2, 3)", b"(-2, -3)"), "is not a float32 tensor"),
        (empty((0, 10**30)), "no tensor can have its shape"),
        (empty((0, 2**40, 2**40)), "no tensor can have its shape"),
        (empty((0, *[1] * 70)), "no tensor can have its shape"),
    ],
)
def test_bytes_that_are_no_whole_float32_tensor_are_refused(data, message):
    array = Array(dtype="float32", shape=(2, 3), stype="numpy.ndarray", data=data)
    content = pack_update(UPDATE)
    content[ARRAYS] = ArrayRecord({"head/kernel": array})

    with pytest.raises(UpdateError, match=f"head/kernel.*{message}"):
        unpack_update(content, "r1")


@given(data=st.binary(max_size=200) | st.binary(max_size=200).map(WHOLE[:8].__add__))
def test_no_bytes_of_a_robot_raise_anything_but_an_update_error(data):
    array = Array(dtype="float32", shape=(), stype="numpy.ndarray", data=data)

    with pytest.raises(UpdateError):
        unpack_weights(ArrayRecord({"w": array}))
