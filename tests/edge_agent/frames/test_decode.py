import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.frames.decode import RawLayout, decode_compressed, decode_raw, image_format
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
ENCODED = {
    "rgb8": RGB,
    "bgr8": RGB[..., ::-1],
    "rgba8": np.dstack([RGB, RGB[..., :1]]),
    "bgra8": np.dstack([RGB[..., ::-1], RGB[..., :1]]),
}


def padded(pixels, padding):
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1)
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=99)


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("encoding", ENCODED)
def test_every_colour_encoding_gives_the_same_picture_and_padding_changes_nothing(
    encoding, padding
):
    rows = padded(ENCODED[encoding], padding)
    layout = RawLayout(encoding, 4, 6, rows.shape[1])
    assert np.array_equal(decode_raw(rows.tobytes(), layout, "bag"), RGB)


def test_gray_pixels_become_three_equal_channels():
    rows = padded(RGB[..., 0], 2)
    picture = decode_raw(rows.tobytes(), RawLayout("mono8", 4, 6, 8), "bag")
    assert np.array_equal(picture, np.repeat(RGB[..., :1], 3, axis=2))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.integers(-40, 40))
def test_data_of_any_other_length_is_refused_rather_than_sheared(height, width, padding, change):
    rows = np.arange(height * (width * 3 + padding), dtype=np.uint8).reshape(height, -1)
    content = rows.tobytes()
    wrong = content[:change] if change < 0 else content + bytes(change)
    layout = RawLayout("rgb8", height, width, width * 3 + padding)
    if change:
        with pytest.raises(FrameError, match="bytes with step"):
            decode_raw(wrong, layout, "bag")
    else:
        expected = rows[:, : width * 3].reshape(height, width, 3)
        assert np.array_equal(decode_raw(wrong, layout, "bag"), expected)


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (RawLayout("bgr8", 4, 6, 17), "step of at least 18"),
        (RawLayout("bgr8", 4, 6, 0), "step of at least 18"),
        (RawLayout("bgr8", 0, 0, 0), "empty picture"),
        (RawLayout("bgr8", 2**31, 2**31, 2**33), "expected height"),
        (RawLayout("16UC1", 4, 6, 12), "the encoding '16UC1', expected rgb8, bgr8"),
        (RawLayout("", 4, 6, 12), "the encoding ''"),
    ],
)
def test_a_layout_that_contradicts_itself_is_an_error_that_names_the_frame(layout, text):
    with pytest.raises(FrameError, match=f"r1/camera at 7: .*{text}"):
        decode_raw(bytes(72), layout, "r1/camera at 7")


def test_a_raw_picture_is_the_callers_own():
    content = RGB.tobytes()
    picture = decode_raw(content, RawLayout("rgb8", 4, 6, 18), "bag")
    picture[:] = 0
    assert content == RGB.tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_a_compressed_picture_is_rgb(suffix):
    red = np.full((16, 16, 3), (0, 0, 250), np.uint8)  # OpenCV writes BGR
    content = cv2.imencode(suffix, red)[1].tobytes()
    picture = decode_compressed(memoryview(content), "", "bag")
    assert picture.shape == (16, 16, 3)
    assert np.abs(picture.mean((0, 1)) - (250, 0, 0)).max() < 8


def test_a_gray_jpeg_gets_three_channels(picture_bytes):
    assert decode_compressed(picture_bytes(1, shape=(8, 9)), "jpeg", "bag").shape == (8, 9, 3)


def depth_png():
    return cv2.imencode(".png", np.full((8, 8), 1500, np.uint16))[1].tobytes()


@pytest.mark.parametrize(
    ("spoil", "declared", "text"),
    [
        (lambda jpeg: b"", "jpeg", "no data"),
        (lambda jpeg: jpeg[: len(jpeg) // 2], "jpeg", "cut short"),
        (lambda jpeg: jpeg[:-1], "jpeg", "cut short"),
        (lambda jpeg: jpeg[:3] + b"\xff\xd9", "jpeg", "a damaged jpeg"),
        (lambda jpeg: b"\0" * 500, "h264", "the unknown format 'h264'"),
        (lambda jpeg: depth_png(), "16UC1; png compressed", "16-bit png"),
        (lambda jpeg: bytes(12) + depth_png(), "16UC1; compressedDepth png", "unknown format"),
        (lambda jpeg: depth_png()[:40], "png", "cut short"),
    ],
)
def test_a_spoilt_picture_is_an_error(spoil, declared, text, picture_bytes):
    with pytest.raises(FrameError, match=f"r1/camera at 7: .*{text}"):
        decode_compressed(spoil(picture_bytes(3)), declared, "r1/camera at 7")


def test_the_first_bytes_decide_the_format_and_not_what_the_message_says(picture_bytes):
    assert image_format(picture_bytes(1, ".png"), "bgr8; jpeg compressed bgr8") == "png"
    assert image_format(b"\0\0\0\1", "h264") == "h264"
