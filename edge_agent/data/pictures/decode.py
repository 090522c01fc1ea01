"""Decode the image file of a message or a folder: as RGB, or as it was compressed.

Raw pixels are read in raw.py. Pixels are as they were sent, unless the caller has them turned.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from edge_agent.data.pictures import tiff
from edge_agent.data.pictures.compressed_depth import (
    depth_pixels,
    is_compressed_depth,
    read_compressed_depth,
)
from edge_agent.data.pictures.declared import is_data, own_samples
from edge_agent.data.pictures.exif import turned_upright
from edge_agent.data.pictures.image_header import ImageHeader, read_header
from edge_agent.data.pictures.raw import (
    RawLayout,
    decode_raw,
    eight_bits,
    no_color,
    pixels_raw,
)
from edge_agent.data.pictures.zstd_image import is_zstd_image, unpack, zstd_layout
from fleet_model.errors import FrameError
from fleet_model.types import RgbImage, Tensor

_COLORS = 4  # channels of a picture at most
# Halves of smaller pictures save less than 0.1 ms and differ more from the whole ones. Quarters
# differ by three times as much as halves, and stay within the tolerance with this margin.
_SMALLEST_HALF, _SMALLEST_QUARTER = 200, 160  # pixels of the shorter side
_QUARTER_MARGIN = 1.4  # times what is asked for


def decode_compressed(
    data: bytes | memoryview,
    declared: str,
    where: str,
    at_least: int = 0,
    *,
    orientation: int = 1,
) -> RgbImage:
    """Return the picture of an image file's bytes as (height, width, 3), the caller's own.

    Args:
        data: a whole file of a format that `read_header` knows, or a raw picture that was packed.
        declared: the message's own words for its format: they say what the samples are, the bytes
            how they are packed.
        where: names the frame in errors: source, topic and stamp.
        at_least: 0 gives every pixel. Else a JPEG may come at half its size, which takes 0.6 of
            the time, or at a quarter, as long as no side is shorter than this.
        orientation: by EXIF; 1 leaves the pixels as they are stored.

    Raises:
        FrameError: empty, cut short, damaged, of another format, or depth.
    """
    if is_compressed_depth(declared):
        raise no_color(declared, where)
    with _named(where):
        header, raw = _opened(data, declared)
    if raw:
        return decode_raw(*raw, where)
    if is_data(declared) or header.kind != "u" or header.channels > _COLORS:
        raise no_color(declared if is_data(declared) else header.format, where)
    with _named(where):
        if header.bits == 16 or header.format == "tiff":
            # OpenCV would drop the lower bits instead of rounding, and black out damaged strips.
            picture = _three_channels(eight_bits(_file_pixels(data, header)))
        else:
            picture = _color(data, header, at_least)
    return turned_upright(picture, orientation)


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


def pixels_compressed(
    data: bytes | memoryview, declared: str, where: str, *, orientation: int = 1
) -> Tensor:
    """Return the pixels as they were compressed, the caller's own.

    Returns:
        (height, width) or (height, width, channels) of uint8 or uint16, color in the order R, G,
        B, A; of compressedDepth (height, width) of uint16, or of float32 with NaN for "unknown";
        of a TIFF or a packed raw picture of what it holds, as `pixels_raw`.

    Raises:
        FrameError: as `decode_compressed`, but for depth.
    """
    with _named(where):
        if is_compressed_depth(declared):
            return depth_pixels(read_compressed_depth(data, declared))
        header, raw = _opened(data, declared)
        if not raw:
            return turned_upright(_file_pixels(data, header), orientation)
    return pixels_raw(*raw, where)


_Raw = tuple[bytes | memoryview, RawLayout]


def _opened(data: bytes | memoryview, declared: str) -> tuple[ImageHeader, _Raw | None]:
    """Return what the file says, and the camera's own samples where the picture is made of them."""
    if is_zstd_image(declared):
        layout, packed = zstd_layout(data, declared)
        header = ImageHeader("zstd", layout.width, layout.height, 0, 0)
        return header, (unpack(packed, layout, declared), layout)
    header = read_header(data, declared)
    own = own_samples(declared, header)
    return header, _as_raw(_file_pixels(data, header), own) if own else None


def _as_raw(pixels: Tensor, encoding: str) -> _Raw:
    """Return the samples as the camera sent them: OpenCV took the first channel for blue."""
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    height, width = pixels.shape[:2]
    layout = RawLayout(encoding, height, width, rows.shape[1], sys.byteorder == "big")
    return rows.tobytes(), layout


def _file_pixels(data: bytes | memoryview, header: ImageHeader) -> Tensor:
    import cv2

    if header.format == "tiff":
        return tiff.read_tiff(data, tiff.tiff_layout(memoryview(data)))
    pixels = _imdecode(data, header, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 2:
        return pixels
    to_rgb = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}[pixels.shape[2]]
    return np.asarray(cv2.cvtColor(pixels, to_rgb))


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Let errors name the frame."""
    try:
        yield
    except FrameError as error:
        raise FrameError(f"{where}: {error}", error.reason) from None


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
