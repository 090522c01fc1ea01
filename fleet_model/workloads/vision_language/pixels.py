"""A picture's file as the numbers that a vision tower takes, as CLIP's image processor makes them.

The shortest side is scaled by bicubic interpolation with antialiasing, the middle is cut out, and
the colors are normalized (Radford et al. 2021, arXiv:2103.00020). Resampling is that of Pillow and
of torch's `interpolate(antialias=True)`, which processors use: OpenCV's has no antialiasing.
"""

from pathlib import Path

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.pictures.exif import turned_upright
from fleet_model.pictures.file_pixels import file_picture
from fleet_model.pictures.image_header import read_header
from fleet_model.types import RgbImage, Tensor
from fleet_model.workloads.vision_language.layout import Preparation

MOST_BYTES = 64 << 20  # of a picture's file
MOST_PIXELS = 100_000_000  # of one that is scaled
_CUBIC = -0.5  # Keys 1981, as Pillow has it; OpenCV's is -0.75


def is_there(image: str) -> bool:
    """Tell whether there is such a file; nothing is read."""
    try:
        return Path(image).is_file()
    except OSError:  # a name longer than files have
        return False


def read_picture(image: str) -> RgbImage:
    """Return the picture of a file, (height, width, 3) uint8, upright by its EXIF.

    Raises:
        FrameError: there is no such file, it is at an address, too large, or no picture.
    """
    if "://" in image:
        raise FrameError(
            "a picture at an address, which is not fetched here: save it, and name its file",
            "with a picture at an address",
        )
    file = Path(image)
    try:
        size = file.stat().st_size
        content = file.read_bytes() if size <= MOST_BYTES else b""
    except (OSError, ValueError):
        raise FrameError(
            f"{file.name}: there is no such picture", "with a picture that is not there"
        ) from None
    if size > MOST_BYTES:
        raise FrameError(f"{file.name}: a picture of {size} bytes", "with a picture too large")
    try:
        header = read_header(content)
        return turned_upright(file_picture(content, header), header.orientation)
    except FrameError as error:
        raise FrameError(f"{file.name}: {error}", "with a picture that cannot be read") from None


def pixels_of(picture: RgbImage, how: Preparation) -> Tensor:
    """Return what the tower takes, (3, size, size) float32.

    Args:
        picture: (height, width, 3).
        how: of the model.

    Raises:
        FrameError: it is so long and narrow that scaling it takes much memory.
    """
    sides = picture.shape[:2]
    high, wide = how.size, how.size
    if how.shortest:  # as transformers has it: the longer side is cut to a whole number
        high, wide = (int(how.shortest * side / min(sides)) for side in sides)
    if high * wide > MOST_PIXELS:
        raise FrameError(
            f"a picture of {sides[1]} x {sides[0]} pixels", "with a picture too long and narrow"
        )
    top, left = (high - how.size) // 2, (wide - how.size) // 2
    middle = resized(picture, high, wide)[top : top + how.size, left : left + how.size]
    values = middle.astype(np.float32) * np.float32(how.factor)
    normal = (values - np.array(how.mean, np.float32)) / np.array(how.deviation, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def resized(picture: RgbImage, height: int, width: int) -> RgbImage:
    """Return a picture of another size, rows first, each pass rounded as Pillow does."""
    found = picture
    if width != picture.shape[1]:
        found = _resampled(found.transpose(1, 0, 2), width).transpose(1, 0, 2)
    if height != picture.shape[0]:
        found = _resampled(found, height)
    return found


def _resampled(picture: RgbImage, size: int) -> RgbImage:
    """Return a picture with another height."""
    length = len(picture)
    scale = length / size
    width = 2.0 * max(scale, 1.0)  # half of what an output pixel sees
    centers = (np.arange(size) + 0.5) * scale
    first = np.maximum(0, (centers - width + 0.5).astype(np.int64))
    last = np.minimum(length, (centers + width + 0.5).astype(np.int64))
    at = first[:, None] + np.arange(int((last - first).max()))
    weights = _cubic((at + 0.5 - centers[:, None]) / max(scale, 1.0))
    weights = np.where(at < last[:, None], weights, 0.0)
    weights /= weights.sum(1, keepdims=True)
    at = np.minimum(at, length - 1)
    rows = np.stack(
        [np.tensordot(share, picture[of], (0, 0)) for share, of in zip(weights, at, strict=True)]
    )
    found: RgbImage = np.clip(np.floor(rows + 0.5), 0, 255).astype(np.uint8)
    return found


def _cubic(x: Tensor) -> Tensor:
    x, a = np.abs(x), _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    found: Tensor = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return found
