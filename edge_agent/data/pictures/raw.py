"""Read the pixels of a raw `sensor_msgs/Image`: every encoding of ROS, as sensed or as RGB.

A picture is right or it is an error: rows are cut by the message's own `step`, and a message whose
sizes contradict each other is refused rather than shown sheared.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.pictures.file_pixels import eight_bits, named_frame, no_color
from fleet_model.types import RgbImage, Tensor


class RawLayout(NamedTuple):
    """How the bytes of a raw `sensor_msgs/Image` lie: its fields of the same names."""

    encoding: str
    height: int  # rows
    width: int  # pixels
    step: int  # bytes from one row to the next, padding included
    is_bigendian: bool = False  # of samples wider than a byte


class _Colors(NamedTuple):
    """How samples become pixels, as names of OpenCV's conversions; "" leaves them as they are."""

    pixels: str  # color in the order R, G, B, A
    rgb: str | None  # three channels; None: there is no color in it


class Encoding(NamedTuple):
    """What one pixel is made of."""

    sample: str  # NumPy's name without byte order
    channels: int  # samples a pixel
    colors: _Colors
    even_width: bool = False  # two pixels share their color
    chroma_rows: float = 0.0  # rows of a second plane for each row of the first


_GRAY = _Colors("", "COLOR_GRAY2RGB")
_RGB = _Colors("", "")
_RGBA = _Colors("", "COLOR_RGBA2RGB")
_BGR = _Colors("COLOR_BGR2RGB", "COLOR_BGR2RGB")
_BGRA = _Colors("COLOR_BGRA2RGBA", "COLOR_BGRA2RGB")
_DATA = _Colors("", None)
_UYVY = _Colors("COLOR_YUV2RGB_UYVY", "COLOR_YUV2RGB_UYVY")
_YUYV = _Colors("COLOR_YUV2RGB_YUYV", "COLOR_YUV2RGB_YUYV")
_NV12 = _Colors("COLOR_YUV2RGB_NV12", "COLOR_YUV2RGB_NV12")
_NV21 = _Colors("COLOR_YUV2RGB_NV21", "COLOR_YUV2RGB_NV21")


def _bayer(pattern: str) -> _Colors:
    """Name the upper left 2 x 2 pixels, as ROS does; OpenCV's older names are other pixels'."""
    conversion = f"COLOR_Bayer{pattern.upper()}2RGB"
    return _Colors(conversion, conversion)


_SAMPLES = {"8U": "u1", "8S": "i1", "16U": "u2", "16S": "i2", "32S": "i4", "32F": "f4", "64F": "f8"}
# sensor_msgs/image_encodings.h. Generic ones (8UC3) come from OpenCV, whose color order is B, G, R;
# those that no camera sends as a picture are data.
ENCODINGS = {
    **{f"{k}C{n}": Encoding(s, n, _DATA) for k, s in _SAMPLES.items() for n in (1, 2, 3, 4)},
    "rgb8": Encoding("u1", 3, _RGB),
    "bgr8": Encoding("u1", 3, _BGR),
    "rgba8": Encoding("u1", 4, _RGBA),
    "bgra8": Encoding("u1", 4, _BGRA),
    "mono8": Encoding("u1", 1, _GRAY),
    "rgb16": Encoding("u2", 3, _RGB),
    "bgr16": Encoding("u2", 3, _BGR),
    "rgba16": Encoding("u2", 4, _RGBA),
    "bgra16": Encoding("u2", 4, _BGRA),
    "mono16": Encoding("u2", 1, _GRAY),
    "8UC1": Encoding("u1", 1, _GRAY),
    "8UC3": Encoding("u1", 3, _BGR),
    "8UC4": Encoding("u1", 4, _BGRA),
    "16UC3": Encoding("u2", 3, _BGR),
    "16UC4": Encoding("u2", 4, _BGRA),
    **{
        f"bayer_{pattern}{bits}": Encoding(f"u{bits // 8}", 1, _bayer(pattern))
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
        for bits in (8, 16)
    },
    "yuv422": Encoding("u1", 2, _UYVY, even_width=True),
    "uyvy": Encoding("u1", 2, _UYVY, even_width=True),
    "yuv422_yuy2": Encoding("u1", 2, _YUYV, even_width=True),
    "yuyv": Encoding("u1", 2, _YUYV, even_width=True),
    "nv12": Encoding("u1", 1, _NV12, even_width=True, chroma_rows=0.5),
    "nv21": Encoding("u1", 1, _NV21, even_width=True, chroma_rows=0.5),
    "nv24": Encoding("u1", 1, _NV12, chroma_rows=2.0),
}
_GENERIC = re.compile(rf"({'|'.join(_SAMPLES)})C([0-9]{{0,3}})")
_MOST_CHANNELS = 512  # OpenCV's own limit
_OTHER_NAMES = {
    "y8": "mono8",
    "y16": "mono16",
    "z16": "16UC1",
    "yuy2": "yuyv",
}  # of RealSense, V4L2
_SPELLINGS = {name.lower(): name for name in ENCODINGS} | _OTHER_NAMES
_LAYOUTS = 64  # that are remembered to fit: all pictures of a camera have the same
_SMALLEST_BAYER = 3  # pixels a side; OpenCV returns black below


