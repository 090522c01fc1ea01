"""Messages as rosbags serializes them, in both byte orders and as ROS 1."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from edge_agent.data.frames.cdr import parse_compressed, parse_image, parse_text
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base

ROS2, ROS1 = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
numbers = st.integers(0, 2**32 - 1)
ways = st.sampled_from(["little", "big", "ros1"])


def serialized(way, kind, *fields, stamp=(1, 2), frame_id="camera"):
    """Return (bytes, encoding) of a message; fields without a header where `stamp` is None."""
    store = ROS1 if way == "ros1" else ROS2
    if stamp is not None:
        time = store.types["builtin_interfaces/msg/Time"](*stamp)
        number = (9,) if way == "ros1" else ()
        fields = (store.types["std_msgs/msg/Header"](*number, time, frame_id), *fields)
    message = store.types[kind](*fields)
    if way == "ros1":
        return bytes(store.serialize_ros1(message, kind)), "ros1"
    return bytes(store.serialize_cdr(message, kind, little_endian=way == "little")), "cdr"


@given(
    ways, st.tuples(st.integers(0, 2**31 - 1), numbers), names, names, st.tuples(*[numbers] * 3),
    st.integers(0, 1), st.binary(max_size=40),
)  # fmt: skip
def test_an_image_has_all_its_fields(way, stamp, frame_id, encoding, sizes, big, content):
    height, width, step = sizes
    payload = np.frombuffer(content, np.uint8)
    fields = (height, width, encoding, big, step, payload)
    data, kind = serialized(way, "sensor_msgs/msg/Image", *fields, stamp=stamp, frame_id=frame_id)
    parsed = parse_image(data, kind)
    assert parsed.stamp_ns == stamp[0] * 10**9 + stamp[1]
    assert parsed.frame_id == frame_id
    assert parsed.layout == (encoding, height, width, step, bool(big))
    assert bytes(parsed.payload) == content


@given(ways, st.tuples(st.integers(0, 2**31 - 1), numbers), names, names, st.binary(max_size=40))
def test_a_compressed_image_has_all_its_fields(way, stamp, frame_id, declared, content):
    payload = np.frombuffer(content, np.uint8)
    data, kind = serialized(
        way, "sensor_msgs/msg/CompressedImage", declared, payload, stamp=stamp, frame_id=frame_id
    )
    parsed = parse_compressed(data, kind)
    assert parsed == (stamp[0] * 10**9 + stamp[1], frame_id, declared, content)


@given(ways, names)
def test_a_text_is_read(way, text):
    data, kind = serialized(way, "std_msgs/msg/String", text, stamp=None)
    assert parse_text(data, kind) == text


def test_the_payload_is_a_view_of_the_messages_own_bytes():
    data, kind = serialized("little", "sensor_msgs/msg/CompressedImage", "jpeg", np.zeros(9, "u1"))
    stored = bytearray(data)
    payload = parse_compressed(memoryview(stored), kind).payload
    stored[-1] = 77
    assert payload[-1] == 77


@given(ways, st.data())
def test_a_message_that_was_cut_anywhere_is_refused(way, choose):
    image = (4, 6, "rgb8", 0, 18, np.zeros(72, np.uint8))
    for parse, kind, fields, stamp in (
        (parse_image, "sensor_msgs/msg/Image", image, (1, 2)),
        (parse_compressed, "sensor_msgs/msg/CompressedImage", ("png", image[-1]), (1, 2)),
        (parse_text, "std_msgs/msg/String", ("cat",), None),
    ):
        data, encoding = serialized(way, kind, *fields, stamp=stamp)
        # Without its last byte, the NUL, a text is still whole.
        end = choose.draw(st.integers(0, len(data) - (2 if parse is parse_text else 1)))
        with pytest.raises(FrameError) as caught:
            parse(data[:end], encoding)
        assert caught.value.reason == "bad message"


def test_a_length_that_leads_out_of_the_message_is_refused():
    data, encoding = serialized(
        "little", "sensor_msgs/msg/CompressedImage", "png", np.zeros(9, np.uint8)
    )
    at = data.index(struct.pack("<I", 9))
    for claimed in (10 + 3, 2**31, 2**32 - 1):
        wrong = data[:at] + struct.pack("<I", claimed) + data[at + 4 :]
        with pytest.raises(FrameError, match=f"with {claimed} bytes of data"):
            parse_compressed(wrong, encoding)


@pytest.mark.parametrize("begin", [b"\0\2\0\0", b"\0\3\0\0", b"\1\0\0\0", b"\0\x0b\0\0"])
def test_an_encapsulation_other_than_plain_cdr_is_refused(begin):
    data, _ = serialized("little", "std_msgs/msg/String", "cat", stamp=None)
    with pytest.raises(FrameError, match="expected CDR"):
        parse_text(begin + data[4:], "cdr")


def test_plain_cdr_of_the_second_version_is_the_same_for_these_types():
    data, _ = serialized(
        "little", "sensor_msgs/msg/CompressedImage", "png", np.arange(9, dtype="u1")
    )
    assert parse_compressed(b"\0\7\0\0" + data[4:], "cdr") == parse_compressed(data, "cdr")


def test_bytes_that_are_no_text_are_replaced_and_a_missing_zero_is_forgiven():
    content = b"caf\xe9"
    data = b"\0\1\0\0" + struct.pack("<I", len(content)) + content
    assert parse_text(data, "cdr") == "caf\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("parse", [parse_image, parse_compressed, parse_text])
@given(content=st.binary(max_size=80), encoding=st.sampled_from(["cdr", "ros1"]))
def test_any_bytes_are_a_message_or_a_bad_one(parse, content, encoding):
    reasons = []
    for data in (content, b"\0\1\0\0" + content):
        try:
            parse(data, encoding)
        except FrameError as error:
            reasons.append(error.reason)
    assert set(reasons) <= {"bad message"}
