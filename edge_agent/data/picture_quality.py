"""Say whether a picture is blurred, or nearly the same as another one."""

from fleet_model.types import RgbImage

_WIDTH = 320  # pixels: the measure of sharpness must not depend on the camera's resolution
_HASH_WIDTH, _HASH_HEIGHT = 9, 8  # eight differences in each of eight rows
# Of 64 bits. Successive frames of a robot that stands still differ in 0 to 2, by sensor noise.
NEAR_BITS = 3


def sharpness(picture: RgbImage) -> float:
    """Return the variance of the Laplacian; below about 100 a camera picture looks blurred.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (ICPR 2000), on gray at
    most 320 pixels wide. It compares pictures of one camera; a bare wall is never sharp.
    """
    import cv2

    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    height, width = gray.shape
    if width > _WIDTH:
        size = (_WIDTH, max(1, round(height * _WIDTH / width)))
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    laplacian = cv2.Laplacian(gray, cv2.CV_16S, ksize=1)  # at most 4 * 255 either way: exact
    _, deviation = cv2.meanStdDev(laplacian)
    return float(deviation[0, 0] ** 2)


def picture_hash(picture: RgbImage) -> int:
    """Return 64 bits that say, of 8 x 8 places, which are brighter than their right neighbor.

    The dHash of Krawetz, "Kind of Like That" (hackerfactor.com, 2013).
    """
    import cv2
    import numpy as np

    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (_HASH_WIDTH, _HASH_HEIGHT), interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, :-1] > small[:, 1:])  # (8,)
    return int.from_bytes(bits.tobytes(), "big")


def is_near_duplicate(one: int, other: int) -> bool:
    """Return whether two picture hashes differ in so few bits that nothing was moved."""
    return (one ^ other).bit_count() <= NEAR_BITS
