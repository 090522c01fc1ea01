"""Draw a confusion matrix, with OpenCV alone."""

import numpy as np

from fleet_model.confusion.counts import Confusion
from fleet_model.confusion.lettering import Colour, short_label, text_width, write_text
from fleet_model.types import RgbImage

_RIGHT, _WRONG = (26, 127, 80), (201, 60, 48)
_WHITE, _PALE, _FAINT, _GRAY = (255,) * 3, (245,) * 3, (190,) * 3, (112, 118, 126)
_INK = (32, 36, 42)
_MARGIN = 28  # pixels around the matrix


def confusion_picture(confusion: Confusion, subject: str) -> RgbImage:
    """Return the matrix: truth downwards, prediction rightwards, shaded by the share of its row.

    Args:
        confusion: of at least one answer.
        subject: what was measured, e.g. "model 3, 40 labelled frames".
    """
    labels = [short_label(label) for label in confusion.labels]
    cell = max(16, min(112, 900 // len(labels)))
    scale = max(0.36, min(0.62, cell / 90))
    longest = max(text_width(label, scale) for label in labels)
    upright = longest > cell - 8  # column titles
    left, top = _MARGIN + 34 + longest + 14, _MARGIN + 124 + (longest + 14 if upright else 30)
    size = cell * len(labels)
    title = f"accuracy {confusion.accuracy:.1%}   macro F1 {confusion.macro_f1:.3f}"
    width = max(left + size, _MARGIN + max(text_width(title, 0.85), text_width(subject, 0.5)))
    canvas = _canvas(top + size + _MARGIN, width + _MARGIN, _WHITE)
    write_text(canvas, title, (_MARGIN, _MARGIN + 14), 0.85, _INK)
    write_text(canvas, subject, (_MARGIN, _MARGIN + 48), 0.5, _GRAY)
    write_text(canvas, "predicted", (left + size / 2, _MARGIN + 100), 0.55, _GRAY, align=0.5)
    _write_upwards(canvas, "truth", (_MARGIN + 10, top + size / 2), 0.55, _GRAY)
    for index, label in enumerate(labels):
        centre = (index + 0.5) * cell
        write_text(canvas, label, (left - 14, top + centre), scale, _INK, align=1.0)
        if upright:
            position = (left + centre, top - 14 - text_width(label, scale) / 2)
            _write_upwards(canvas, label, position, scale, _INK)
        else:
            write_text(canvas, label, (left + centre, top - 20), scale, _INK, align=0.5)
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
    if text_width("8888", cell / 130) > cell - 4 or cell < 28:
        return
    ink = _FAINT if not count else _WHITE if share > 0.25 else _INK
    middle = (x + cell / 2, y + cell / 2)
    with_share = count and cell >= 72
    offset = cell * 0.11 if with_share else 0
    write_text(canvas, str(count), (middle[0], middle[1] - offset), cell / 130, ink, align=0.5)
    if with_share:
        write_text(
            canvas, f"{share:.0%}", (middle[0], middle[1] + cell * 0.2), cell / 210, ink, align=0.5
        )


def _canvas(height: int, width: int, colour: Colour) -> RgbImage:
    return np.full((height, width, 3), colour, np.uint8)


def _write_upwards(
    canvas: RgbImage, text: str, position: tuple[float, float], scale: float, colour: Colour
) -> None:
    """Write text that is read from bottom to top, centred at `place`, on white."""
    width, height = text_width(text, scale) + 4, round(34 * scale)
    slip = _canvas(height, width, _WHITE)
    write_text(slip, text, (width / 2, height / 2), scale, colour, align=0.5)
    x, y = round(position[0] - height / 2), round(position[1] - width / 2)
    canvas[y : y + width, x : x + height] = np.rot90(slip)
