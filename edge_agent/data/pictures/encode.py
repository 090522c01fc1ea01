"""Write pixels as image files that lose nothing, or as JPEG."""

from collections.abc import Sequence

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.pictures.tiff import write_tiff
from fleet_model.types import RgbImage, Tensor

_MOST_CHANNELS = 512  # as raw.py has it
_TO_OPENCV = {3: "COLOR_RGB2BGR", 4: "COLOR_RGBA2BGRA"}


def encode_png(pixels: Tensor) -> bytes:
    """Return a PNG of uint8 or uint16 pixels: (height, width), or with 1 to 4 channels.

    Two channels are written as RGBA: the first one as R, G and B, the second as A.
    """
    _expect(pixels, (np.uint8, np.uint16), (1, 2, 3, 4))
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels = pixels[..., [0, 0, 0, 1]]  # (height, width, 4)
    return _encoded(".png", pixels, ())


def encode_tiff(pixels: Tensor) -> bytes:
    """Return a TIFF of numbers: (height, width), or with any number of channels, kept bit for bit.

    Integers of 8 to 32 bits, float32 or float64; NaN and infinity stay.
    """
    kinds = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64)
    _expect(pixels, kinds, range(1, _MOST_CHANNELS + 1))
    return write_tiff(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def encode_jpeg(pixels: RgbImage, quality: int = 95) -> bytes:
    """Return a JPEG of uint8 pixels, (height, width) or (height, width, 3)."""
    import cv2

    _expect(pixels, (np.uint8,), (1, 3))
    return _encoded(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))


def _expect(pixels: Tensor, types: Sequence[type], channels: Sequence[int]) -> None:
    has = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype not in types or pixels.ndim not in (2, 3) or has not in channels:
        names = " or ".join(np.dtype(kind).name for kind in types)
        raise FrameError(
            f"pixels of {pixels.dtype} with shape {pixels.shape}, expected {names} and "
            f"{min(channels)} to {max(channels)} channels",
            "unknown encoding",
        )


def _encoded(suffix: str, pixels: Tensor, settings: Sequence[int]) -> bytes:
    import cv2

    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    problem = ""
    try:
        if channels in _TO_OPENCV:
            pixels = cv2.cvtColor(np.ascontiguousarray(pixels), getattr(cv2, _TO_OPENCV[channels]))
        written, content = cv2.imencode(suffix, pixels, settings)
    except cv2.error as error:
        written, content, problem = False, np.empty(0, np.uint8), f": {error.err}"
    if not written:  # a JPEG has at most 65,500 pixels a side
        raise FrameError(f"OpenCV writes no {suffix} of shape {pixels.shape}{problem}", "bad size")
    return content.tobytes()
