"""Coded updates by value, what they lose, and bytes of strangers."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fleet_model.compression.codec import CODED, Codec, coded_bytes, parse_codec
from fleet_model.compression.coding import LARGEST_FP16, decode, decoded, encode
from fleet_model.errors import UpdateError
from fleet_model.types import FLOAT32, Update

FP16, INT8, TOPK = Codec("fp16"), Codec("int8"), Codec("topk", 0.25)
CODECS = [Codec(FLOAT32), FP16, INT8, TOPK, Codec("topk", 1.0)]
HEAD = {"head/kernel": np.zeros((1280, 4), np.float32), "head/bias": np.zeros(4, np.float32)}

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
updates = st.dictionaries(
    st.text(min_size=1, max_size=8),
    array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5).flatmap(
        lambda shape: arrays(np.float32, shape, elements=finite)
    ),
    max_size=4,
)


def there_and_back(update, codec):
    return decode(encode(update, codec), update, codec)


@pytest.mark.parametrize(
    ("codec", "size"),
    [
        (Codec(FLOAT32), 4 * 5120 + 16),
        (FP16, 2 * 5120 + 16),
        (INT8, 5120 + 4 * 4 + 16),
        (Codec("topk", 0.05), 256 * (2 + 2) + 16),
    ],
)
def test_the_bytes_of_a_head_are_those_of_its_shapes(codec, size):
    assert coded_bytes(HEAD, codec) == encode(HEAD, codec).size == size


def test_eight_bits_have_a_scale_for_each_channel():
    update = {"w": np.array([[1.27, -100.0], [-0.635, 254.0]] * 8, np.float32)}
    coded = encode(update, INT8)

    np.testing.assert_allclose(np.frombuffer(coded[:8].tobytes(), "<f4"), [0.01, 2.0], rtol=1e-6)
    levels = np.frombuffer(coded[8:].tobytes(), np.int8).reshape(16, 2)
    assert levels[:2].tolist() == [[127, -50], [-64, 127]]  # 63.5 to even
    np.testing.assert_allclose(decode(coded, update, INT8)["w"][0], [1.27, -100], rtol=1e-6)


def test_the_largest_numbers_travel_with_their_places():
    update = {"w": np.array([[0.5, -3.0, 0.0, 1.0], [0.25, 2.0, -0.125, 0.0]], np.float32)}
    coded = encode(update, TOPK).tobytes()

    assert coded == struct.pack("<HHee", 1, 5, -3.0, 2.0)
    assert there_and_back(update, TOPK)["w"].tolist() == [[0, -3, 0, 0], [0, 2, 0, 0]]


def test_places_of_a_long_tensor_take_four_bytes():
    update = {"w": np.zeros((1 << 16, 2), np.float32)}
    update["w"][-1, -1] = 5.0
    share = Codec("topk", 1e-5)

    assert coded_bytes(update, share) == 2 * (4 + 2)
    assert there_and_back(update, share)["w"][-1, -1] == 5.0


def test_half_precision_cuts_what_is_too_long_for_it():
    update = {"w": np.array([[1e9, -70000.0, 65504.0, 1e-9]], np.float32)}

    assert there_and_back(update, FP16)["w"].tolist() == [[LARGEST_FP16, -LARGEST_FP16, 65504, 0]]


@given(update=updates, codec=st.sampled_from(CODECS))
def test_names_shapes_and_finite_numbers_come_back(update, codec):
    arrived = there_and_back(update, codec)

    assert list(arrived) == list(update)
    for name, tensor in update.items():
        assert (arrived[name].shape, arrived[name].dtype) == (tensor.shape, np.float32)
        assert np.isfinite(arrived[name]).all()


@given(update=updates)
def test_float32_comes_back_bit_for_bit(update):
    arrived = there_and_back(update, Codec(FLOAT32))
    assert all(arrived[name].tobytes() == update[name].tobytes() for name in update)


@given(update=updates, codec=st.sampled_from(CODECS))
def test_what_was_sent_and_what_is_left_make_the_update(update, codec):
    arrived = there_and_back(update, codec)
    for name, tensor in update.items():
        left = tensor - arrived[name]
        true = tensor.astype(np.float64)
        gap = np.abs(arrived[name].astype(np.float64) + left - true)
        assert (gap <= 1e-6 * np.maximum(1e-30, np.abs(true).max(initial=0))).all()


@given(update=updates, codec=st.sampled_from([FP16, INT8]))
def test_no_number_is_off_by_more_than_half_a_step(update, codec):
    arrived = there_and_back(update, codec)
    for name, tensor in update.items():
        if tensor.size and codec is INT8 and tensor.ndim > 1:
            most = np.abs(tensor).reshape(-1, tensor.shape[-1]).max(axis=0)
            bound = (
                most.astype(np.float64) / 127 * 0.51 + 1e-43
            )  # of numbers without full precision
        else:
            bound = np.where(np.abs(tensor) > 65504, np.inf, np.abs(tensor) * 2.0**-11 + 3e-8)
        assert (np.abs(arrived[name].astype(np.float64) - tensor) <= bound).all()


@given(update=updates, codec=st.sampled_from(CODECS))
def test_the_same_update_makes_the_same_bytes(update, codec):
    assert (
        encode(update, codec).tobytes() == encode(dict(reversed(update.items())), codec).tobytes()
    )


@pytest.mark.parametrize(
    "text", ["", "zip", "int8:1", "topk", "topk:", "topk:0", "topk:-1", "topk:2", "topk:nan"]
)
def test_no_other_codec_is_known(text):
    with pytest.raises(UpdateError, match="is not known, expected float32, fp16, int8 or topk"):
        parse_codec(text)


MODEL = {"w": np.zeros((4, 4), np.float32)}


def run_of(content):
    return np.frombuffer(content, np.uint8)


@pytest.mark.parametrize(
    ("codec", "content", "message"),
    [
        (FP16, bytes(31), "31 bytes of fp16, expected 32"),
        (FP16, bytes(33), "33 bytes of fp16, expected 32"),
        (FP16, struct.pack("<16e", *[float("nan")] * 16), "w in fp16: holds NaN or infinity"),
        (FP16, struct.pack("<16e", *[float("-inf")] * 16), "holds NaN or infinity"),
        (INT8, bytes(15), "expected 32"),
        (INT8, struct.pack("<4f", 1, 1, -1, 1) + bytes(16), "a scale is below zero"),
        (INT8, struct.pack("<4f", 1, float("nan"), 1, 1) + bytes(16), "a scale is below zero"),
        (INT8, struct.pack("<4f", 1, float("inf"), 1, 1) + bytes(16), "holds NaN or infinity"),
        (INT8, struct.pack("<4f", 1, 3e38, 1, 1) + b"\x7f" * 16, "holds NaN or infinity"),
        (TOPK, struct.pack("<4H4e", 0, 1, 2, 16, 1, 1, 1, 1), "not below 16"),
        (TOPK, struct.pack("<4H4e", 0, 1, 1, 2, 1, 1, 1, 1), "repeated"),
        (TOPK, struct.pack("<4H4e", 3, 2, 1, 0, 1, 1, 1, 1), "not in order"),
        (TOPK, struct.pack("<4H4e", 0, 1, 2, 3, 1, 1, 1, float("nan")), "holds NaN"),
        (TOPK, bytes(12), "12 bytes of topk:0.25, expected 16"),
    ],
)
def test_bytes_that_are_no_update_are_refused_with_a_reason(codec, content, message):
    with pytest.raises(UpdateError, match=message):
        decode(run_of(content), MODEL, codec)


@given(content=st.binary(min_size=0, max_size=64), codec=st.sampled_from(CODECS))
def test_any_bytes_are_finite_tensors_of_the_model_or_refused(content, codec):
    try:
        arrived = decode(run_of(content), MODEL, codec)
    except UpdateError:
        return
    assert arrived["w"].shape == (4, 4)
    assert np.isfinite(arrived["w"]).all()


def test_a_short_message_asks_for_no_more_memory_than_the_model():
    model = {"w": np.zeros((1000, 1000), np.float32)}
    share = Codec("topk", 0.001)
    coded = encode(model | {"w": np.ones((1000, 1000), np.float32)}, share)
    assert coded.size < 10_000
    tracemalloc.start()
    try:
        decode(coded, model, share)
        for lie in (Codec("topk", 1e-6), Codec("topk", 1.0), INT8):
            with pytest.raises(UpdateError, match="expected"):
                decode(coded, model, lie)
        assert tracemalloc.get_traced_memory()[1] < 1.2 * model["w"].nbytes
    finally:
        tracemalloc.stop()


def test_a_reply_is_read_as_if_it_had_travelled_as_it_is():
    weights = {"w": np.arange(16, dtype=np.float32).reshape(4, 4)}
    reply = Update(
        robot="r1", base_version=3, weights={CODED: encode(weights, FP16)}, num_examples=7,
        num_steps=2, codec="fp16",
    )  # fmt: skip
    read = decoded(reply, MODEL)

    np.testing.assert_array_equal(read.weights["w"], weights["w"])
    assert (read.codec, read.robot, read.num_examples) == (FLOAT32, "r1", 7)
    assert decoded(read, MODEL) is read
