"""Draw a prediction on its frame, with OpenCV alone."""

import numpy as np

from fleet_model.confusion.lettering import Colour, short_label, text_width, write_text
from fleet_model.types import RgbImage

_RIGHT, _WRONG, _UNKNOWN = (26, 127, 80), (201, 60, 48), (52, 104, 176)
_WHITE, _FAINT = (255,) * 3, (190,) * 3
_TRACK, _NIGHT = (66, 70, 76), (24, 26, 29)
_MIN_WIDTH = 480  # pixels: smaller frames are enlarged, or no text would fit below them
_STRIP = 54  # pixels, height of the text below a frame
_BORDER = 4  # pixels


def annotated(picture: RgbImage, label: str, score: float, truth: str) -> RgbImage:
    """Return the picture above a strip that names the label, its score and the truth.

    Green is right, red is wrong, blue is a frame whose truth ("") nobody knows.
    """
    import cv2

    colour = {"": _UNKNOWN, label: _RIGHT}.get(truth, _WRONG)
    factor = max(1.0, _MIN_WIDTH / picture.shape[1])
    large = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    height, width = large.shape[:2]
    canvas = _canvas(height + _STRIP, width, _NIGHT)
    canvas[:height] = large
    cv2.rectangle(canvas, (0, 0), (width - 1, height - 1), colour, 2 * _BORDER - 1)
    canvas[-_BORDER:] = _TRACK
    canvas[-_BORDER:, : round(score * width)] = colour  # a bar as long as the score
    middle = height + (_STRIP - _BORDER) // 2
    name, percent = short_label(label), f"{score:.0%}"
    remark = f"truth: {short_label(truth)}" if truth else ""
    scale = min(0.75, 0.75 * (width - 88) / (text_width(f"{name}{percent}{remark}", 0.75) + 1))
    end = 16 + text_width(name, scale) + 24
    cv2.rectangle(canvas, (12, middle - 17), (end, middle + 16), colour, cv2.FILLED)
    write_text(canvas, name, ((12 + end) / 2, middle), scale, _WHITE, align=0.5)
    write_text(canvas, percent, (end + 16, middle), scale, _WHITE)
    write_text(canvas, remark, (width - 16, middle), scale, _FAINT, align=1.0)
    return canvas


def _canvas(height: int, width: int, colour: Colour) -> RgbImage:
    return np.full((height, width, 3), colour, np.uint8)
