"""What one extracted frame's image file is called, and which bytes it has."""

import re
from array import array
from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from edge_agent.data.frames.source import IMAGE_SUFFIXES
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Frame, Tensor

# What `CompressedImage` payloads and files are called -> the suffix of a file with the same bytes.
_FILES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "bmp": ".bmp", "tiff": ".tiff"}
_UNCHANGED = {"keep": frozenset(_FILES), "jpeg": frozenset({"jpeg"}), "png": frozenset({"png"})}
IMAGE_FORMATS = tuple(_UNCHANGED)
_LONGEST_SLUG = 80  # characters: two of them, a stamp and a suffix fit into any file system
_PNG_CHANNELS = 4
_MM_PER_M = 1000


class ImageFile(NamedTuple):
    """A whole image file."""

    data: bytes | memoryview
    suffix: str  # ".jpg"


class FrameNames:
    """Names that no two frames share, the same ones for the same frames in the same order."""

    def __init__(self) -> None:
        self._first_topic: dict[str, str] = {}  # of each source
        self._stems: dict[tuple[str, str], str] = {}  # of each source and topic
        self._stamps: dict[str, array[int]] = {}  # of each stem, sorted: 8 bytes a frame

    def name(self, source: str, topic: str, stamp_ns: int) -> str:
        """Return source-stamp or source-topic-stamp, with _1, _2 ... behind it for equal ones.

        The topic is in the names of a source's frames from its second topic on; an image file's
        own name is not, the manifest has it. The stamp ends at the last "-", so that a name is
        used twice only for equal stamps, and these are numbered.
        """
        stem = self._stem(source, topic)
        earlier = self._note(stem, stamp_ns)
        stamp = str(stamp_ns) if stamp_ns >= 0 else f"m{-stamp_ns}"
        return f"{stem}-{stamp}_{earlier}" if earlier else f"{stem}-{stamp}"

    def _stem(self, source: str, topic: str) -> str:
        if topic.lower().endswith(IMAGE_SUFFIXES):
            topic = ""
        stem = self._stems.get((source, topic))
        if stem is None:
            first = self._first_topic.setdefault(source, topic)
            stem = _slug(source) if topic in ("", first) else f"{_slug(source)}-{_slug(topic)}"
            self._stems[source, topic] = stem
        return stem

    def _note(self, stem: str, stamp_ns: int) -> int:
        """Remember a stamp; return how often it was there before."""
        stamps = self._stamps.setdefault(stem, array("q"))
        if not stamps or stamp_ns > stamps[-1]:
            stamps.append(stamp_ns)
            return 0
        position = bisect_right(stamps, stamp_ns)
        stamps.insert(position, stamp_ns)
        return position - bisect_left(stamps, stamp_ns, 0, position)


def require_image_format(name: str) -> None:
    """Raise SettingsError unless `image_file` knows this format."""
    if name not in IMAGE_FORMATS:
        raise SettingsError(f"image format {name!r}: expected {', '.join(IMAGE_FORMATS)}")


def passes_through(frame: Frame, image_format: str) -> bool:
    """Return whether the file has the frame's own bytes, so that nothing is decoded for it."""
    return frame.format in _UNCHANGED[image_format]


def image_file(frame: Frame, image_format: str) -> ImageFile:
    """Return the frame as a file; the same bytes at every call.

    Args:
        frame: any frame.
        image_format: "keep" changes no pixel and no byte of an image file: raw pictures become
            PNG, and TIFF what PNG cannot hold. "png" changes no pixel, but depth in meters becomes
            16-bit millimeters. "jpeg" has quality 95.

    Raises:
        FrameError: it cannot be decoded, or is no color picture and "jpeg" is wanted.
    """
    if passes_through(frame, image_format):
        return ImageFile(frame.data, _FILES[frame.format])
    from edge_agent.data.pictures.encode import encode_jpeg, encode_png, encode_tiff

    if image_format == "jpeg":
        return ImageFile(encode_jpeg(frame.decode()), ".jpg")
    pixels = frame.pixels() if frame.pixels else frame.decode()
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype in (np.uint8, np.uint16) and channels <= _PNG_CHANNELS:
        return ImageFile(encode_png(pixels), ".png")
    if image_format == "keep":
        return ImageFile(encode_tiff(pixels), ".tiff")
    return ImageFile(encode_png(_millimeters(pixels)), ".png")


def _millimeters(meters: Tensor) -> Tensor:
    """Return depth as ROS has it in 16UC1: 0 is unknown, also what is too far (REP 118)."""
    if meters.ndim != 2 or meters.dtype.kind != "f":
        raise FrameError(
            f"numbers of the type {meters.dtype} and the shape {meters.shape} have no PNG; extract "
            "them with --image-format keep",
            "not depth",
        )
    millimeters = np.round(meters.astype(np.float64) * _MM_PER_M)
    known = np.isfinite(millimeters) & (millimeters > 0) & (millimeters < 2**16)
    return np.where(known, millimeters, 0).astype(np.uint16)


def _slug(name: str) -> str:
    """Return `name` with nothing in it that a file system or a shell takes amiss."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_.-")
    return words[:_LONGEST_SLUG] or "frame"
