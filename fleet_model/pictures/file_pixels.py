"""The pixels of an image file: as RGB for people and models, or as they are in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.pictures import tiff
from fleet_model.pictures.image_header import ImageHeader
from fleet_model.types import RgbImage, Tensor

_COLORS = 4  # channels of a picture at most
# Halves of smaller pictures save less than 0.1 ms and differ more from the whole ones. Quarters
# differ by three times as much as halves, and stay within the tolerance with this margin.
_SMALLEST_HALF, _SMALLEST_QUARTER = 200, 160  # pixels of the shorter side
_QUARTER_MARGIN = 1.4  # times what is asked for


def file_picture(data: bytes | memoryview, header: ImageHeader, at_least: int = 0) -> RgbImage:
    """Return the picture of an image file as (height, width, 3), the caller's own, not turned.

    Args:
        data: a whole file.
        header: what `read_header` says of it.
        at_least: 0 gives every pixel. Else a JPEG may come at half its size, which takes 0.6 of
            the time, or at a quarter, as long as no side is shorter than this.

    Raises:
        FrameError: damaged, or without colors; the message does not name the frame.
    """
    if header.kind != "u" or header.channels > _COLORS:
        raise no_color(header.format)
    if header.bits == 16 or header.format == "tiff":
        # OpenCV would drop the lower bits instead of rounding, and black out damaged strips.
        return _three_channels(eight_bits(file_pixels(data, header)))
    return _color(data, header, at_least)


def file_pixels(data: bytes | memoryview, header: ImageHeader) -> Tensor:
    """Return the samples as they are, color in the order R, G, B, A; raises FrameError."""
    import cv2

    if header.format == "tiff":
        return tiff.read_tiff(data, tiff.tiff_layout(memoryview(data)))
    pixels = _imdecode(data, header, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 2:
        return pixels
    to_rgb = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}[pixels.shape[2]]
    return np.asarray(cv2.cvtColor(pixels, to_rgb))


def eight_bits(pixels: Tensor) -> RgbImage:
    """Return 8-bit pixels; 16 bits are scaled by 255 / 65535 and rounded."""
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return pixels


def no_color(encoding: str) -> FrameError:
    """Return the error for depth and other data of which there is no picture."""
    return FrameError(
        f"{encoding} is depth or data, expected a color or gray picture; `edge-agent "
        "extract` writes it as it is",
        "not a color picture",
    )


@contextmanager
def named_frame(where: str) -> Iterator[None]:
    """Let errors name the frame."""
    try:
        yield
    except FrameError as error:
        raise FrameError(f"{where}: {error}", error.reason) from None


def _color(data: bytes | memoryview, header: ImageHeader, at_least: int) -> RgbImage:
    import cv2

    # Rows and columns are made from that share of the coefficients. OpenCV has no names for it in
    # RGB: the color flag takes the place of the gray one's missing bit.
    flags = {
        1: cv2.IMREAD_COLOR_RGB,
        2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
        4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    }
    by = _divisor(header, at_least)
    header = header._replace(width=-(-header.width // by), height=-(-header.height // by))
    return _imdecode(data, header, flags[by] | cv2.IMREAD_IGNORE_ORIENTATION)


def _divisor(header: ImageHeader, at_least: int) -> int:
    """Return what a side of the picture may be divided by while it is decoded: 1, 2 or 4."""
    if not at_least or header.format != "jpeg":
        return 1
    shorter = min(header.width, header.height)
    if -(-shorter // 4) >= max(_QUARTER_MARGIN * at_least, _SMALLEST_QUARTER):
        return 4
    return 2 if -(-shorter // 2) >= max(at_least, _SMALLEST_HALF) else 1


def _imdecode(data: bytes | memoryview, header: ImageHeader, flags: int) -> Tensor:
    import cv2

    name = header.format
    if header.bits == 12:
        raise FrameError(f"a {name} of 12 bits a sample, expected 8", "unknown format")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise FrameError(f"OpenCV refuses this {name}: {error.err}", f"damaged {name}") from None
    # A size that the decoder sees otherwise than the header: never show a part of a picture.
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise FrameError(f"a damaged {name} ({len(data)} bytes)", f"damaged {name}")
    return pixels


def _three_channels(pixels: RgbImage) -> RgbImage:
    if pixels.ndim == 2 or pixels.shape[2] == 2:  # gray, gray with alpha
        pixels = pixels.reshape(*pixels.shape[:2], -1)[..., :1].repeat(3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])
