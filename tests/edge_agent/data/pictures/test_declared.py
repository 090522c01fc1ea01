"""What the first words of a CompressedImage's format change: Bayer, depth, exchanged channels."""

import cv2
import numpy as np
import pytest

from edge_agent.data.pictures.declared import own_samples
from edge_agent.data.pictures.decode import decode_compressed, pixels_compressed
from edge_agent.data.pictures.raw import ENCODINGS, RawLayout, decode_raw, pixels_raw
from fleet_model.errors import FrameError
from fleet_model.pictures.image_header import read_header

pytestmark = pytest.mark.base

RNG = np.random.default_rng(0)
BAYER = [name for name in ENCODINGS if name.startswith("bayer")]


def encoded(suffix, samples):
    """Encode as image_transport does: three channels are taken for B, G, R."""
    settings = (cv2.IMWRITE_JPEG_QUALITY, 100) if suffix == ".jpg" else ()
    return cv2.imencode(suffix, samples, settings)[1].tobytes()


def samples_of(name, height=14, width=22):
    encoding = ENCODINGS[name]
    dtype = np.dtype(encoding.sample)
    shape = (height, width, encoding.channels) if encoding.channels > 1 else (height, width)
    if dtype.kind == "f":
        return RNG.normal(2, 3, shape).astype(dtype)
    return RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def raw(read, samples, name):
    height, width = samples.shape[:2]
    layout = RawLayout(name, height, width, samples[0].nbytes)
    return read(samples.tobytes(), layout, "bag")


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("name", BAYER)
def test_a_mosaic_in_a_file_is_the_picture_that_the_raw_topic_has(name, suffix):
    samples = samples_of(name)
    content = encoded(suffix, samples)
    declared = f"{name}; {suffix[1:]} compressed "
    assert np.array_equal(
        decode_compressed(content, declared, "bag"), raw(decode_raw, samples, name)
    )
    pixels = pixels_compressed(content, declared, "bag")
    assert np.array_equal(pixels, raw(pixels_raw, samples, name))
    assert pixels.dtype == samples.dtype


def test_a_mosaic_in_a_jpeg_is_a_color_picture():
    mosaic = np.empty((64, 96), np.uint8)
    mosaic[::2, ::2], mosaic[1::2, 1::2] = 230, 20
    mosaic[::2, 1::2] = mosaic[1::2, ::2] = 40
    picture = decode_compressed(encoded(".jpg", mosaic), "bayer_rggb8; jpeg compressed ", "bag")
    assert np.abs(picture[4:-4, 4:-4] - np.array([230.0, 40, 20])).max() < 8


@pytest.mark.parametrize(
    "declared",
    [
        "bayer_rggb8; jpeg compressed mono8",  # ROS 2 makes it gray first
        "mono8; jpeg compressed ",
        "mono16; jpeg compressed mono8",
        "yuv422; jpeg compressed mono8",
        "jpeg",
        "",
    ],
)
def test_a_gray_jpeg_that_is_one_stays_one(declared):
    content = encoded(".jpg", samples_of("mono8"))
    gray = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(pixels_compressed(content, declared, "bag"), gray)
    assert np.array_equal(decode_compressed(content, declared, "bag")[..., 1], gray)


def test_a_color_file_is_one_whatever_mosaic_is_declared():
    content = encoded(".png", samples_of("bgr8"))
    for declared in ("bayer_rggb8; png compressed bgr8", "bayer_rggb8; png compressed "):
        assert own_samples(declared, read_header(content)) == ""


@pytest.mark.parametrize("name", ["rgb8", "rgba8", "rgb16", "rgba16", "bgr8", "bgra8", "8UC3"])
def test_colors_of_a_tiff_are_those_of_the_camera(name):
    """The plug-in exchanges red and blue of rgb pictures, and nobody undoes it."""
    samples = samples_of(name)
    content = encoded(".tiff", samples)
    declared = f"{name}; tiff compressed "
    assert np.array_equal(
        pixels_compressed(content, declared, "bag"), raw(pixels_raw, samples, name)
    )
    assert np.array_equal(
        decode_compressed(content, declared, "bag"), raw(decode_raw, samples, name)
    )


@pytest.mark.parametrize("name", ["16UC1", "32FC1", "32SC1", "16SC1", "8SC1", "64FC1", "mono16"])
def test_numbers_in_a_tiff_are_those_of_the_camera(name):
    samples = samples_of(name)
    pixels = pixels_compressed(encoded(".tiff", samples), f"{name}; tiff compressed ", "bag")
    assert pixels.dtype == samples.dtype
    assert pixels.tobytes() == samples.tobytes()


@pytest.mark.parametrize(
    ("name", "suffix", "target"),
    [
        ("16UC1", ".jpg", ""),
        ("16UC1", ".jpg", "mono8"),
        ("32FC1", ".jpg", "mono8"),
        ("mono16", ".jpg", ""),  # ROS 1 cuts at 255
        ("bayer_rggb16", ".jpg", ""),
        ("16SC1", ".png", ""),
    ],
)
def test_samples_that_were_cut_to_eight_bits_are_refused_by_what_was_declared(name, suffix, target):
    content = encoded(suffix, samples_of("mono8"))
    declared = f"{name}; {suffix[1:]} compressed {target}"
    for read in (decode_compressed, pixels_compressed):
        with pytest.raises(FrameError, match=f"bag: .*declared as '{declared}'.*{name}") as caught:
            read(content, declared, "bag")
        assert caught.value.reason == "cut samples"


def test_depth_in_a_png_is_depth():
    samples = samples_of("16UC1")
    content = encoded(".png", samples)
    assert np.array_equal(pixels_compressed(content, "16UC1; png compressed ", "bag"), samples)
    with pytest.raises(FrameError, match="is depth or data"):
        decode_compressed(content, "16UC1; png compressed ", "bag")
