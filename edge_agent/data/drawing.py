"""Draw a prediction on its frame, and a confusion matrix, with OpenCV alone."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from edge_agent.data.confusion import Confusion
from fleet_model.types import Prediction, RgbImage

Colour: TypeAlias = tuple[int, int, int]  # RGB

_RIGHT, _WRONG, _UNKNOWN = (26, 127, 80), (201, 60, 48), (52, 104, 176)
_WHITE, _PALE, _FAINT, _GRAY = (255,) * 3, (245,) * 3, (190,) * 3, (112, 118, 126)
_INK, _TRACK, _NIGHT = (32, 36, 42), (66, 70, 76), (24, 26, 29)
_LONGEST_LABEL = 24  # characters
_MIN_WIDTH = 480  # pixels: smaller frames are enlarged, or no text would fit below them
_STRIP = 54  # pixels, height of the text below a frame
_BORDER = 4  # pixels
_TITLE = 16  # pixels, height of the text above a box
_MARGIN = 28  # pixels around the matrix
_CAP_HEIGHT = 21.5  # pixels of a capital at scale 1, in OpenCV 4 and 5


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
    name, percent = _short(label), f"{score:.0%}"
    remark = f"truth: {_short(truth)}" if truth else ""
    scale = min(0.75, 0.75 * (width - 88) / (_text_width(f"{name}{percent}{remark}", 0.75) + 1))
    end = 16 + _text_width(name, scale) + 24
    cv2.rectangle(canvas, (12, middle - 17), (end, middle + 16), colour, cv2.FILLED)
    _write(canvas, name, ((12 + end) / 2, middle), scale, _WHITE)
    _write(canvas, percent, (end + 16, middle), scale, _WHITE, align=0.0)
    _write(canvas, remark, (width - 16, middle), scale, _FAINT, align=1.0)
    return canvas


def with_boxes(picture: RgbImage, found: Sequence[Prediction]) -> RgbImage:
    """Return the picture with a rectangle for every prediction, its label and score above it."""
    import cv2

    drawn = picture.copy()
    for one in found:
        if one.box is None:
            continue
        x0, y0, x1, y1 = (round(edge) for edge in one.box)
        cv2.rectangle(drawn, (x0, y0), (x1, y1), _UNKNOWN, 2)
        title = f"{_short(one.label)} {one.score:.0%}"
        top = max(y0, _TITLE)
        right = x0 + _text_width(title, 0.45) + 8
        cv2.rectangle(drawn, (x0, top - _TITLE), (right, top), _UNKNOWN, cv2.FILLED)
        _write(drawn, title, (x0 + 4, top - _TITLE / 2), 0.45, _WHITE, align=0.0)
    return drawn


def confusion_picture(confusion: Confusion, subject: str) -> RgbImage:
    """Return the matrix: truth downwards, prediction rightwards, shaded by the share of its row.

    Args:
        confusion: of at least one labelled frame.
        subject: what was measured, e.g. "model 3".
    """
    labels = [_short(label) for label in confusion.labels]
    cell = max(16, min(112, 900 // len(labels)))
    scale = max(0.36, min(0.62, cell / 90))
    longest = max(_text_width(label, scale) for label in labels)
    upright = longest > cell - 8  # column titles
    left, top = _MARGIN + 34 + longest + 14, _MARGIN + 124 + (longest + 14 if upright else 30)
    size = cell * len(labels)
    title = f"accuracy {confusion.accuracy:.1%}   macro F1 {confusion.macro_f1:.3f}"
    note = f"{subject}, {confusion.count} labelled frames"
    width = max(left + size, _MARGIN + max(_text_width(title, 0.85), _text_width(note, 0.5)))
    canvas = _canvas(top + size + _MARGIN, width + _MARGIN, _WHITE)
    _write(canvas, title, (_MARGIN, _MARGIN + 14), 0.85, _INK, align=0.0)
    _write(canvas, note, (_MARGIN, _MARGIN + 48), 0.5, _GRAY, align=0.0)
    _write(canvas, "predicted", (left + size / 2, _MARGIN + 100), 0.55, _GRAY)
    _write_upwards(canvas, "truth", (_MARGIN + 10, top + size / 2), 0.55, _GRAY)
    for index, label in enumerate(labels):
        centre = (index + 0.5) * cell
        _write(canvas, label, (left - 14, top + centre), scale, _INK, align=1.0)
        if upright:
            position = (left + centre, top - 14 - _text_width(label, scale) / 2)
            _write_upwards(canvas, label, position, scale, _INK)
        else:
            _write(canvas, label, (left + centre, top - 20), scale, _INK)
    for (row, column), count in np.ndenumerate(confusion.matrix):
        share = count / max(1, confusion.matrix[row].sum())
        corner = (left + column * cell, top + row * cell)
        _draw_cell(canvas, corner, cell, int(count), float(share), right=row == column)
    return canvas


def encoded(picture: RgbImage, suffix: str) -> bytes:
    """Return a picture as the bytes of a file whose name ends with `suffix`, e.g. ".png"."""
    import cv2

    return bytes(cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1])


def _draw_cell(
    canvas: RgbImage, corner: tuple[int, int], cell: int, count: int, share: float, *, right: bool
) -> None:
    """Fill one cell: its shade is the share of the row; the count and the share as text."""
    x, y = corner
    full = np.array(_RIGHT if right else _WRONG)
    # The root tells one percent from none.
    shade = np.array(_PALE) + (full - np.array(_PALE)) * np.sqrt(share)
    canvas[y + 1 : y + cell - 1, x + 1 : x + cell - 1] = shade.astype(np.uint8)
    if _text_width("8888", cell / 130) > cell - 4 or cell < 28:
        return
    ink = _FAINT if not count else _WHITE if share > 0.25 else _INK
    middle = (x + cell / 2, y + cell / 2)
    with_share = count and cell >= 72
    offset = cell * 0.11 if with_share else 0
    _write(canvas, str(count), (middle[0], middle[1] - offset), cell / 130, ink)
    if with_share:
        _write(canvas, f"{share:.0%}", (middle[0], middle[1] + cell * 0.2), cell / 210, ink)


def _canvas(height: int, width: int, colour: Colour) -> RgbImage:
    return np.full((height, width, 3), colour, np.uint8)


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 3] + "..."


def _text_width(text: str, scale: float) -> int:
    import cv2

    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0])


def _write(
    canvas: RgbImage,
    text: str,
    position: tuple[float, float],
    scale: float,
    colour: Colour,
    *,
    align: float = 0.5,
) -> None:
    """Write text around y; `align` is where x lies in it: 0 left, 0.5 middle, 1 right."""
    import cv2

    x = round(position[0] - align * _text_width(text, scale))
    y = round(position[1] + scale * _CAP_HEIGHT / 2)
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def _write_upwards(
    canvas: RgbImage, text: str, position: tuple[float, float], scale: float, colour: Colour
) -> None:
    """Write text that is read from bottom to top, centred at `place`, on white."""
    width, height = _text_width(text, scale) + 4, round(34 * scale)
    slip = _canvas(height, width, _WHITE)
    _write(slip, text, (width / 2, height / 2), scale, colour)
    x, y = round(position[0] - height / 2), round(position[1] - width / 2)
    canvas[y : y + width, x : x + height] = np.rot90(slip)
