"""compressedDepth as image_transport writes it; RVL against an encoder after the paper."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.pictures.compressed_depth import depth_pixels, read_compressed_depth
from edge_agent.data.pictures.decode import decode_compressed, pixels_compressed
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base

A, B = 100.0, 3.5
PARAMETERS = struct.pack("<iff", 0, A, B)


def depth_image(height, width, seed=0, empty=0.4):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 65536, (height, width)).astype(np.uint16)
    smooth = rng.integers(900, 1100, (height, width)).astype(np.uint16)
    values = np.where(rng.random((height, width)) < 0.7, smooth, values)
    values[rng.random((height, width)) < empty] = 0
    return values


def rvl(values):
    """Encode as in listing 1 of the paper: runs, differences, nibbles of three bits."""
    nibbles = []

    def write(number):
        while True:
            number, low = number >> 3, number & 7
            nibbles.append(low | 8 if number else low)
            if not number:
                return

    flat, at, before = values.reshape(-1).astype(int).tolist(), 0, 0
    while at < len(flat):
        begin = at
        while at < len(flat) and flat[at] == 0:
            at += 1
        write(at - begin)
        begin = at
        while at < len(flat) and flat[at] != 0:
            at += 1
        write(at - begin)
        for value in flat[begin:at]:
            difference = value - before
            write(2 * difference if difference >= 0 else -2 * difference - 1)
            before = value
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)
    ]
    height, width = values.shape
    return struct.pack(f"<II{len(words)}I", width, height, *words)


def png(values):
    return cv2.imencode(".png", values)[1].tobytes()


def metric(values):
    """Return A / (value - B) in float32, NaN for 0."""
    expected = np.float32(A) / (values.astype(np.float32) - np.float32(B))
    expected[values == 0] = np.nan
    return expected


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99), st.floats(0, 1))
def test_rvl_is_lossless(height, width, seed, empty):
    values = depth_image(height, width, seed, empty)
    pixels = pixels_compressed(PARAMETERS + rvl(values), "16UC1; compressedDepth rvl", "bag")
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, values)


@pytest.mark.parametrize("declared", ["16UC1; compressedDepth", "16UC1; compressedDepth png"])
@pytest.mark.parametrize("parameters", [PARAMETERS, b""])
def test_sixteen_bits_stay_sixteen_bits_with_parameters_or_without(declared, parameters):
    values = depth_image(8, 9)
    pixels = pixels_compressed(parameters + png(values), declared, "bag")
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, values)


@pytest.mark.parametrize(("codec", "encode"), [("png", png), ("rvl", rvl)])
def test_metric_depth_is_the_inverse_of_what_was_quantized(codec, encode):
    values = depth_image(8, 9)
    content = PARAMETERS + encode(values)
    pixels = pixels_compressed(content, f"32FC1; compressedDepth {codec}", "bag")
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, metric(values), equal_nan=True)


def test_depth_has_no_color():
    content = PARAMETERS + png(depth_image(8, 9))
    with pytest.raises(FrameError, match="bag: 16UC1; compressedDepth png is depth") as caught:
        decode_compressed(content, "16UC1; compressedDepth png", "bag")
    assert caught.value.reason == "not a color picture"


def test_the_png_inside_is_the_payload():
    content = png(depth_image(8, 9))
    depth = read_compressed_depth(PARAMETERS + content, "16UC1; compressedDepth png")
    assert (depth.codec, depth.width, depth.height) == ("png", 9, 8)
    assert bytes(depth.payload) == content


RVL = PARAMETERS + rvl(depth_image(8, 9))
SIZE = slice(12, 20)


@pytest.mark.parametrize(
    ("content", "declared", "reason"),
    [
        (b"", "16UC1; compressedDepth", "empty"),
        (PARAMETERS, "16UC1; compressedDepth", "empty"),
        (PARAMETERS[:7], "16UC1; compressedDepth", "short data"),
        (RVL[:18], "16UC1; compressedDepth rvl", "short data"),
        (RVL[:-16], "16UC1; compressedDepth rvl", "short data"),
        (RVL[:20], "16UC1; compressedDepth rvl", "short data"),
        (RVL[:20] + b"\xff" * 40, "16UC1; compressedDepth rvl", "short data"),
        (RVL[:12] + struct.pack("<II", 9, 7) + RVL[20:], "16UC1; compressedDepth rvl", "long data"),
        (RVL[:12] + struct.pack("<II", 1, 1) + RVL[20:], "16UC1; compressedDepth rvl", "long data"),
        (RVL[:12] + bytes(8) + RVL[20:], "16UC1; compressedDepth rvl", "bad size"),
        (RVL[:12] + b"\xff" * 8 + RVL[20:], "16UC1; compressedDepth rvl", "bad size"),
        (RVL, "8UC1; compressedDepth rvl", "unknown encoding"),
        (RVL, "compressedDepth", "unknown encoding"),
        (RVL, "16UC1; compressedDepth zstd", "unknown encoding"),
        (RVL, "16UC1; compressedDepth png", "unknown format"),
        (png(np.zeros((4, 4, 3), np.uint16)), "16UC1; compressedDepth", "unknown format"),
        (png(np.zeros((4, 4), np.uint8)), "16UC1; compressedDepth", "unknown format"),
        (PARAMETERS + png(depth_image(8, 9))[:-3], "32FC1; compressedDepth", "cut png"),
    ],
)  # fmt: skip
def test_spoilt_depth_is_an_error(content, declared, reason):
    with pytest.raises(FrameError, match="bag: ") as caught:
        pixels_compressed(content, declared, "bag")
    assert caught.value.reason == reason


@given(st.binary(max_size=60), st.integers(1, 6), st.integers(1, 6))
def test_any_rvl_is_a_picture_of_its_size_or_an_error(content, height, width):
    data = PARAMETERS + struct.pack("<II", width, height) + content
    shape, reason = (height, width), ""
    try:
        shape = depth_pixels(read_compressed_depth(data, "16UC1; compressedDepth rvl")).shape
    except FrameError as error:
        reason = error.reason
    assert shape == (height, width)
    assert reason in ("", "short data", "long data")
