"""TIFF files of cameras and of other programs, against tifffile and the pixels themselves."""

import io
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.pictures.decode import decode_compressed, pixels_compressed
from fleet_model.errors import FrameError
from fleet_model.pictures.image_header import read_header
from fleet_model.pictures.tiff_strips import unpack

pytestmark = pytest.mark.base

RNG = np.random.default_rng(0)
GRAY, COLOR = RNG.integers(0, 256, (13, 21), np.uint8), RNG.integers(0, 256, (13, 21, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (13, 21), np.uint16)
LARGE = cv2.GaussianBlur(RNG.integers(0, 256, (300, 400), np.uint8), (0, 0), 2)
PALETTE = (RNG.integers(0, 256, (3, 256)) * 257).astype(np.uint16)


def opencv(pixels, *settings):
    return cv2.imencode(".tiff", pixels, settings)[1].tobytes()


def tiff(pixels, order="<", **options):
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, byteorder=order, bigtiff=options.pop("big", False)) as writer:
        for one in options.pop("pages", [pixels]):
            writer.write(one, metadata=None, **options)
    return stream.getvalue()


LZW = cv2.IMWRITE_TIFF_COMPRESSION, 5
READ = {  # file -> (what is in it, its picture)
    "LZW, gray": lambda: (opencv(GRAY), GRAY),
    "LZW, color": lambda: (opencv(COLOR[..., ::-1]), COLOR),
    "LZW, 16 bits": lambda: (opencv(DEEP), DEEP),
    "LZW, color of 16 bits": lambda: (opencv(np.dstack([DEEP] * 3)), np.dstack([DEEP] * 3)),
    "not packed": lambda: (tiff(COLOR, photometric="rgb"), COLOR),
    "rows apart": lambda: (tiff(COLOR, photometric="rgb", rowsperstrip=4), COLOR),
    "big-endian": lambda: (tiff(DEEP, ">"), DEEP),
    "big-endian, rows apart": lambda: (tiff(DEEP, ">", rowsperstrip=4), DEEP),
    "deflate": lambda: (tiff(COLOR, compression="zlib", photometric="rgb"), COLOR),
    "deflate of differences": lambda: (
        tiff(COLOR, compression="zlib", predictor=True, photometric="rgb"),
        COLOR,
    ),
    "PackBits": lambda: (opencv(GRAY, cv2.IMWRITE_TIFF_COMPRESSION, 32773), GRAY),
    "white is zero": lambda: (tiff(GRAY, photometric="miniswhite"), 255 - GRAY),
    "planes": lambda: (
        tiff(np.moveaxis(COLOR, 2, 0), photometric="rgb", planarconfig="separate", rowsperstrip=5),
        COLOR,
    ),
    "alpha": lambda: (
        tiff(np.dstack([COLOR, GRAY]), photometric="rgb", extrasamples=["unassalpha"]),
        np.dstack([COLOR, GRAY]),
    ),
    "gray with alpha": lambda: (
        tiff(
            np.dstack([GRAY, GRAY[::-1]]),
            photometric="minisblack",
            planarconfig="contig",
            extrasamples=["unassalpha"],
        ),
        np.dstack([GRAY, GRAY[::-1]]),
    ),
    "LZW, large": lambda: (opencv(LARGE), LARGE),
    "LZW, one value": lambda: (
        opencv(np.full((300, 400), 7, np.uint8)),
        np.full((300, 400), 7, np.uint8),
    ),
    "palette": lambda: (
        tiff(GRAY, photometric="palette", colormap=PALETTE),
        (PALETTE // 257).astype(np.uint8).T[GRAY],
    ),
    "two values": lambda: (
        tiff(GRAY > 127, photometric="minisblack"),
        np.where(GRAY > 127, 255, 0).astype(np.uint8),
    ),
}
NUMBERS = {
    "float32": lambda: DEEP.astype(np.float32) / 7,
    "float64": lambda: DEEP.astype(np.float64) / 7,
    "int8": lambda: GRAY.view(np.int8),
    "int16": lambda: DEEP.view(np.int16),
    "int32": lambda: DEEP.astype(np.int32) * -70_000,
}


@pytest.mark.parametrize("kind", READ)
def test_a_picture_is_read_pixel_by_pixel(kind):
    content, expected = READ[kind]()
    header = read_header(content)
    assert (header.height, header.width) == expected.shape[:2]
    read = pixels_compressed(memoryview(content), "tiff", "a.tif")
    assert read.dtype == expected.dtype
    assert np.array_equal(read, expected)
    gray = expected[..., 0] if expected.shape[2:] == (2,) else expected
    rgb = np.stack([gray] * 3, axis=-1) if gray.ndim == 2 else expected[..., :3]
    rgb = np.rint(rgb / 257) if expected.dtype == np.uint16 else rgb
    picture = decode_compressed(content, "tiff", "a.tif")
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, rgb)


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("write", [opencv, tiff])
def test_numbers_are_read_bit_by_bit_and_are_no_picture(write, kind):
    numbers = NUMBERS[kind]()
    content = write(numbers)
    read = pixels_compressed(content, "tiff", "a.tif")
    assert read.dtype == numbers.dtype
    assert read.tobytes() == numbers.tobytes()
    with pytest.raises(FrameError, match="tiff is depth or data"):
        decode_compressed(content, "tiff", "a.tif")


