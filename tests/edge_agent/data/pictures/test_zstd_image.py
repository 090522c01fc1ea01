"""Raw pictures that are packed as a whole, as two senders do it."""

import gzip
import struct
import zlib

import numpy as np
import pytest

from edge_agent.data.frames.message import frame_of
from edge_agent.data.pictures.raw import RawLayout, decode_raw, pixels_raw
from edge_agent.data.storage import Topic
from edge_agent.data.storage.compression import zstd_module
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base

HEIGHT, WIDTH = 6, 8
TOPIC = Topic("/camera/zstd", "sensor_msgs/CompressedImage", "cdr", "", 0)
PIXELS = np.random.default_rng(0).integers(0, 256, HEIGHT * (WIDTH * 3 + 2), np.uint8).tobytes()


def plug_in(pixels, encoding="rgb8", step=WIDTH * 3 + 2, pack=gzip.compress, size=(HEIGHT, WIDTH)):
    """Pack as zstd_image_transport does; it writes gzip's wrapper."""
    return struct.pack("<IIBII", *size, 0, step, len(encoding)) + encoding.encode() + pack(pixels)


@pytest.fixture
def frame(bags):
    def make(content, declared="zstd"):
        message = bags.jpeg(7, content, declared)
        return frame_of(bags.store.serialize_cdr(message, message.__msgtype__), TOPIC, "run", 1)

    return make


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_the_plug_ins_pictures_are_read(frame, pack):
    found = frame(plug_in(PIXELS, pack=pack))
    layout = RawLayout("rgb8", HEIGHT, WIDTH, WIDTH * 3 + 2)
    assert (found.format, found.width, found.height) == ("zstd", WIDTH, HEIGHT)
    assert np.array_equal(found.pixels(), pixels_raw(PIXELS, layout, ""))
    assert np.array_equal(found.decode(), decode_raw(PIXELS, layout, ""))
    assert np.array_equal(found.reduced(2), found.decode())


def test_samples_of_two_bytes_lie_as_the_message_says(frame):
    depth = np.arange(HEIGHT * WIDTH, dtype=">u2")
    head = struct.pack("<IIBII", HEIGHT, WIDTH, 1, WIDTH * 2, 5) + b"16UC1"
    found = frame(head + gzip.compress(depth.tobytes()))
    assert found.pixels().tolist() == depth.reshape(HEIGHT, WIDTH).tolist()
    with pytest.raises(FrameError, match="16UC1 is depth or data"):
        found.decode()


def test_librealsense_packs_its_pictures_by_zstd(frame):
    content = zstd_module().compress(PIXELS[: HEIGHT * WIDTH * 2])
    found = frame(content, f"YUYV; zstd; {WIDTH}x{HEIGHT} step={WIDTH * 2}")
    layout = RawLayout("yuyv", HEIGHT, WIDTH, WIDTH * 2)
    assert np.array_equal(found.decode(), decode_raw(PIXELS[: HEIGHT * WIDTH * 2], layout, ""))


@pytest.mark.parametrize(
    ("content", "declared", "reason"),
    [
        (b"", "zstd", "short data"),
        (plug_in(PIXELS)[:16], "zstd", "short data"),
        (plug_in(PIXELS, "h264"), "zstd", "unknown encoding"),
        (plug_in(PIXELS, step=WIDTH), "zstd", "bad step"),
        (plug_in(PIXELS, size=(0, WIDTH)), "zstd", "empty"),
        (plug_in(PIXELS, "mono8", 2**31, size=(2**31, 2**31)), "zstd", "bad size"),
        (b"", "YUYV; zstd; 0x6 step=16", "bad size"),
        (b"", "Y10; zstd; 8x6 step=16", "unknown encoding"),
        (b"", "YUYV; zstd; 8x6", "unknown format"),
    ],
)
def test_what_is_wrong_shows_before_anything_is_unpacked(frame, content, declared, reason):
    with pytest.raises(FrameError, match=r"^run/camera/zstd at 7: ") as caught:
        frame(content, declared)
    assert caught.value.reason in (reason, "empty" if not content else reason)


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (plug_in(PIXELS)[:-9], "zstd"),
        (plug_in(PIXELS, pack=lambda p: p), "zstd"),
        (plug_in(PIXELS + bytes(2**24)), "zstd"),  # more than the header says: never unpacked
        (zstd_module().compress(PIXELS)[:-4], "YUYV; zstd; 8x6 step=16"),
        (zstd_module().compress(bytes(2**24)), "YUYV; zstd; 8x6 step=16"),
    ],
)
def test_what_is_damaged_or_larger_than_it_says_is_an_error(frame, content, declared):
    found = frame(content, declared)
    for read in (found.decode, found.pixels):
        with pytest.raises(FrameError, match=r"^run/camera/zstd at 7: ") as caught:
            read()
        assert caught.value.reason == "damaged zstd"


def test_fewer_pixels_than_the_header_says_are_an_error(frame):
    with pytest.raises(FrameError) as caught:
        frame(plug_in(PIXELS[:-26])).pixels()
    assert caught.value.reason == "short data"
