"""Turn the payload of a camera message into an RGB picture, or say why that is impossible.

A picture is right or it is an error: rows are cut by the message's own `step`, and a message whose
sizes contradict each other is refused rather than shown sheared.
"""

from typing import NamedTuple

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.types import RgbImage

# What the first bytes say is true; `CompressedImage.format` is often "bgr8; jpeg compressed bgr8".
_FIRST_BYTES = {
    "jpeg": b"\xff\xd8\xff",
    "png": b"\x89PNG\r\n\x1a\n",
    "webp": b"RIFF",
    "bmp": b"BM",
}
_LAST_BYTES = {"jpeg": b"\xff\xd9", "png": b"IEND"}  # some OpenCV fill a cut picture with gray
_PNG_DEPTH_AT = 24  # byte of the header that holds the bits per sample

# encoding -> (bytes per pixel, OpenCV conversion to RGB)
_RAW = {
    "rgb8": (3, ""),
    "bgr8": (3, "COLOR_BGR2RGB"),
    "rgba8": (4, "COLOR_RGBA2RGB"),
    "bgra8": (4, "COLOR_BGRA2RGB"),
    "mono8": (1, "COLOR_GRAY2RGB"),
}


class RawLayout(NamedTuple):
    """How the bytes of a raw `sensor_msgs/Image` lie: its fields of the same names."""

    encoding: str
    height: int  # rows
    width: int  # pixels
    step: int  # bytes from one row to the next, padding included


def image_format(data: bytes | memoryview, declared: str) -> str:
    """Return "jpeg", "png", "webp" or "bmp" by the first bytes, else what was declared."""
    start = bytes(data[:8])
    return next((name for name, first in _FIRST_BYTES.items() if start.startswith(first)), declared)


def decode_compressed(data: bytes | memoryview, declared: str, where: str) -> RgbImage:
    """Return the picture of an image file's bytes as (height, width, 3), the caller's own.

    Args:
        data: a whole JPEG, PNG, WebP or BMP file.
        declared: the message's own word for its format, for the error text.
        where: names the frame in errors: source, topic and stamp.

    Raises:
        FrameError: empty, cut short, damaged, 16 bits deep, or another format.
    """
    import cv2

    content = bytes(data)
    name = image_format(content, "")
    if not name:
        what = f"the unknown format {declared!r}" if content else "no data"
        raise FrameError(f"{where}: {what}, expected {', '.join(_FIRST_BYTES)}")
    if _LAST_BYTES.get(name, b"") not in content:
        raise FrameError(f"{where}: a {name} that was cut short ({len(content)} bytes)")
    if name == "png" and content[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] > b"\x08":
        raise FrameError(f"{where}: a 16-bit png, expected 8 bits; is it a depth topic?")
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # more than 2^30 pixels, for example
        raise FrameError(f"{where}: OpenCV refuses this {name}: {error.err}") from None
    if picture is None:
        raise FrameError(f"{where}: a damaged {name} ({len(content)} bytes)")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def decode_raw(data: bytes | memoryview, layout: RawLayout, where: str) -> RgbImage:
    """Return the picture of raw pixels as (height, width, 3), the caller's own.

    Raises:
        FrameError: an unknown encoding, or sizes that do not fit each other or the data.
    """
    import cv2

    encoding, height, width, step = layout
    if encoding not in _RAW:
        raise FrameError(f"{where}: the encoding {encoding!r}, expected {', '.join(_RAW)}")
    channels, conversion = _RAW[encoding]
    row_bytes = width * channels
    if not row_bytes or not height:
        raise FrameError(f"{where}: an empty picture of {width} x {height} pixels")
    if step < row_bytes or len(data) != height * step:
        raise FrameError(
            f"{where}: {len(data)} bytes with step {step} for {width} x {height} pixels of "
            f"{encoding}, expected height * step bytes and a step of at least {row_bytes}"
        )
    rows = np.frombuffer(data, np.uint8).reshape(height, step)  # (height, step)
    pixels = rows[:, :row_bytes].reshape(height, width, channels)
    if not conversion:
        return pixels.copy()
    return np.asarray(cv2.cvtColor(pixels, getattr(cv2, conversion)), np.uint8)
