"""Read depth pictures as image_transport's compressedDepth plug-in sends them.

A CompressedImage whose format is "16UC1; compressedDepth png" or alike holds 12 bytes of
parameters (an int32, two float32) and then a 16-bit PNG, or RVL (Wilson, "Fast lossless depth image
compression", ISS 2017) behind its int32 width and height. Metric depth ("32FC1") was quantized
as inverse depth: depth = A / (value - B), with 0 for "unknown".
"""

import struct
from typing import NamedTuple

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.pictures.image_header import FIRST_BYTES, read_header
from fleet_model.types import Tensor

_PARAMETERS = struct.Struct("<iff")
_RVL_SIZE = struct.Struct("<II")
_ENCODINGS = ("16UC1", "mono16", "32FC1")
_MAX_RVL_PIXELS = 2**23  # a few bytes can claim any number of zeros
_RVL_BYTES_A_PIXEL = 4  # at most: 17 bits of difference are six nibbles, two more tell the runs


class CompressedDepth(NamedTuple):
    """A depth picture that was not yet decoded."""

    encoding: str  # "16UC1" or "32FC1"
    codec: str  # "png" or "rvl"
    width: int
    height: int
    quantization: tuple[float, float]  # A and B
    payload: memoryview  # the whole PNG file, or the RVL stream behind its size


def is_compressed_depth(declared: str) -> bool:
    """Return whether a CompressedImage's `format` names depth; image_transport's has two words."""
    return "compressedDepth" in declared


def read_compressed_depth(data: bytes | memoryview, declared: str) -> CompressedDepth:
    """Check what can be seen without decoding.

    Raises:
        FrameError: empty, cut short, damaged, or an encoding without depth; the message does not
            name the frame.
    """
    view = memoryview(data)
    encoding, _, transport = declared.partition(";")
    encoding = encoding.strip()
    codec = transport.split()[1] if len(transport.split()) > 1 else "png"
    if encoding not in _ENCODINGS or codec not in ("png", "rvl"):
        raise FrameError(
            f"the format {declared[:60]!r}, expected one of {', '.join(_ENCODINGS)} with "
            "compressedDepth, png or rvl",
            "unknown encoding",
        )
    encoding = "32FC1" if encoding == "32FC1" else "16UC1"
    if not view:
        raise FrameError("no data", "empty")
    quantization = (0.0, 0.0)
    if encoding == "32FC1" or bytes(view[:8]) != FIRST_BYTES["png"]:  # some senders leave them out
        if len(view) < _PARAMETERS.size:
            raise FrameError(f"{len(view)} bytes of compressedDepth", "short data")
        quantization = _PARAMETERS.unpack_from(view)[1:]
        view = view[_PARAMETERS.size :]
    if codec == "rvl":
        return _read_rvl(view, encoding, quantization)
    header = read_header(view)
    if header.format != "png" or header.bits != 16 or header.channels != 1:
        raise FrameError(
            f"a {header.format} of {header.bits} bits and {header.channels} channels as "
            "compressedDepth, expected a gray 16-bit png",
            "unknown format",
        )
    return CompressedDepth(encoding, codec, header.width, header.height, quantization, view)


def depth_pixels(depth: CompressedDepth) -> Tensor:
    """Return (height, width): uint16 as sent, or float32 with NaN where nothing was measured.

    Raises:
        FrameError: damaged; the message does not name the frame.
    """
    values = _png_values(depth) if depth.codec == "png" else _rvl_values(depth)
    if depth.encoding == "16UC1":
        return values
    a, b = np.float32(depth.quantization[0]), np.float32(depth.quantization[1])
    with np.errstate(all="ignore"):
        metric = a / (values.astype(np.float32) - b)
    return np.where(values == 0, np.float32("nan"), metric).astype(np.float32)


def _read_rvl(
    view: memoryview, encoding: str, quantization: tuple[float, float]
) -> CompressedDepth:
    if len(view) < _RVL_SIZE.size:
        raise FrameError(f"{len(view)} bytes of rvl", "short data")
    width, height = _RVL_SIZE.unpack_from(view)
    if not 0 < width * height <= _MAX_RVL_PIXELS:
        raise FrameError(
            f"rvl of {width} x {height} pixels, expected 1 to {_MAX_RVL_PIXELS}", "bad size"
        )
    payload = view[_RVL_SIZE.size :]
    if len(payload) > width * height * _RVL_BYTES_A_PIXEL + 8:
        raise FrameError(f"{len(payload)} bytes of rvl for {width} x {height} pixels", "long data")
    return CompressedDepth(encoding, "rvl", width, height, quantization, payload)


def _png_values(depth: CompressedDepth) -> Tensor:
    import cv2

    try:
        values = cv2.imdecode(np.frombuffer(depth.payload, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise FrameError(f"OpenCV refuses this png: {error.err}", "damaged png") from None
    if values is None or values.shape != (depth.height, depth.width) or values.dtype != np.uint16:
        raise FrameError(f"a damaged png ({len(depth.payload)} bytes)", "damaged png")
    return values


def _rvl_values(depth: CompressedDepth) -> Tensor:
    """Decode runs: so many zeros, so many others, the others as differences to the one before."""
    numbers = _rvl_numbers(depth.payload)
    listed = numbers.tolist()
    runs: list[int] = []  # zeros, others, zeros, others, ...
    is_length = np.zeros(len(listed), bool)
    size = left = depth.width * depth.height
    at = 0
    while left > 0:
        if at + 1 >= len(listed):
            raise FrameError(f"rvl that ends {left} of {size} pixels early", "short data")
        zeros, others = listed[at : at + 2]
        is_length[at : at + 2] = True
        runs += (zeros, others)
        left -= zeros + others
        at += 2 + others
    if left or numbers[at:].any():  # only the last word is filled up with zeros
        raise FrameError(f"rvl with more than {size} pixels", "long data")
    if at > len(listed):
        raise FrameError(f"rvl that ends {at - len(listed)} of {size} pixels early", "short data")
    coded = numbers[:at][~is_length[:at]].astype(np.int64)
    differences = (coded >> 1) ^ -(coded & 1)
    values = np.zeros(size, np.uint16)
    measured = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    values[measured] = np.cumsum(differences).astype(np.uint16)  # the encoder's int16 wraps as well
    return values.reshape(depth.height, depth.width)


def _rvl_numbers(payload: memoryview) -> Tensor:
    """Return the numbers of a stream of nibbles, uint32.

    The words are little-endian, their highest nibble is the first. A nibble holds "more follows"
    and three bits, the lowest ones of its number first.
    """
    words = np.frombuffer(payload[: len(payload) // 4 * 4], "<u4")
    shifts = np.arange(28, -4, -4, dtype=np.uint32)
    nibbles = (words[:, np.newaxis] >> shifts & 0xF).astype(np.uint8).reshape(-1)
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends):
        return np.zeros(0, np.uint32)
    nibbles = nibbles[: ends[-1] + 1]
    starts = np.concatenate([[0], ends[:-1] + 1])
    position = np.arange(len(nibbles), dtype=np.uint32)
    position -= np.repeat(starts.astype(np.uint32), ends - starts + 1)
    bits = (nibbles & 7).astype(np.uint32) << np.minimum(3 * position, 31)
    bits[position > 10] = 0  # beyond 32 bits, as in the encoder's int
    return np.add.reduceat(bits, starts, dtype=np.uint32)