def find_encoding(name: str) -> Encoding | None:
    """Return what `name` means, in capitals or not; None is unknown."""
    found = ENCODINGS.get(_SPELLINGS.get(name.lower(), ""))
    generic = None if found else _GENERIC.fullmatch(name.upper())
    if generic is None:
        return found
    channels = int(generic[2] or 1)  # image_encodings.h takes "8UC" for one channel
    sample = _SAMPLES[generic[1]]
    return Encoding(sample, channels, _DATA) if 0 < channels <= _MOST_CHANNELS else None


@lru_cache(maxsize=_LAYOUTS)
def check_layout(layout: RawLayout, size: int) -> None:
    """Refuse sizes that do not fit each other or `size` bytes of data.

    Raises:
        FrameError: `reason` says which; the message does not name the frame.
    """
    name, height, width, step = layout[:4]
    if not size:
        raise FrameError(f"no data for {width} x {height} pixels", "empty")
    encoding = _encoding(name)
    _check_size(layout, encoding)
    row_bytes = _row_bytes(layout, encoding)
    if step < row_bytes:
        raise FrameError(
            f"a step of {step} bytes for {width} pixels of {name}, expected a step of at least "
            f"{row_bytes}",
            "bad step",
        )
    expected = _rows(layout, encoding) * _stride(layout, encoding, size)
    if size != expected:
        raise FrameError(
            f"{size} bytes with step {step} for {width} x {height} pixels of {name}, expected "
            f"{expected}",
            "short data" if size < expected else "long data",
        )


def raw_size(layout: RawLayout) -> int:
    """Return how many bytes all rows take; raises FrameError for an unknown encoding."""
    return _rows(layout, _encoding(layout.encoding)) * layout.step


def pixels_raw(data: bytes | memoryview, layout: RawLayout, where: str) -> Tensor:
    """Return the pixels as sensed; a read-only view of `data` where nothing is converted.

    Returns:
        (height, width) or (height, width, channels) of uint8, int8, uint16, int16, int32, float32
        or float64; color in the order R, G, B, A, data in their own. Bayer and YUV pictures are the
        RGB made of them, at their own depth.

    Raises:
        FrameError: an unknown encoding, or sizes that do not fit each other or the data.
    """
    samples = _samples(data, layout, where)
    return _converted(samples, _encoding(layout.encoding).colors.pixels, layout, where)


def decode_raw(data: bytes | memoryview, layout: RawLayout, where: str) -> RgbImage:
    """Return the picture as (height, width, 3), the caller's own.

    16 bits become 8 by rounding v * 255 / 65535.

    Raises:
        FrameError: as `pixels_raw`; or the encoding is depth or data and has no color.
    """
    samples = _samples(data, layout, where)
    conversion = _encoding(layout.encoding).colors.rgb
    if conversion is None:
        with named_frame(where):
            raise no_color(layout.encoding)
    picture = eight_bits(_converted(samples, conversion, layout, where))
    return picture if conversion else picture.copy()


