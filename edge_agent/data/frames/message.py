"""Turn a serialized camera message into a Frame: the one place for bags and live topics."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from edge_agent.data.frames.cdr import CompressedImage, RawImage, parse_compressed, parse_image
from edge_agent.data.pictures.compressed_depth import is_compressed_depth, read_compressed_depth
from edge_agent.data.pictures.declared import own_samples
from edge_agent.data.pictures.decode import decode_compressed, pixels_compressed
from edge_agent.data.pictures.raw import check_layout, decode_raw, pixels_raw
from edge_agent.data.pictures.zstd_image import is_zstd_image, zstd_layout
from edge_agent.data.storage import Topic
from fleet_model.errors import FrameError
from fleet_model.pictures.image_header import read_header
from fleet_model.types import Frame, RgbImage, Tensor

CAMERA_TYPES = ("sensor_msgs/Image", "sensor_msgs/CompressedImage")  # also written with /msg/


def frame_of(stored: bytes | memoryview, topic: Topic, source: str, bag_ns: int) -> Frame:
    """Check everything that needs no decoding and return the frame; its data is a view of `stored`.

    Of compressedDepth with 16 bits, `data` is the PNG file inside and `format` is "png"; of other
    compressedDepth it is the message's own bytes and `format` is "compressedDepth". Where the file
    in a message is no picture by itself, `format` says so: "bayer_rggb8 in jpeg".

    Raises:
        FrameError: the message or its picture is damaged; `reason` says how.
    """
    where = f"{source}{topic.name} at {bag_ns}"
    readers = _READERS.get(topic.type.replace("/msg/", "/"))
    if readers is None:
        raise FrameError(f"{where}: a {topic.type}, expected {' or '.join(CAMERA_TYPES)}")
    parse, read = readers
    try:
        message = parse(stored, topic.encoding)
        stamp_ns = message.stamp_ns if message.stamp_ns > 0 else bag_ns
        where = f"{source}{topic.name} at {stamp_ns}"
        content = read(message, where)
    except FrameError as error:
        raise FrameError(f"{where}: {error}", error.reason) from None
    data, name, width, height, decode, pixels, reduced = content
    return Frame(
        source=source,
        topic=topic.name,
        stamp_ns=stamp_ns,
        data=data,
        format=name,
        decode=decode,
        reduced=reduced,
        pixels=pixels,
        width=width,
        height=height,
    )


class _Content(NamedTuple):
    """The fields of a Frame that its payload decides."""

    data: memoryview
    format: str
    width: int
    height: int
    decode: Callable[[], RgbImage]
    pixels: Callable[[], Tensor]
    reduced: Callable[[int], RgbImage] | None = None


def _read_raw(message: RawImage, where: str) -> _Content:
    layout, payload = message.layout, message.payload
    check_layout(layout, len(payload))
    decode = partial(decode_raw, payload, layout, where)
    pixels = partial(pixels_raw, payload, layout, where)
    return _Content(payload, layout.encoding, layout.width, layout.height, decode, pixels)


def _read_compressed(message: CompressedImage, where: str) -> _Content:
    declared, payload = message.format, message.payload
    if is_compressed_depth(declared):
        depth = read_compressed_depth(payload, declared)
        name, width, height = "compressedDepth", depth.width, depth.height
        if (depth.encoding, depth.codec) == ("16UC1", "png"):
            name, payload, declared = "png", depth.payload, "16UC1; png compressed"
    elif is_zstd_image(declared):
        layout, _ = zstd_layout(payload, declared)
        name, width, height = "zstd", layout.width, layout.height
    else:
        header = read_header(payload, declared)
        name, width, height = header[:3]
        if own := own_samples(declared, header):  # its file alone would show something else
            name = f"{own} in {name}"
    decode = partial(decode_compressed, payload, declared, where)
    pixels = partial(pixels_compressed, payload, declared, where)
    return _Content(payload, name, width, height, decode, pixels, decode)


_READERS: dict[str, tuple[Callable[..., Any], Callable[..., _Content]]] = {
    "sensor_msgs/Image": (parse_image, _read_raw),
    "sensor_msgs/CompressedImage": (parse_compressed, _read_compressed),
}
