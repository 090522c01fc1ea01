"""What somebody sends: bounded while it comes, judged by its head before it is decoded."""

from fastapi import HTTPException, Request

from fleet_model.errors import FrameError
from fleet_model.pictures.image_header import read_header

MOST_PICTURE_BYTES = 20 << 20  # a photo of a phone has 3 to 12 MB
MOST_PIXELS = 1 << 25  # 100 MB once they are decoded, whatever a small file claims
MOST_TEXT_BYTES = 64 << 10
_CLOSE = {"connection": "close"}  # what still comes is not read


async def received(request: Request, most: int) -> bytes:
    """Return a body of at most `most` bytes.

    Raises:
        HTTPException: it is longer, by its own words or in fact, or does not say how long it is.
    """
    length = request.headers.get("content-length", "")
    if not length.isdigit() or len(length) > 15:
        raise HTTPException(411, "send a file with its length", _CLOSE)
    if int(length) > most:
        raise HTTPException(413, too_long(int(length), most), _CLOSE)
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > most:
            raise HTTPException(413, too_long(len(content), most), _CLOSE)
    return bytes(content)


def too_long(size: int, most: int) -> str:
    """Return why so many bytes are refused."""
    return f"this has {_megabytes(size)}, at most {_megabytes(most)} are taken; send a smaller one"


def require_picture(content: bytes) -> None:
    """Look at the head of an image file; nothing is decoded.

    Raises:
        FrameError: no image file, cut short, damaged, or of more than MOST_PIXELS.
    """
    header = read_header(content)
    if header.width * header.height > MOST_PIXELS:
        raise FrameError(
            f"a {header.format} of {header.width} x {header.height} pixels, at most "
            f"{MOST_PIXELS / 1e6:.0f} million are decoded here; scale it down",
            "bad size",
        )


def _megabytes(size: int) -> str:
    return f"{size >> 10} kB" if size < 1 << 20 else f"{size / (1 << 20):.0f} MB"