@lru_cache(maxsize=_LAYOUTS)
def _encoding(name: str) -> Encoding:
    encoding = find_encoding(name)
    if encoding is None:
        raise FrameError(
            f"the encoding {name[:40]!r}, expected one of sensor_msgs/image_encodings, such as "
            "rgb8, mono16, bayer_rggb8, yuv422 or 32FC1",
            "unknown encoding",
        )
    return encoding


def _check_size(layout: RawLayout, encoding: Encoding) -> None:
    name, height, width = layout[:3]
    problem = ""
    if not width or not height:
        problem = "expected at least one"
    elif (encoding.even_width and width % 2) or (encoding.chroma_rows == 0.5 and height % 2):
        problem = "expected an even number, as pixels share their color"
    elif encoding.colors.pixels.startswith("COLOR_Bayer") and min(width, height) < _SMALLEST_BAYER:
        problem = f"expected at least {_SMALLEST_BAYER} x {_SMALLEST_BAYER}"
    if problem:
        raise FrameError(f"{width} x {height} pixels of {name}, {problem}", "bad size")


def _row_bytes(layout: RawLayout, encoding: Encoding) -> int:
    return layout.width * encoding.channels * np.dtype(encoding.sample).itemsize


def _rows(layout: RawLayout, encoding: Encoding) -> int:
    """Return the rows of all planes."""
    return layout.height + int(layout.height * encoding.chroma_rows)


def _stride(layout: RawLayout, encoding: Encoding, size: int) -> int:
    """Return the bytes between rows; some drivers count the second plane's into `step`."""
    whole = layout.width * (1 + encoding.chroma_rows)
    if encoding.chroma_rows and layout.step == whole and size == layout.height * layout.step:
        return layout.width
    return layout.step


def _samples(data: bytes | memoryview, layout: RawLayout, where: str) -> Tensor:
    """Return (rows of all planes, width, channels) without padding, in this machine's order."""
    try:
        check_layout(layout, len(data))
    except FrameError as error:
        raise FrameError(f"{where}: {error}", error.reason) from None
    encoding = _encoding(layout.encoding)
    rows, stride = _rows(layout, encoding), _stride(layout, encoding, len(data))
    padded = np.frombuffer(data, np.uint8).reshape(rows, stride)
    if encoding.chroma_rows == 2:
        padded = _unpadded_nv24(padded, layout)
    dense = np.ascontiguousarray(padded[:, : _row_bytes(layout, encoding)])  # (rows, row bytes)
    stored = np.dtype(encoding.sample).newbyteorder(">" if layout.is_bigendian else "<")
    samples = dense.view(stored).astype(encoding.sample, copy=False)
    return samples.reshape(rows, layout.width, encoding.channels)


def _converted(samples: Tensor, conversion: str, layout: RawLayout, where: str) -> Tensor:
    import cv2

    if not conversion:
        samples = samples if samples.shape[2] > 1 else samples[..., 0]
        samples.flags.writeable = False  # it may be the message itself
        return samples
    is_nv24 = samples.shape[0] == 3 * layout.height
    if is_nv24:
        samples = _as_nv12(samples, layout)
    try:
        converted = np.asarray(cv2.cvtColor(samples, getattr(cv2, conversion)))
    except cv2.error as error:
        raise FrameError(f"{where}: OpenCV refuses {layout}: {error.err}", "bad size") from None
    return converted[::2, ::2].copy() if is_nv24 else converted


def _unpadded_nv24(padded: Tensor, layout: RawLayout) -> Tensor:
    """Return (3 * height, width): a row of the second plane is two steps of the first one long."""
    height, width = layout.height, layout.width
    chroma = padded[height:].reshape(height, -1)[:, : 2 * width]
    return np.concatenate([padded[:height, :width], chroma.reshape(2 * height, width)])


def _as_nv12(samples: Tensor, layout: RawLayout) -> Tensor:
    """Return an nv12 picture of twice the size: OpenCV has no conversion for full color."""
    height, width = layout.height, layout.width
    luma = samples[:height, :, 0].repeat(2, axis=0).repeat(2, axis=1)
    chroma = samples[height:].reshape(height, 2 * width)
    return np.concatenate([luma, chroma])[..., np.newaxis]  # (3 * height, 2 * width, 1)
