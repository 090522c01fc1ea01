"""Orientations of EXIF, in every file format that has them, against turns that are written out."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.pictures.exif import read_orientation, turned_upright
from fleet_model.pictures.image_file import image_frame
from fleet_model.pictures.image_header import read_header

pytestmark = pytest.mark.base

# EXIF 2.32: where the stored first row and first column are in the upright picture.
UPRIGHT = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: np.swapaxes(p, 0, 1),
    6: lambda p: np.rot90(p, -1),  # clockwise
    7: lambda p: np.swapaxes(np.rot90(p, 2), 0, 1),
    8: lambda p: np.rot90(p, 1),
}
NOISE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
STORED = cv2.GaussianBlur(NOISE, (0, 0), 4)  # as JPEG keeps it
STORED = cv2.normalize(STORED, None, 0, 255, cv2.NORM_MINMAX)


def exif(orientation, order=">", kind=3):
    """Return the tags of a file, with a tag before it."""
    entries = struct.pack(f"{order}HHII", 0x010F, 2, 2, 0)
    entries += struct.pack(f"{order}HHIHH", 0x0112, kind, 1, orientation, 0)
    head = b"MM\0*" if order == ">" else b"II*\0"
    return head + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4)


def tagged(suffix, orientation, order=">"):
    """Return a lossless or nearly lossless file of STORED."""
    tags, pixels = exif(orientation, order), STORED[..., ::-1]
    if suffix == ".jpg":
        content = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, 100))[1].tobytes()
        segment = b"Exif\0\0" + tags
        return (
            content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
        )
    if suffix == ".png":
        content = cv2.imencode(".png", pixels)[1].tobytes()
        chunk = b"eXIf" + tags
        return (
            content[:33]
            + struct.pack(">I", len(tags)) + chunk + struct.pack(">I", zlib.crc32(chunk))
            + content[33:]
        )  # fmt: skip
    if suffix == ".webp":
        content = cv2.imencode(".webp", pixels, (cv2.IMWRITE_WEBP_QUALITY, 101))[1].tobytes()
        size = struct.pack("<I", 23)[:3] + struct.pack("<I", 15)[:3]  # width and height less one
        body = b"WEBPVP8X" + struct.pack("<IBxxx", 10, 0x08) + size + content[12:]
        body += b"EXIF" + struct.pack("<I", len(tags)) + tags + bytes(len(tags) % 2)
        return b"RIFF" + struct.pack("<I", len(body)) + body
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    tifffile.imwrite(stream, STORED, byteorder=order, extratags=[(274, 3, 1, orientation, True)])
    return stream.getvalue()


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_photo_is_upright_and_a_robots_picture_is_as_stored(suffix, orientation):
    for order in "<>":
        content = tagged(suffix, orientation, order)
        assert read_header(content).orientation == orientation
        frames = [image_frame(content, "s", "a", 1, "s/a", upright=up) for up in (True, False)]
        for frame, turn in zip(frames, (UPRIGHT[orientation], UPRIGHT[1]), strict=True):
            expected = turn(STORED)
            assert (frame.height, frame.width) == expected.shape[:2]
            for picture in (frame.decode(), frame.pixels(), frame.reduced(8)):
                assert picture.shape == expected.shape
                assert np.abs(picture.astype(int) - expected).mean() < (
                    25 if suffix == ".jpg" else 1e-9
                )
        assert frames[1].format == frames[0].format.removeprefix("upright ")
        assert (frames[0].format == frames[1].format) == (orientation == 1)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_as_pillow_turns_them(orientation):
    image_ops = pytest.importorskip("PIL.ImageOps")
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(tagged(".png", orientation)))
    expected = np.asarray(image_ops.exif_transpose(image))
    assert np.array_equal(turned_upright(STORED, orientation), expected)


@pytest.mark.parametrize(
    "tags",
    [
        b"",
        b"Exif\0\0",
        exif(0),
        exif(9),
        exif(6, kind=4),  # no short
        exif(6)[:20],
        b"XX\0*" + exif(6)[4:],
        exif(6).replace(struct.pack(">I", 8), struct.pack(">I", 2**32 - 1)),
    ],
)
def test_tags_that_are_damaged_or_say_nothing_leave_the_picture_as_it_is(tags):
    assert read_orientation(tags) == 1


@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0", b"MM\0*", b"Exif\0\0MM\0*"]))
def test_any_tags_are_an_orientation(content, begin):
    assert read_orientation(begin + content) in UPRIGHT
