"""Decode the image file of a message or a folder: as RGB, or as it was compressed.

Raw pixels are read in raw.py. EXIF orientation is not applied: pixels are as they were sent.
"""

import numpy as np

from edge_agent.data.frames.compressed_depth import (
    depth_pixels,
    is_compressed_depth,
    read_compressed_depth,
)
from edge_agent.data.frames.image_header import ImageHeader, read_header
from edge_agent.data.frames.raw import eight_bits, no_color
from edge_agent.data.frames.tiff import read_tiff
from fleet_model.errors import FrameError
from fleet_model.types import RgbImage, Tensor

_DEPTH = "16UC1"  # the first word of a message's format where a PNG holds depth
_FLOAT = "tiff"


def decode_compressed(data: bytes | memoryview, declared: str, where: str) -> RgbImage:
    """Return the picture of an image file's bytes as (height, width, 3), the caller's own.

    Args:
        data: a whole JPEG, PNG, WebP or BMP file.
        declared: the message's own word for its format: it gives depth, the bytes give the rest.
        where: names the frame in errors: source, topic and stamp.

    Raises:
        FrameError: empty, cut short, damaged, of another format, or depth.
    """
    import cv2

    if is_compressed_depth(declared):
        raise no_color(declared, where)
    header = _header(data, declared, where)
    if header.format == _FLOAT or (header.bits == 16 and declared.startswith(_DEPTH)):
        raise no_color(header.format if header.format == _FLOAT else declared, where)
    if header.bits == 16:  # OpenCV would drop the lower bits instead of rounding
        return _three_channels(eight_bits(_file_pixels(data, header, where)))
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return _imdecode(data, header, flags, where)


def pixels_compressed(data: bytes | memoryview, declared: str, where: str) -> Tensor:
    """Return the pixels as they were compressed, the caller's own.

    Returns:
        (height, width) or (height, width, channels) of uint8 or uint16, color in the order R, G,
        B, A; of compressedDepth (height, width) of uint16, or of float32 with NaN for "unknown";
        of a TIFF (height, width) of float32.

    Raises:
        FrameError: as `decode_compressed`, but for depth.
    """
    if is_compressed_depth(declared):
        try:
            return depth_pixels(read_compressed_depth(data, declared))
        except FrameError as error:
            raise FrameError(f"{where}: {error}", error.reason) from None
    return _file_pixels(data, _header(data, declared, where), where)


def _file_pixels(data: bytes | memoryview, header: ImageHeader, where: str) -> Tensor:
    import cv2

    if header.format == _FLOAT:
        return read_tiff(data)
    pixels = _imdecode(data, header, cv2.IMREAD_UNCHANGED, where)
    if pixels.ndim == 2:
        return pixels
    to_rgb = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}[pixels.shape[2]]
    return np.asarray(cv2.cvtColor(pixels, to_rgb))


def _header(data: bytes | memoryview, declared: str, where: str) -> ImageHeader:
    try:
        return read_header(data)
    except FrameError as error:
        unknown = f", declared as {declared[:60]!r}" if error.reason == "unknown format" else ""
        raise FrameError(f"{where}: {error}{unknown}", error.reason) from None


def _imdecode(data: bytes | memoryview, header: ImageHeader, flags: int, where: str) -> Tensor:
    import cv2

    name = header.format
    if header.bits == 12:
        raise FrameError(f"{where}: a {name} of 12 bits a sample, expected 8", "unknown format")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise FrameError(
            f"{where}: OpenCV refuses this {name}: {error.err}", f"damaged {name}"
        ) from None
    # A size that the decoder sees otherwise than the header: never show a part of a picture.
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise FrameError(f"{where}: a damaged {name} ({len(data)} bytes)", f"damaged {name}")
    return pixels


def _three_channels(pixels: RgbImage) -> RgbImage:
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis].repeat(3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])
