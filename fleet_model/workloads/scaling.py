"""Scale pictures to what a model takes."""

import numpy as np

from fleet_model.types import RgbImage


def scaled(picture: RgbImage, width: int, height: int) -> RgbImage:
    """Return the picture with so many pixels; the same one if it has them.

    Averaging areas keeps fine texture from aliasing. Up to 1.5 times the size interpolation comes
    as close and takes a fifth of the time; it can also enlarge.
    """
    import cv2

    if picture.shape[1::-1] == (width, height):
        return picture
    how = cv2.INTER_AREA if picture.shape[1] > 1.5 * width else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how))
