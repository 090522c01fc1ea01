"""Messages that a driver, a cable or a full buffer got wrong, and how each must be counted."""

import numpy as np
from corpus_pictures import compressed

DEFECTIVE = (1, 4)  # the messages that drivers got wrong


def _cut(count):
    return lambda content: content[:-count]


def _without_half(content):
    return content[: len(content) // 2]


def _at(position, value):
    """Return a change of one byte."""
    return lambda content: content[:position] + bytes([value]) + content[position + 1 :]


def _with(**changes):
    """Return a change of an Image's fields; a callable is applied to the old value."""
    names = ("height", "width", "encoding", "is_bigendian", "step", "data")

    def change(message):
        fields = dict(zip(names, message.fields, strict=True))
        for name, value in changes.items():
            fields[name] = value(fields[name]) if callable(value) else value
        return message._replace(fields=tuple(fields.values()), payload=fields["data"].tobytes())

    return change


def _content(change, form=""):
    """Return a change of a CompressedImage."""
    return lambda message: compressed(form or message.fields[0], change(message.payload))


def _bad_table(content):
    """Give a JPEG's first Huffman table a length that is impossible."""
    at = content.index(b"\xff\xc4") + 2
    return content[:at] + b"\0\1" + content[at + 2 :]


def _tiled(content):
    """Call the rows of a TIFF's strips the width of its tiles."""
    at = int.from_bytes(content[4:8], "little")
    return content[:at] + content[at:].replace(b"\x16\x01\x04\0", b"\x42\x01\x04\0", 1)


def _longer(data):
    return np.append(data, data[:1])


# what -> (kind of picture, change of a message, reason that must be counted)
DEFECTS = {
    "no data": ("rgb8", _with(data=lambda data: data[:0]), "empty"),
    "one byte too few": ("bgr8", _with(data=lambda data: data[:-1]), "short data"),
    "half of the rows": ("mono16", _with(data=lambda data: data[: len(data) // 2]), "short data"),
    "one byte too many": ("rgb8", _with(data=_longer), "long data"),
    "rows that are missing": ("bayer_rggb8", _with(height=lambda rows: rows + 1), "short data"),
    "rows too many": ("mono8", _with(height=lambda rows: rows - 1), "long data"),
    "a step too small": ("rgb8", _with(step=lambda step: step - 1), "bad step"),
    "a step of zero": ("rgb8", _with(step=0), "bad step"),
    "a step too large": ("yuyv", _with(step=lambda step: step + 4), "short data"),
    "a width too large": ("bgra8", _with(width=lambda width: width + 1), "bad step"),
    "an unknown encoding": ("rgb8", _with(encoding="rgb9"), "unknown encoding"),
    "an encoding of another width": ("mono8", _with(encoding="mono16"), "bad step"),
    "no encoding": ("rgb8", _with(encoding=""), "unknown encoding"),
    "no width": ("rgb8", _with(width=0), "bad size"),
    "no height": ("mono8", _with(height=0), "bad size"),
    "a huge height": ("rgb8", _with(height=2**32 - 1), "short data"),
    "an odd width": ("nv12", _with(width=lambda width: width - 1), "bad size"),
    "an empty jpeg": ("jpeg", _content(lambda _: b""), "empty"),
    "a jpeg without its end": ("jpeg", _content(_cut(1)), "cut jpeg"),
    "half a jpeg": ("jpeg", _content(_without_half), "cut jpeg"),
    "a jpeg that begins wrongly": ("jpeg", _content(_at(1, 0)), "unknown format"),
    "a jpeg with a bad table": ("jpeg", _content(_bad_table), "damaged jpeg"),
    "noise for a jpeg": ("jpeg", _content(lambda _: bytes(range(60, 250))), "unknown format"),
    "a png without its end": ("png_rgb8", _content(_cut(2)), "cut png"),
    "half a png": ("png_gray16", _content(_without_half), "cut png"),
    "a png with a wrong byte": ("png_rgb16", _content(_at(50, 0x55)), "damaged png"),
    "half a webp": ("webp", _content(_without_half), "damaged webp"),
    "depth without its head": ("depth_rvl", _content(lambda content: content[:9]), "short data"),
    "half of a depth png": ("depth_16UC1", _content(_without_half), "cut png"),
    "depth in a jpeg": (
        "jpeg_gray",
        _content(lambda c: c, "16UC1; jpeg compressed mono8"),
        "cut samples",
    ),
    "16 bits in a jpeg": (
        "jpeg_gray",
        _content(lambda c: c, "mono16; jpeg compressed "),
        "cut samples",
    ),
    "a gif": ("jpeg", _content(lambda _: b"GIF89a" + bytes(90)), "unknown format"),
    "half a tiff": ("tiff_rgb8", _content(_without_half), "damaged tiff"),
    "a tiff of tiles": ("tiff_mono8", _content(_tiled), "unknown format"),
    "zstd without its head": ("zstd_rgb8", _content(lambda c: c[:16]), "short data"),
    "zstd of an unknown encoding": (
        "zstd_rgb8",
        _content(lambda c: c.replace(b"rgb8", b"rgb9")),
        "unknown encoding",
    ),
    "an unknown depth": (
        "depth_rvl",
        _content(lambda c: c, "16UC1; compressedDepth zip"),
        "unknown encoding",
    ),
}
