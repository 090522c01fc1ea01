"""Image files of messages: pixels as sent, or an error that names the frame."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.pictures.decode import decode_compressed, pixels_compressed
from fleet_model.errors import FrameError
from fleet_model.pictures.tiff import write_tiff

pytestmark = pytest.mark.base

PNG_COLORS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG's color type


def noise(*shape, sample=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(sample).max, shape, sample, endpoint=True)


def png(pixels, palette=None):
    """Write a PNG by its specification, without OpenCV."""
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(len(pixels), -1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    color = 3 if palette is not None else PNG_COLORS[channels]
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, pixels.itemsize * 8, color, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if palette is not None:
        chunks.append((b"PLTE", palette.tobytes()))
    chunks += [(b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


@pytest.mark.parametrize("sample", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_a_png_is_read_sample_by_sample(channels, sample, height, width):
    pixels = noise(*((height, width, channels) if channels > 1 else (height, width)), sample=sample)
    expected = pixels if channels != 2 else pixels[..., [0, 0, 0, 1]]
    content = png(pixels)
    read = pixels_compressed(content, "", "bag")
    assert read.dtype == sample
    assert np.array_equal(read, expected)
    rgb = np.stack([expected] * 3, axis=-1) if channels == 1 else expected[..., :3]
    if sample == np.uint16:
        rgb = np.rint(rgb / 257)
    picture = decode_compressed(memoryview(content), "", "bag")
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, rgb)


def test_a_palette_becomes_its_colors():
    palette, positions = noise(7, 3), noise(5, 6) % 7
    content = png(positions, palette)
    assert np.array_equal(pixels_compressed(content, "", "bag"), palette[positions])
    assert np.array_equal(decode_compressed(content, "", "bag"), palette[positions])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_a_compressed_picture_is_rgb(suffix):
    red = np.full((16, 16, 3), (0, 0, 250), np.uint8)  # OpenCV writes BGR
    content = cv2.imencode(suffix, red)[1].tobytes()
    for read in (decode_compressed, pixels_compressed):
        picture = read(memoryview(content), "", "bag")
        assert picture.shape == (16, 16, 3)
        assert np.abs(picture.mean((0, 1)) - (250, 0, 0)).max() < 8


def test_a_gray_jpeg_has_three_equal_channels_as_a_picture_and_one_as_sensed():
    content = cv2.imencode(".jpg", noise(8, 9))[1].tobytes()
    pixels, picture = (
        read(content, "jpeg", "bag") for read in (pixels_compressed, decode_compressed)
    )
    assert pixels.shape == (8, 9)
    assert np.array_equal(picture, np.stack([pixels] * 3, axis=-1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_as_sent_whatever_orientation_exif_asks_for(orientation):
    content = cv2.imencode(".jpg", noise(16, 24, 3))[1].tobytes()
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    turned = content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]
    for read in (decode_compressed, pixels_compressed):
        assert np.array_equal(read(turned, "", "bag"), read(content, "", "bag"))


def test_a_float_picture_is_pixels_and_no_color():
    depth = np.float32([[1.5, np.nan, -0.0], [np.inf, 3e-39, 2]])
    content = write_tiff(depth)
    assert pixels_compressed(content, "", "bag").tobytes() == depth.tobytes()
    with pytest.raises(FrameError, match="tiff is depth or data"):
        decode_compressed(content, "", "bag")


def depth_png():
    return png(np.full((8, 8), 1500, np.uint16))


def test_a_png_that_the_message_declares_as_depth_keeps_its_sixteen_bits_and_is_no_picture():
    pixels = pixels_compressed(depth_png(), "16UC1; png compressed ", "bag")
    assert pixels.dtype == np.uint16
    assert (pixels == 1500).all()
    with pytest.raises(FrameError, match="bag: 16UC1; png compressed is depth") as caught:
        decode_compressed(depth_png(), "16UC1; png compressed", "bag")
    assert caught.value.reason == "not a color picture"


@pytest.mark.parametrize(
    ("spoil", "declared", "reason", "text"),
    [
        (lambda jpeg: b"", "jpeg", "empty", "no data"),
        (lambda jpeg: jpeg[: len(jpeg) // 2], "jpeg", "cut jpeg", "cut short"),
        (lambda jpeg: jpeg[:-1], "jpeg", "cut jpeg", "cut short"),
        (lambda jpeg: jpeg[:3] + b"\xff\xd9", "jpeg", "cut jpeg", "cut short"),
        (lambda jpeg: jpeg[:20] + bytes(9) + jpeg[29:], "jpeg", "damaged jpeg", "no segment at"),
        (lambda jpeg: b"\0" * 500, "h264", "unknown format", "jpeg, png.*declared as 'h264'"),
        (lambda jpeg: bytes(12) + depth_png(), "png", "unknown format", "declared as 'png'"),
        (lambda jpeg: depth_png()[:40], "png", "cut png", "cut short"),
        (lambda jpeg: depth_png()[:-1], "png", "cut png", "cut short"),
        (lambda jpeg: depth_png().replace(b"IDAT", b"IDAU"), "png", "damaged png", "checksum"),
        (lambda jpeg: jpeg.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "jpeg",
         "unknown format", "12 bits"),
    ],
)  # fmt: skip
def test_a_spoilt_picture_is_an_error(spoil, declared, reason, text, picture_bytes):
    for read in (decode_compressed, pixels_compressed):
        with pytest.raises(FrameError, match=f"r1/camera at 7: .*{text}") as caught:
            read(spoil(picture_bytes(3)), declared, "r1/camera at 7")
        assert caught.value.reason == reason


def test_a_png_with_a_good_checksum_and_no_pixels_in_it_is_damaged():
    content = png(noise(8, 8))
    begin = content.index(b"IDAT")
    empty = zlib.compress(b"")
    chunk = b"IDAT" + empty
    spoilt = (
        content[: begin - 4]
        + struct.pack(">I", len(empty))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + content[content.index(b"IEND") - 4 :]
    )
    with pytest.raises(FrameError, match="damaged png") as caught:
        decode_compressed(spoilt, "png", "bag")
    assert caught.value.reason == "damaged png"


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"])
)
def test_any_bytes_are_a_picture_or_an_error(content, begin):
    for read in (decode_compressed, pixels_compressed):
        with pytest.raises(FrameError):
            read(begin + content, "", "bag")
