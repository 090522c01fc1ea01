"""Every raw encoding against pixels computed here with NumPy alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.pictures.raw import RawLayout, check_layout, decode_raw, pixels_raw
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base

BAYER = {  # where red and blue lie in the upper left 2 x 2 pixels: (row, column)
    "rggb": ((0, 0), (1, 1)),
    "bggr": ((1, 1), (0, 0)),
    "gbrg": ((1, 0), (0, 1)),
    "grbg": ((0, 1), (1, 0)),
}


def noise(*shape, sample=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(sample).kind == "f":
        return rng.normal(2, 3, shape).astype(sample)
    limits = np.iinfo(sample)
    return rng.integers(limits.min, limits.max, shape, sample, endpoint=True)


def image(samples, encoding, padding=0, big=False, height=None):
    """Return the data and the layout of (rows, columns[, channels]) samples."""
    stored = samples.astype(samples.dtype.newbyteorder(">" if big else "<"))
    rows = np.ascontiguousarray(stored).view(np.uint8).reshape(len(samples), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    layout = RawLayout(encoding, height or len(samples), samples.shape[1], rows.shape[1], big)
    return rows.tobytes(), layout


def eight(pixels):
    return np.rint(pixels * (255 / 65535)).astype(np.uint8) if pixels.itemsize == 2 else pixels


def three(gray):
    return np.stack([gray] * 3, axis=-1)


def demosaic(mosaic, pattern):
    """Average the nearest pixels of each color; the border repeats what lies beside it."""
    height, width = mosaic.shape
    values = mosaic.astype(np.int64)
    rows, columns = np.indices(mosaic.shape)
    red, blue = BAYER[pattern]

    def at(position):
        return (rows % 2 == position[0]) & (columns % 2 == position[1])

    def average(*offsets):
        total = sum(np.roll(values, offset, (0, 1)) for offset in offsets)
        return (total + len(offsets) // 2) // len(offsets)

    cross = average((1, 0), (-1, 0), (0, 1), (0, -1))
    corners = average((1, 1), (1, -1), (-1, 1), (-1, -1))
    beside, above = average((0, 1), (0, -1)), average((1, 0), (-1, 0))

    def plane(own, other):
        in_row = rows % 2 == own[0]
        green_beside = np.where(in_row, beside, above)
        return np.where(at(own), values, np.where(at(other), corners, green_beside))

    green = np.where(at(red) | at(blue), cross, values)
    color = np.stack([plane(red, blue), green, plane(blue, red)], axis=-1)
    inner = color[1 : height - 1, 1 : width - 1]
    return np.pad(inner, ((1, 1), (1, 1), (0, 0)), mode="edge").astype(mosaic.dtype)


def bt601(y, u, v):
    """ITU-R BT.601 with 16..235, from (height, width) each."""
    y, u, v = 1.164 * (y.astype(float).clip(16) - 16), u - 128.0, v - 128.0
    color = np.stack([y + 1.596 * v, y - 0.813 * v - 0.391 * u, y + 2.018 * u], axis=-1)
    return color.clip(0, 255)


PLAIN = {  # encoding -> (channels, sample, pixels as sensed, has a picture)
    "rgb8": (3, np.uint8, lambda s: s, True),
    "bgr8": (3, np.uint8, lambda s: s[..., ::-1], True),
    "rgba8": (4, np.uint8, lambda s: s, True),
    "bgra8": (4, np.uint8, lambda s: s[..., [2, 1, 0, 3]], True),
    "mono8": (1, np.uint8, lambda s: s, True),
    "rgb16": (3, np.uint16, lambda s: s, True),
    "bgr16": (3, np.uint16, lambda s: s[..., ::-1], True),
    "rgba16": (4, np.uint16, lambda s: s, True),
    "bgra16": (4, np.uint16, lambda s: s[..., [2, 1, 0, 3]], True),
    "mono16": (1, np.uint16, lambda s: s, True),
    "8UC1": (1, np.uint8, lambda s: s, True),
    "8UC3": (3, np.uint8, lambda s: s[..., ::-1], True),
    "8UC4": (4, np.uint8, lambda s: s[..., [2, 1, 0, 3]], True),
    "16UC3": (3, np.uint16, lambda s: s[..., ::-1], True),
    "16UC4": (4, np.uint16, lambda s: s[..., [2, 1, 0, 3]], True),
}
DATA = {"8U": "u1", "8S": "i1", "16U": "u2", "16S": "i2", "32S": "i4", "32F": "f4", "64F": "f8"}
PLAIN = {
    **{
        f"{k}C{n}": (n, np.dtype(s).type, lambda s: s, False)
        for k, s in DATA.items()
        for n in range(1, 5)
    },
    "16SC7": (7, np.int16, lambda s: s, False),
    "8UC12": (12, np.uint8, lambda s: s, False),
    **PLAIN,
}
SPELLINGS = {
    "YUYV": "yuyv",
    "BGR8": "bgr8",
    "Mono16": "mono16",
    "16uc1": "16UC1",
    "8UC": "8UC1",
    "32fc": "32FC1",
    "Y8": "mono8",
    "Z16": "16UC1",
    "BAYER_RGGB8": "bayer_rggb8",
}
sizes = st.integers(1, 17)


def check_plain(encoding, height, width, padding, big):
    channels, sample, order, has_picture = PLAIN[encoding]
    shape = (height, width, channels) if channels > 1 else (height, width)
    samples = noise(*shape, sample=sample)
    data, layout = image(samples, encoding, padding, big)
    expected = order(samples)
    pixels = pixels_raw(data, layout, "bag")
    assert pixels.dtype == sample
    assert pixels.dtype.isnative
    assert np.array_equal(pixels, expected)
    if has_picture:
        rgb = three(expected) if channels == 1 else expected[..., :3]
        assert np.array_equal(decode_raw(data, layout, "bag"), eight(rgb))
    else:
        with pytest.raises(FrameError, match=f"bag: {encoding} is depth or data") as caught:
            decode_raw(data, layout, "bag")
        assert caught.value.reason == "not a color picture"


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", PLAIN)
def test_pixels_are_as_sensed_in_every_encoding(encoding, padding, big):
    check_plain(encoding, 5, 7, padding, big)


@given(st.sampled_from(list(PLAIN)), sizes, sizes, st.integers(0, 9), st.booleans())
def test_pixels_are_as_sensed_whatever_the_size(encoding, height, width, padding, big):
    check_plain(encoding, height, width, padding, big)


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_an_encoding_is_known_in_capitals_and_by_its_other_names(spelled):
    usual = SPELLINGS[spelled]
    channels, itemsize = {"yuyv": (2, 1), "bgr8": (3, 1)}.get(usual, (1, 1 + usual.endswith("16")))
    itemsize = {"16UC1": 2, "32FC1": 4}.get(usual, itemsize)
    data = noise(4 * 6 * channels * itemsize).tobytes()
    read = [
        pixels_raw(data, RawLayout(name, 4, 6, 6 * channels * itemsize), "bag")
        for name in (spelled, usual)
    ]
    assert read[0].dtype == read[1].dtype
    assert read[0].tobytes() == read[1].tobytes()


@pytest.mark.parametrize("name", ["8UC0", "8UC513", "9UC1", "8U", "32FC-1", "8UC1 ", "YUV"])
def test_a_name_that_is_nearly_one_is_unknown(name):
    with pytest.raises(FrameError) as caught:
        check_layout(RawLayout(name, 4, 6, 10_000), 40_000)
    assert caught.value.reason == "unknown encoding"


def test_all_sixteen_bit_values_are_rounded_to_the_nearest_of_eight():
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    picture = decode_raw(*image(samples, "mono16"), "bag")
    assert np.array_equal(picture[..., 0], np.rint(samples / 257))


def check_bayer(pattern, sample, height, width, padding):
    mosaic = noise(height, width, sample=sample)
    bits = sample().itemsize * 8
    data, layout = image(mosaic, f"bayer_{pattern}{bits}", padding, big=height % 2 == 0)
    expected = demosaic(mosaic, pattern)
    assert np.array_equal(pixels_raw(data, layout, "bag"), expected)
    assert np.array_equal(decode_raw(data, layout, "bag"), eight(expected))


@pytest.mark.parametrize("sample", [np.uint8, np.uint16])
@pytest.mark.parametrize("pattern", BAYER)
@pytest.mark.parametrize("size", [(5, 7), (6, 40), (33, 64)])
def test_bayer_pictures_are_interpolated_between_the_nearest_pixels(pattern, sample, size):
    check_bayer(pattern, sample, *size, padding=3)


@given(
    st.sampled_from(list(BAYER)),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(3, 21),
    st.integers(3, 41),
    st.integers(0, 3),
)
def test_bayer_pictures_may_have_any_size(pattern, sample, height, width, padding):
    check_bayer(pattern, sample, height, width, padding)


@pytest.mark.parametrize(
    ("encoding", "positions"),  # of y, u and v in two pixels' four bytes
    [
        ("yuv422", (1, 0, 2)),
        ("uyvy", (1, 0, 2)),
        ("yuv422_yuy2", (0, 1, 3)),
        ("yuyv", (0, 1, 3)),
    ],
)
@given(height=sizes, pairs=sizes, padding=st.integers(0, 5))
def test_packed_yuv_pixels_share_their_color_in_pairs(encoding, positions, height, pairs, padding):
    samples = noise(height, pairs, 4)
    y_at, u_at, v_at = positions
    y = samples[..., [y_at, y_at + 2]].reshape(height, 2 * pairs)
    expected = bt601(y, samples[..., u_at].repeat(2, axis=1), samples[..., v_at].repeat(2, axis=1))
    data, layout = image(samples.reshape(height, 2 * pairs, 2), encoding, padding)
    for read in (decode_raw, pixels_raw):
        assert np.abs(read(data, layout, "bag") - expected).max() <= 2


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
@given(half_height=sizes, half_width=sizes, padding=st.integers(0, 5))
def test_the_color_plane_of_nv_pictures_has_the_same_step(
    encoding, half_height, half_width, padding
):
    height, width = 2 * half_height, 2 * half_width
    y, color = noise(height, width), noise(half_height, half_width, 2, seed=1)
    u, v = np.moveaxis(color if encoding == "nv12" else color[..., ::-1], -1, 0)
    large = [plane.repeat(2, axis=0).repeat(2, axis=1) for plane in (u, v)]
    rows = np.concatenate([y, color.reshape(half_height, width)])
    data, layout = image(rows, encoding, padding, height=height)
    assert np.abs(decode_raw(data, layout, "bag") - bt601(y, *large)).max() <= 2
    if not padding:  # some drivers count the color plane into the step
        counted = layout._replace(step=width * 3 // 2)
        same = decode_raw(data, counted, "bag")
        assert np.array_equal(same, decode_raw(data, layout, "bag"))


@given(height=sizes, width=sizes, padding=st.integers(0, 5))
def test_nv24_has_a_color_for_every_pixel_in_rows_of_two_steps(height, width, padding):
    y, u, v = noise(3, height, width)
    color = np.stack([u, v], axis=-1).reshape(height, 2 * width)
    rows = np.pad(y, ((0, 0), (0, padding))), np.pad(color, ((0, 0), (0, 2 * padding)))
    data = b"".join(plane.tobytes() for plane in rows)
    picture = decode_raw(data, RawLayout("nv24", height, width, width + padding), "bag")
    assert np.abs(picture - bt601(y, u, v)).max() <= 2


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.integers(-40, 40))
def test_data_of_any_other_length_is_refused_rather_than_sheared(height, width, padding, change):
    data, layout = image(noise(height, width, 3), "rgb8", padding)
    wrong = data[:change] if change < 0 else data + bytes(change)
    if change:
        with pytest.raises(FrameError, match="bag: ") as caught:
            decode_raw(wrong, layout, "bag")
        assert caught.value.reason == (
            "empty" if not wrong else "short data" if change < 0 else "long data"
        )
    else:
        assert np.array_equal(decode_raw(wrong, layout, "bag"), noise(height, width, 3))


@pytest.mark.parametrize(
    ("layout", "reason", "text"),
    [
        (RawLayout("bgr8", 4, 6, 17), "bad step", "step of at least 18"),
        (RawLayout("bgr8", 4, 6, 0), "bad step", "step of at least 18"),
        (RawLayout("bgr8", 0, 6, 18), "bad size", "6 x 0 pixels"),
        (RawLayout("bgr8", 4, 0, 18), "bad size", "0 x 4 pixels"),
        (RawLayout("bgr8", 2**31, 2**31, 2**33), "short data", "72 bytes with step"),
        (RawLayout("bgr8", 3, 6, 18), "long data", "expected 54"),
        (RawLayout("yuyv", 4, 5, 18), "bad size", "even number"),
        (RawLayout("nv12", 3, 6, 16), "bad size", "even number"),
        (RawLayout("nv21", 4, 5, 12), "bad size", "even number"),
        (RawLayout("bayer_rggb8", 2, 36, 36), "bad size", "at least 3 x 3"),
        (RawLayout("h264", 4, 6, 12), "unknown encoding", "the encoding 'h264', expected one of"),
        (RawLayout("", 4, 6, 12), "unknown encoding", "the encoding ''"),
    ],
)
def test_a_layout_that_contradicts_itself_is_an_error_that_names_the_frame(layout, reason, text):
    with pytest.raises(FrameError, match=text) as caught:
        check_layout(layout, 72)
    assert caught.value.reason == reason
    for read in (decode_raw, pixels_raw):
        with pytest.raises(FrameError, match=f"r1/camera at 7: .*{text}") as caught:
            read(bytes(72), layout, "r1/camera at 7")
        assert caught.value.reason == reason


@given(
    st.sampled_from(["rgb8", "mono16", "32FC1", "bayer_gbrg8", "uyvy", "nv12", "nv24", "rgba16"]),
    *[st.integers(0, 12) | st.integers(0, 2**32 - 1)] * 3,
    st.binary(max_size=300),
)
def test_any_sizes_give_a_picture_of_that_size_or_an_error(encoding, height, width, step, data):
    shape, reason = (height, width), ""
    try:
        shape = pixels_raw(data, RawLayout(encoding, height, width, step), "bag").shape[:2]
    except FrameError as error:
        reason = error.reason
    assert shape == (height, width)
    assert reason in ("", "empty", "bad size", "bad step", "short data", "long data")


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "bgr8", "bayer_rggb8"])
def test_a_raw_picture_is_the_callers_own(encoding):
    samples = noise(4, 6, 3) if "gb8" in encoding or "gr8" in encoding else noise(4, 6)
    data, layout = image(samples if encoding != "bayer_rggb8" else noise(4, 6), encoding)
    message = bytearray(data)
    decode_raw(message, layout, "bag")[:] = 0
    assert message == data


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "mono16"])
def test_pixels_as_sensed_are_the_message_itself_and_cannot_be_changed(encoding):
    kind = np.uint16 if encoding == "mono16" else np.uint8
    samples = noise(4, 6, 3) if encoding == "rgb8" else noise(4, 6).astype(kind)
    data, layout = image(samples, encoding)
    pixels = pixels_raw(bytearray(data), layout, "bag")
    assert np.array_equal(pixels, samples)
    with pytest.raises(ValueError, match="read-only"):
        pixels[:] = 0
