"""Turn the bytes of an image file into a Frame."""

from functools import partial

from edge_agent.data.pictures.decode import decode_compressed, pixels_compressed
from edge_agent.data.pictures.image_header import read_header
from fleet_model.errors import FrameError
from fleet_model.types import Frame


def image_frame(content: bytes, source: str, topic: str, stamp_ns: int, where: str) -> Frame:
    """Return the frame of a whole image file of a format that `read_header` knows.

    Args:
        content: the file, byte for byte.
        source: `Frame.source`.
        topic: `Frame.topic`.
        stamp_ns: `Frame.stamp_ns`.
        where: names the file in errors.

    Raises:
        FrameError: empty, cut short, damaged or of another format; `reason` says which.
    """
    try:
        header = read_header(content)
    except FrameError as error:
        raise FrameError(f"{where}: {error}", error.reason) from None
    return Frame(
        source=source,
        topic=topic,
        stamp_ns=stamp_ns,
        data=content,
        format=header.format,
        decode=partial(decode_compressed, content, header.format, where),
        pixels=partial(pixels_compressed, content, header.format, where),
        width=header.width,
        height=header.height,
    )
