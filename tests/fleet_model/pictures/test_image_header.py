"""Headers of real files, and of files that were cut, filled up or lie about their size."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.errors import FrameError
from fleet_model.pictures.image_header import (
    MAX_PIXELS,
    ImageHeader,
    image_format,
    read_header,
)
from fleet_model.pictures.tiff import write_tiff

pytestmark = pytest.mark.base


def picture(suffix, shape=(9, 14, 3), sample=np.uint8, settings=()):
    pixels = np.random.default_rng(0).integers(0, 200, shape).astype(sample)
    return cv2.imencode(suffix, pixels, settings)[1].tobytes()


PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
LOSSLESS = (cv2.IMWRITE_WEBP_QUALITY, 101)
FILES = {
    "jpeg": (picture(".jpg"), ImageHeader("jpeg", 14, 9, 8, 3)),
    "gray jpeg": (picture(".jpg", (9, 14)), ImageHeader("jpeg", 14, 9, 8, 1)),
    "progressive jpeg": (
        picture(".jpg", settings=PROGRESSIVE),
        ImageHeader("jpeg", 14, 9, 8, 3),
    ),
    "png": (picture(".png"), ImageHeader("png", 14, 9, 8, 3)),
    "gray 16-bit png": (picture(".png", (9, 14), np.uint16), ImageHeader("png", 14, 9, 16, 1)),
    "png with alpha": (picture(".png", (9, 14, 4)), ImageHeader("png", 14, 9, 8, 4)),
    "lossy webp": (
        picture(".webp", settings=(cv2.IMWRITE_WEBP_QUALITY, 50)),
        ImageHeader("webp", 14, 9, 8, 3),
    ),
    "lossless webp": (picture(".webp", settings=LOSSLESS), ImageHeader("webp", 14, 9, 8, 3)),
    "lossless webp with alpha": (
        picture(".webp", (9, 14, 4), settings=LOSSLESS),
        ImageHeader("webp", 14, 9, 8, 4),
    ),
    "lossy webp with alpha": (
        picture(".webp", (9, 14, 4), settings=(cv2.IMWRITE_WEBP_QUALITY, 50)),
        ImageHeader("webp", 14, 9, 8, 4),
    ),
    "bmp": (picture(".bmp"), ImageHeader("bmp", 14, 9, 8, 3)),
    "tiff of a plug-in": (picture(".tiff"), ImageHeader("tiff", 14, 9, 8, 3)),
    "tiff": (write_tiff(np.zeros((9, 14), np.float32)), ImageHeader("tiff", 14, 9, 32, 1, "f")),
}
files = pytest.mark.parametrize(("content", "header"), FILES.values(), ids=FILES)


@files
def test_the_header_tells_size_depth_and_channels(content, header):
    assert read_header(content) == header
    assert read_header(memoryview(bytearray(content))) == header
    assert image_format(content, "bgr8; jpeg compressed bgr8") == header.format


@files
def test_a_file_that_was_cut_anywhere_is_refused(content, header):
    for end in range(len(content)):
        with pytest.raises(FrameError) as caught:
            read_header(content[:end])
        known = ("empty", "unknown format", f"cut {header.format}", f"damaged {header.format}")
        assert caught.value.reason in known, end
        if header.format in ("jpeg", "png") and end > 8:
            assert caught.value.reason == f"cut {header.format}"


@files
def test_zeros_behind_the_file_change_nothing(content, header):
    assert read_header(content + bytes(5)) == header
    assert read_header(content + bytes(5000)) == header


def test_a_jpeg_ends_at_its_own_marker_and_not_at_one_in_a_table():
    content = picture(".jpg", settings=PROGRESSIVE)
    scan = content.rindex(b"\xff\xda")
    comment = b"\xff\xfe\0\x06ab\xff\xd9"
    with_comment = content[:scan] + comment + content[scan:]
    assert read_header(with_comment) == FILES["jpeg"][1]
    for end in (len(content[:scan] + comment), len(with_comment) - 2):
        with pytest.raises(FrameError) as caught:
            read_header(with_comment[:end] + b"\0")
        assert caught.value.reason == "cut jpeg"


def test_a_jpeg_inside_a_jpeg_is_not_its_end():
    content = picture(".jpg")
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    outer = content[:2] + thumbnail + content[2:]
    assert read_header(outer) == FILES["jpeg"][1]
    for end in (len(thumbnail) + 2, len(thumbnail) + 40, len(outer) - 2):
        with pytest.raises(FrameError, match="cut short"):
            read_header(outer[:end])


def resized(width, height):
    """Return a JPEG, a PNG and a BMP of 14 x 9 pixels that claim another size."""
    jpeg, png = FILES["jpeg"][0], FILES["png"][0]
    size = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    yield jpeg.replace(struct.pack(">HH", 9, 14), size)
    chunk = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    yield png[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


@pytest.mark.parametrize("size", [(0, 9), (14, 0), (65500, 65500), (20000, 20000)])
def test_a_size_that_the_bytes_cannot_hold_is_refused_before_anything_is_decoded(size):
    for content in resized(*size):
        with pytest.raises(FrameError, match="pixels") as caught:
            read_header(content)
        assert caught.value.reason == "bad size"


def test_pixels_are_limited_also_where_few_bytes_can_hold_any_number_of_them():
    webp = FILES["lossless webp"][0]
    at = webp.index(b"VP8L") + 9
    side = 16383
    (rest,) = struct.unpack_from("<I", webp, at)
    claimed = struct.pack("<I", rest >> 28 << 28 | side << 14 | side)
    assert (side + 1) ** 2 > MAX_PIXELS
    with pytest.raises(FrameError) as caught:
        read_header(webp[:at] + claimed + webp[at + 4 :])
    assert caught.value.reason == "bad size"


def test_a_picture_of_one_color_is_not_taken_for_one_that_claims_too_much():
    black = np.zeros((2160, 3840, 3), np.uint8)
    for suffix in (".jpg", ".png", ".webp", ".bmp"):
        header = read_header(cv2.imencode(suffix, black)[1].tobytes())
        assert (header.width, header.height) == (3840, 2160)


@pytest.mark.parametrize("at", [3, 20, 60])
def test_every_flipped_bit_of_a_png_is_found(at):
    content = bytearray(FILES["png"][0])
    for bit in range(8):
        for position in range(at, len(content), 61):
            content[position] ^= 1 << bit
            with pytest.raises(FrameError):
                read_header(bytes(content))
            content[position] ^= 1 << bit


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"RIFF\x20\0\0\0AVI LIST", "unknown format"),
        (b"\0\0\0\1\x67\x42", "unknown format"),
        (b"BM" + bytes(60), "damaged bmp"),
        (b"RIFF\x20\0\0\0WEBPICCP" + bytes(40), "damaged webp"),
        (b"\xff\xd8\xff\xe0\0\x01" + bytes(40), "damaged jpeg"),
        (b"\xff\xd8\xff\xda\0\x02" + bytes(4) + b"\xff\xd9", "damaged jpeg"),
        (
            FILES["tiff"][0].replace(struct.pack("<HHII", 258, 3, 1, 32), bytes(12)),
            "unknown format",
        ),
    ],
)
def test_what_is_no_picture_says_so(content, reason):
    with pytest.raises(FrameError) as caught:
        read_header(content)
    assert caught.value.reason == reason


def test_the_first_bytes_decide_and_the_declared_format_stands_for_what_is_unknown():
    assert image_format(FILES["png"][0], "bgr8; jpeg compressed bgr8") == "png"
    assert image_format(b"\0\0\0\1", "h264") == "h264"


@given(st.sampled_from(sorted(FILES)), st.data())
def test_any_change_gives_a_header_or_an_error(name, choose):
    content = bytearray(FILES[name][0])
    for _ in range(choose.draw(st.integers(1, 4))):
        content[choose.draw(st.integers(0, len(content) - 1))] = choose.draw(st.integers(0, 255))
    try:
        header = read_header(bytes(content))
    except FrameError:
        return
    assert 0 < header.width * header.height <= MAX_PIXELS
