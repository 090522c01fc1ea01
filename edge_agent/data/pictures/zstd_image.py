"""Raw pictures that were packed as a whole: a CompressedImage with "zstd" in its `format`.

zstd_image_transport writes "zstd": the Image's height, width, byte order, step and encoding, then
its pixels, packed by zlib in spite of the name. librealsense writes "YUYV; zstd; 640x480 step=1280"
and zstd.
"""

import re
import struct
import zlib

from edge_agent.data.pictures.raw import RawLayout, check_layout, raw_size
from edge_agent.data.storage.compression import unpack_prefix
from fleet_model.errors import FrameError
from fleet_model.pictures.image_header import MAX_PIXELS

_HEAD = struct.Struct("<IIBII")  # height, width, is_bigendian, step, length of the encoding
_WORDS = re.compile(r"([^;]+);\s*zstd\s*;\s*([0-9]{1,9})x([0-9]{1,9})\s+step=([0-9]{1,9})\s*")
_LONGEST_NAME = 40
_ANY_WRAPPER = 15 + 32  # zlib's or gzip's: the plug-in writes gzip's


def is_zstd_image(declared: str) -> bool:
    """Return whether a CompressedImage's `format` names a packed raw picture."""
    return declared == "zstd" or bool(_WORDS.fullmatch(declared))


def zstd_layout(data: bytes | memoryview, declared: str) -> tuple[RawLayout, memoryview]:
    """Return how the pixels lie and what is packed; nothing is unpacked.

    Raises:
        FrameError: cut short, or sizes that do not fit each other; the message does not name the
            frame.
    """
    packed = memoryview(data)
    if found := _WORDS.fullmatch(declared):
        width, height, step = map(int, found.groups()[1:])
        layout = RawLayout(found[1].strip(), height, width, step)
    else:
        if len(packed) < _HEAD.size:
            raise FrameError(f"{len(packed)} bytes of zstd", "short data")
        height, width, is_bigendian, step, length = _HEAD.unpack_from(packed)
        name = bytes(packed[_HEAD.size : _HEAD.size + min(length, _LONGEST_NAME)])
        layout = RawLayout(name.decode("ascii", "replace"), height, width, step, bool(is_bigendian))
        packed = packed[_HEAD.size + length :]
    size = raw_size(layout)
    check_layout(layout, size)
    if layout.width * layout.height > MAX_PIXELS or size > MAX_PIXELS * 4:
        raise FrameError(f"{layout.width} x {layout.height} pixels with step {step}", "bad size")
    return layout, packed


def unpack(packed: memoryview, layout: RawLayout, declared: str) -> bytes:
    """Return the pixels as `pixels_raw` takes them.

    Raises:
        FrameError: damaged, or of another size; the message does not name the frame.
    """
    size = raw_size(layout)
    if declared != "zstd":
        content, is_whole = unpack_prefix(packed, "zstd", size)
        if not is_whole:
            raise FrameError(f"zstd that does not end after {size} bytes", "damaged zstd")
        return content
    unpacker = zlib.decompressobj(_ANY_WRAPPER)
    try:
        content = unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise FrameError(f"damaged zstd ({error})", "damaged zstd") from None
    if not unpacker.eof:
        raise FrameError(f"zstd that does not end after {size} bytes", "damaged zstd")
    return content
