"""Files that lose nothing: what was written is what is read, also by other readers."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.pictures.decode import pixels_compressed
from edge_agent.data.pictures.encode import encode_jpeg, encode_png, encode_tiff
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base
sizes = st.integers(1, 9)


def noise(shape, sample=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(sample).max, shape, sample, endpoint=True)


@pytest.mark.parametrize("sample", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
@given(height=sizes, width=sizes)
def test_a_png_holds_the_same_pixels(channels, sample, height, width):
    shape = (height, width, channels) if channels else (height, width)
    pixels = noise(shape, sample)
    before = pixels.copy()
    read = pixels_compressed(encode_png(pixels), "", "bag")
    expected = {1: lambda: pixels[..., 0], 2: lambda: pixels[..., [0, 0, 0, 1]]}
    assert read.dtype == sample
    assert np.array_equal(read, expected.get(channels, lambda: pixels)())
    assert np.array_equal(pixels, before)


def test_rows_that_are_not_next_to_each_other_are_written_as_well():
    pixels = noise((8, 20, 3))[::2, ::3, ::-1]
    assert np.array_equal(pixels_compressed(encode_png(pixels), "", "bag"), pixels)


@given(height=sizes, width=sizes, seed=st.integers(0, 2**32 - 1))
def test_a_tiff_holds_the_same_bits_also_of_numbers_that_are_none(height, width, seed):
    bits = np.random.default_rng(seed).integers(0, 2**32, (height, width), np.uint32)
    pixels = bits.view(np.float32)
    content = encode_tiff(pixels)
    assert pixels_compressed(content, "", "bag").view(np.uint32).tolist() == bits.tolist()
    by_opencv = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert by_opencv.view(np.uint32).tolist() == bits.tolist()


@pytest.mark.parametrize("sample", ["u1", "i1", "u2", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4, 7])
def test_a_tiff_holds_numbers_of_every_kind_and_any_number_of_channels(sample, channels):
    """Also for tifffile, which shares no code with us."""
    shape = (5, 6, channels) if channels else (5, 6)
    bits = noise((5, 6 * (channels or 1) * np.dtype(sample).itemsize))
    pixels = bits.reshape(-1).view(sample).reshape(shape)
    content = encode_tiff(pixels)
    one = pixels.squeeze(2) if channels == 1 else pixels
    read = pixels_compressed(content, "", "bag")
    assert (read.dtype, read.shape) == (one.dtype, one.shape)
    assert read.tobytes() == one.tobytes()
    tifffile = pytest.importorskip("tifffile")
    page = tifffile.TiffFile(io.BytesIO(content)).pages[0]
    assert (page.dtype, page.shape) == (one.dtype, one.shape)
    assert page.asarray().tobytes() == one.tobytes()


def test_a_jpeg_is_close_and_its_colors_are_in_order():
    pixels = np.full((16, 16, 3), (250, 120, 10), np.uint8)
    read = pixels_compressed(encode_jpeg(pixels), "", "bag")
    assert np.abs(read.astype(int) - pixels).max() < 6
    assert pixels_compressed(encode_jpeg(pixels[..., 0]), "", "bag").shape == (16, 16)
    assert len(encode_jpeg(noise((64, 64, 3)), 30)) < len(encode_jpeg(noise((64, 64, 3))))


@pytest.mark.parametrize(
    ("encode", "pixels", "text"),
    [
        (encode_png, np.zeros((2, 2), np.float32), "float32.*expected uint8 or uint16"),
        (encode_png, np.zeros((2, 2, 5), np.uint8), "1 to 4 channels"),
        (encode_tiff, np.zeros((2, 2), np.complex64), "complex64.*expected uint8 or int8"),
        (encode_tiff, np.zeros((2, 2, 513), np.uint8), "1 to 512 channels"),
        (encode_jpeg, np.zeros((2, 2), np.uint16), "expected uint8"),
        (encode_jpeg, np.zeros((1, 70000), np.uint8), "OpenCV writes no .jpg"),
    ],
)
def test_pixels_that_a_file_cannot_hold_are_refused(encode, pixels, text):
    with pytest.raises(FrameError, match=text):
        encode(pixels)
