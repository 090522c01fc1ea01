"""Turn the bytes of an image file into a Frame."""

from functools import partial

from edge_agent.data.pictures.decode import decode_compressed, pixels_compressed
from edge_agent.data.pictures.exif import is_on_its_side
from edge_agent.data.pictures.image_header import read_header
from fleet_model.errors import FrameError
from fleet_model.types import Frame

UPRIGHT = "upright "  # in `Frame.format`, before that of a picture that was turned


def image_frame(
    content: bytes, source: str, topic: str, stamp_ns: int, where: str, *, upright: bool = False
) -> Frame:
    """Return the frame of a whole image file of a format that `read_header` knows.

    Args:
        content: the file, byte for byte.
        source: `Frame.source`.
        topic: `Frame.topic`.
        stamp_ns: `Frame.stamp_ns`.
        where: names the file in errors.
        upright: a picture with an EXIF orientation is turned, as photos are shown and labelled.

    Raises:
        FrameError: empty, cut short, damaged or of another format; `reason` says which.
    """
    try:
        header = read_header(content)
    except FrameError as error:
        raise FrameError(f"{where}: {error}", error.reason) from None
    turn = header.orientation if upright else 1
    decode = partial(decode_compressed, content, header.format, where, orientation=turn)
    width, height = header.width, header.height
    return Frame(
        source=source,
        topic=topic,
        stamp_ns=stamp_ns,
        data=content,
        format=header.format if turn == 1 else f"{UPRIGHT}{header.format}",
        decode=decode,
        reduced=decode,
        pixels=partial(pixels_compressed, content, header.format, where, orientation=turn),
        width=height if is_on_its_side(turn) else width,
        height=width if is_on_its_side(turn) else height,
    )