@pytest.mark.parametrize(
    "write",
    [
        lambda: tiff(np.tile(COLOR, (2, 2, 1)), tile=(16, 16), photometric="rgb"),
        lambda: tiff(None, pages=[GRAY, GRAY]),
        lambda: tiff(GRAY.astype(np.float16)),
        lambda: tiff(GRAY.astype(np.uint32), compression="zlib"),
        lambda: tiff(GRAY, big=True),
        lambda: tiff(np.dstack([COLOR, GRAY]), photometric="separated"),
        lambda: opencv(COLOR, cv2.IMWRITE_TIFF_COMPRESSION, 7),
    ],
    ids=["tiles", "pages", "float16", "uint32", "BigTIFF", "CMYK", "JPEG inside"],
)  # fmt: skip
def test_another_kind_is_refused_rather_than_shown_wrong(write):
    content = write()
    for read in (decode_compressed, pixels_compressed):
        with pytest.raises(
            FrameError, match=r"a.tif: .*(convert it to PNG|bigtiff is not)"
        ) as caught:
            read(content, "tiff", "a.tif")
        assert caught.value.reason == "unknown format"


@pytest.mark.parametrize("kind", ["LZW, color", "LZW, 16 bits", "not packed", "PackBits"])
def test_a_file_that_was_cut_is_refused(kind):
    content, expected = READ[kind]()
    for end in range(0, len(content), 7):
        reason, read = "", expected
        try:
            read = pixels_compressed(content[:end], "tiff", "a.tif")
        except FrameError as error:
            reason = error.reason
        assert reason in ("", "empty", "unknown format", "damaged tiff")
        assert np.array_equal(read, expected)  # at most what comes behind the pixels is gone


@pytest.mark.parametrize(
    ("compression", "packed"),
    [
        (5, bytes([0x80, 0x10, 0x7F, 0xE0])),  # 256, 65, 511: a code that nothing stands for
        (5, bytes([0xC0, 0x40])),  # begins with one
        (8, zlib.compress(bytes(3))[:-4]),  # no checksum behind it
        (8, zlib.compress(bytes(2))),
        (32773, b"\x81"),
    ],
)
def test_strips_that_do_not_unpack_are_damaged(compression, packed):
    with pytest.raises(FrameError) as caught:
        unpack(memoryview(packed), compression, 3)
    assert caught.value.reason == "damaged tiff"


def test_damage_inside_is_an_error_and_nothing_is_written_to_the_terminal(capfd):
    content = bytearray(opencv(COLOR))
    content[8:300] = b"\xaa" * 292  # OpenCV shows black for it
    with pytest.raises(FrameError, match=r"a\.tif: .*damaged tiff") as caught:
        pixels_compressed(bytes(content), "tiff", "a.tif")
    assert caught.value.reason == "damaged tiff"
    assert capfd.readouterr().err == ""


def test_a_size_that_the_bytes_cannot_hold_is_refused_before_anything_is_decoded():
    content = bytearray(opencv(np.zeros((13, 21), np.uint8)))
    at = content.index(b"\x00\x01\x03\x00\x01\x00\x00\x00\x15\x00")  # the entry of the width
    content[at + 8 : at + 10] = (30_000).to_bytes(2, "little")
    with pytest.raises(FrameError, match="claims 30000 x 13 pixels") as caught:
        read_header(bytes(content))
    assert caught.value.reason == "bad size"


@given(st.sampled_from(["LZW, color", "LZW, gray", "LZW, 16 bits"]), st.data())
def test_any_change_gives_a_picture_of_the_headers_size_or_an_error(kind, choose):
    content = bytearray(READ[kind]()[0])
    for _ in range(choose.draw(st.integers(1, 4))):
        content[choose.draw(st.integers(0, len(content) - 1))] = choose.draw(st.integers(0, 255))
    try:
        header = read_header(bytes(content))
        pixels = pixels_compressed(bytes(content), "tiff", "a.tif")
    except FrameError:
        return
    assert pixels.shape[:2] == (header.height, header.width)
