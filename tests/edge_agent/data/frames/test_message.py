"""A serialized message becomes a frame: stamp, bytes, size, pixels, or a reason."""

import struct
from itertools import pairwise

import cv2
import numpy as np
import pytest

from edge_agent.data.frames.message import CAMERA_TYPES, frame_of
from edge_agent.data.storage import Topic
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base

RAW = Topic("/camera/image", "sensor_msgs/Image", "cdr", "", 0)
FILE = Topic("/camera/image/compressed", "sensor_msgs/CompressedImage", "cdr", "", 0)
BAG_NS = 1_760_000_009_000_000_000
DEPTH = np.arange(6 * 8, dtype=np.uint16).reshape(6, 8)


@pytest.fixture
def stored(bags):
    """Return what serializes a message of `bags`."""
    return lambda message: bytes(bags.store.serialize_cdr(message, message.__msgtype__))


def test_a_file_passes_through_byte_for_byte(bags, stored, picture_bytes):
    jpeg = picture_bytes(3)
    message = stored(bags.jpeg(bags.START_NS, jpeg))
    frame = frame_of(message, FILE, "run_1", BAG_NS)
    assert (frame.source, frame.topic, frame.stamp_ns) == ("run_1", FILE.name, bags.START_NS)
    assert (frame.format, frame.width, frame.height) == ("jpeg", 32, 24)
    assert frame.data == jpeg
    assert np.array_equal(frame.decode(), np.full((24, 32, 3), 23))
    assert frame.pixels().shape == (24, 32, 3)


def test_raw_pixels_have_the_size_and_encoding_of_the_message(bags, stored):
    rows = np.arange(4 * 20, dtype=np.uint8).reshape(4, 20)
    message = stored(bags.raw(bags.START_NS, rows, "bgr8", width=6))
    frame = frame_of(message, RAW, "run_1", BAG_NS)
    assert (frame.format, frame.width, frame.height) == ("bgr8", 6, 4)
    assert frame.data == rows.tobytes()
    expected = rows[:, :18].reshape(4, 6, 3)[..., ::-1]
    assert np.array_equal(frame.decode(), expected)
    assert np.array_equal(frame.pixels(), expected)


def test_the_payload_is_a_view_of_the_stored_bytes(bags, stored, picture_bytes):
    for topic, message in (
        (FILE, bags.jpeg(7, picture_bytes(3))),
        (RAW, bags.raw(7, np.zeros((4, 18), np.uint8))),
    ):
        content = bytearray(stored(message))
        frame = frame_of(memoryview(content), topic, "run_1", BAG_NS)
        content[-1] ^= 0xFF
        assert frame.data[-1] == content[-1]


@pytest.mark.parametrize("stamp", [(0, 0), (-1, 5), (-(2**31), 0)])
def test_bag_time_stands_for_a_stamp_that_is_not_set(bags, stored, picture_bytes, stamp):
    message = bytearray(stored(bags.jpeg(1, picture_bytes(3))))
    struct.pack_into("<iI", message, 4, *stamp)
    assert frame_of(bytes(message), FILE, "run_1", BAG_NS).stamp_ns == BAG_NS


@pytest.mark.parametrize("declared", ["16UC1; compressedDepth png", "16UC1; png compressed "])
def test_a_depth_png_is_a_whole_file_of_sixteen_bits_and_no_picture(bags, stored, declared):
    png = cv2.imencode(".png", DEPTH)[1].tobytes()
    head = bytes(12) if "Depth" in declared else b""
    frame = frame_of(stored(bags.jpeg(7, head + png, declared)), FILE, "run_1", BAG_NS)
    assert (frame.format, frame.width, frame.height) == ("png", 8, 6)
    assert frame.data == png
    assert np.array_equal(frame.pixels(), DEPTH)
    assert frame.pixels().dtype == np.uint16
    with pytest.raises(FrameError, match=r"^run_1/camera/image/compressed at 7: .* is depth"):
        frame.decode()


@pytest.mark.parametrize("content", [b"\0\0\0\1\x67" + bytes(60), b"GIF89a" + bytes(60)])
def test_what_is_not_read_is_named_by_what_its_sender_declared(bags, stored, content):
    message = stored(bags.jpeg(7, content, "h264; main"))
    with pytest.raises(FrameError, match="declared as 'h264; main'") as caught:
        frame_of(message, FILE, "run_1", BAG_NS)
    assert caught.value.reason == "unknown format"


def test_a_file_that_alone_would_show_a_mosaic_is_none_that_passes_through(bags, stored):
    mosaic = cv2.imencode(".png", DEPTH.astype(np.uint8))[1].tobytes()
    message = stored(bags.jpeg(7, mosaic, "bayer_rggb8; png compressed "))
    frame = frame_of(message, FILE, "run_1", BAG_NS)
    assert (frame.format, frame.width, frame.height) == ("bayer_rggb8 in png", 8, 6)
    assert frame.pixels().shape == frame.decode().shape == (6, 8, 3)


