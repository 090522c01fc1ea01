"""Decode the image file of a message or a folder: as RGB, or as it was compressed.

Raw pixels are read in raw.py. Pixels are as they were sent, unless the caller has them turned.
"""

import sys

import numpy as np

from edge_agent.data.pictures.compressed_depth import (
    depth_pixels,
    is_compressed_depth,
    read_compressed_depth,
)
from edge_agent.data.pictures.declared import is_data, own_samples
from edge_agent.data.pictures.raw import (
    RawLayout,
    decode_raw,
    pixels_raw,
)
from edge_agent.data.pictures.zstd_image import is_zstd_image, unpack, zstd_layout
from fleet_model.pictures.exif import turned_upright
from fleet_model.pictures.file_pixels import file_picture, file_pixels, named_frame, no_color
from fleet_model.pictures.image_header import ImageHeader, read_header
from fleet_model.types import RgbImage, Tensor


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
    with named_frame(where):
        if is_compressed_depth(declared):
            raise no_color(declared)
        header, raw = _opened(data, declared)
        if not raw and is_data(declared):
            raise no_color(declared)
        if not raw:
            return turned_upright(file_picture(data, header, at_least), orientation)
    return decode_raw(*raw, where)


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
    with named_frame(where):
        if is_compressed_depth(declared):
            return depth_pixels(read_compressed_depth(data, declared))
        header, raw = _opened(data, declared)
        if not raw:
            return turned_upright(file_pixels(data, header), orientation)
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
    return header, _as_raw(file_pixels(data, header), own) if own else None


def _as_raw(pixels: Tensor, encoding: str) -> _Raw:
    """Return the samples as the camera sent them: OpenCV took the first channel for blue."""
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    height, width = pixels.shape[:2]
    layout = RawLayout(encoding, height, width, rows.shape[1], sys.byteorder == "big")
    return rows.tobytes(), layout
