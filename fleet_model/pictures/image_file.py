"""Turn the bytes of an image file into a Frame."""

from typing import NamedTuple

from fleet_model.pictures.exif import is_on_its_side, turned_upright
from fleet_model.pictures.file_pixels import file_picture, file_pixels, named_frame
from fleet_model.pictures.image_header import ImageHeader, read_header
from fleet_model.types import Frame, RgbImage, Tensor

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
    with named_frame(where):
        header = read_header(content)
    turn = header.orientation if upright else 1
    file = _File(content, header, where, turn)
    width, height = header.width, header.height
    return Frame(
        source=source,
        topic=topic,
        stamp_ns=stamp_ns,
        data=content,
        format=header.format if turn == 1 else f"{UPRIGHT}{header.format}",
        decode=file.picture,
        reduced=file.picture,
        pixels=file.pixels,
        width=height if is_on_its_side(turn) else width,
        height=width if is_on_its_side(turn) else height,
    )


class _File(NamedTuple):
    """What a frame decodes once it is asked to."""

    content: bytes
    header: ImageHeader
    where: str
    turn: int

    def picture(self, at_least: int = 0) -> RgbImage:
        with named_frame(self.where):
            picture = file_picture(self.content, self.header, at_least)
        return turned_upright(picture, self.turn)

    def pixels(self) -> Tensor:
        with named_frame(self.where):
            return turned_upright(file_pixels(self.content, self.header), self.turn)