def test_metric_depth_is_float_and_keeps_its_payload(bags, stored):
    content = struct.pack("<iff", 0, 10.0, 0.5) + cv2.imencode(".png", DEPTH)[1].tobytes()
    message = stored(bags.jpeg(7, content, "32FC1; compressedDepth png"))
    frame = frame_of(message, FILE, "run_1", BAG_NS)
    assert (frame.format, frame.width, frame.height) == ("compressedDepth", 8, 6)
    assert frame.data == content
    assert frame.pixels()[0, 1] == np.float32(20)
    assert np.isnan(frame.pixels()[0, 0])


def test_types_are_known_with_and_without_msg_and_in_ros_1(bags, stored, picture_bytes):
    jpeg = picture_bytes(3)
    cdr = stored(bags.jpeg(7, jpeg))
    long = FILE._replace(type="sensor_msgs/msg/CompressedImage")
    assert frame_of(cdr, long, "run_1", BAG_NS).data == jpeg
    ros1 = struct.pack("<IIII", 1, 0, 7, 3) + b"cam" + struct.pack("<I", 4) + b"jpeg"
    ros1 += struct.pack("<I", len(jpeg)) + jpeg
    frame = frame_of(ros1, FILE._replace(encoding="ros1"), "run_1", BAG_NS)
    assert (frame.data, frame.stamp_ns) == (jpeg, 7)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda jpeg: b"", "empty"),
        (lambda jpeg: jpeg[:-40], "cut jpeg"),
        (lambda jpeg: b"\0\0\0\1" + jpeg, "unknown format"),
        (lambda jpeg: jpeg[:20] + bytes(9) + jpeg[29:], "damaged jpeg"),
    ],
)
def test_what_can_be_seen_without_decoding_is_an_error_with_a_reason(
    bags, stored, picture_bytes, spoil, reason
):
    message = stored(bags.jpeg(7, spoil(picture_bytes(3))))
    with pytest.raises(FrameError, match=f"run_1{FILE.name} at 7: ") as caught:
        frame_of(message, FILE, "run_1", BAG_NS)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("rows", "encoding", "width", "reason"),
    [
        (np.zeros((4, 0), np.uint8), "bgr8", 6, "empty"),
        (np.zeros((4, 17), np.uint8), "bgr8", 6, "bad step"),
        (np.zeros((4, 18), np.uint8), "h265", 6, "unknown encoding"),
        (np.zeros((4, 18), np.uint8), "uyvy", 5, "bad size"),
    ],
)
def test_a_raw_message_that_contradicts_itself_is_an_error(
    bags, stored, rows, encoding, width, reason
):
    with pytest.raises(FrameError, match=f"run_1{RAW.name} at 7: ") as caught:
        frame_of(stored(bags.raw(7, rows, encoding, width)), RAW, "run_1", BAG_NS)
    assert caught.value.reason == reason


def test_a_message_that_does_not_parse_is_named_by_its_bag_time(bags, stored, picture_bytes):
    for topic, message in (
        (FILE, bags.jpeg(7, picture_bytes(3))),
        (RAW, bags.raw(7, np.zeros((4, 18), np.uint8))),
    ):
        content = stored(message)
        for end in (0, 3, 9, 30, len(content) - 5):
            with pytest.raises(FrameError, match=f"run_1{topic.name} at {BAG_NS}: ") as caught:
                frame_of(content[:end], topic, "run_1", BAG_NS)
            assert caught.value.reason == "bad message"


def test_another_type_is_refused():
    topic = Topic("/chatter", "std_msgs/String", "cdr", "", 0)
    with pytest.raises(FrameError, match=f"std_msgs/String, expected {CAMERA_TYPES[0]}"):
        frame_of(b"", topic, "run_1", BAG_NS)


def test_a_flipped_bit_never_shifts_the_rows_that_are_there(bags, stored):
    """Every row of a picture that is still given begins where a row began."""
    rows = np.arange(6 * 20, dtype=np.uint8).reshape(6, 20)  # 2 bytes of padding each
    content = bytearray(stored(bags.raw(7, rows, "rgb8", width=6)))
    for position in range(len(content) - rows.size):
        for bit in range(8):
            content[position] ^= 1 << bit
            try:
                picture = frame_of(bytes(content), RAW, "run_1", BAG_NS).pixels()
            except FrameError:
                picture = np.zeros((0, 6, 3))
            content[position] ^= 1 << bit
            starts = [int(row.reshape(-1)[:3].min()) for row in picture]
            assert all(after - before == 20 for before, after in pairwise(starts)), (position, bit)
