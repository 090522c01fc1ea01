"""Draw the curves of a workload as one plot, with OpenCV alone."""

import numpy as np

from fleet_model.confusion.lettering import Colour, shortened, text_width, write_text
from fleet_model.types import RgbImage
from fleet_model.workload import Curves

_INK, _SOFT, _RULE, _PAGE = (32, 36, 42), (89, 97, 109), (228, 229, 224), (255, 255, 255)
# Apart for most people who cannot tell red from green, too.
_COLORS: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (150, 110, 0),
    (86, 180, 233),
    (120, 60, 160),
    (60, 60, 60),
)
_SIDE = 640  # pixels of an axis
_LEFT, _ABOVE, _BELOW, _GAP, _MARGIN = 96, 110, 84, 40, 28  # pixels around the axes
_LINE = 28  # pixels, height of a name
_LONGEST_NAME = 300  # pixels
_MOST_NAMES = _SIDE // _LINE - 1


def curves_picture(curves: Curves, subject: str) -> RgbImage:
    """Return the lines over axes from 0 to 1, with their names beside them.

    Args:
        curves: at least one line; points that are no numbers interrupt it.
        subject: what was measured, e.g. "model 3, 40 labelled frames".
    """
    names = [shortened(name, 0.55, _LONGEST_NAME) for name in curves.lines]
    more = f"and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    listed = [*names[:_MOST_NAMES], more] if more else names
    beside = 44 + max(text_width(name, 0.55) for name in listed)
    width = _LEFT + _SIDE + _GAP + beside + _MARGIN
    canvas = np.full((_ABOVE + _SIDE + _BELOW, width, 3), _PAGE, np.uint8)
    write_text(
        canvas, shortened(curves.title, 0.85, width - 2 * _MARGIN), (_MARGIN, 36), 0.85, _INK
    )
    write_text(canvas, subject, (_MARGIN, 70), 0.5, _SOFT)
    _draw_axes(canvas, curves)
    for index, (x, y) in reversed(list(enumerate(curves.lines.values()))):
        _draw_line(canvas, np.stack([x, y], axis=1), _COLORS[index % len(_COLORS)])
    for index, name in enumerate(listed):
        row, left = _ABOVE + _LINE // 2 + index * _LINE, _LEFT + _SIDE + _GAP
        if name != more:
            canvas[row - 2 : row + 2, left : left + 30] = _COLORS[index % len(_COLORS)]
        write_text(canvas, name, (left + 42, row), 0.55, _INK if name != more else _SOFT)
    return canvas


def _draw_axes(canvas: RgbImage, curves: Curves) -> None:
    bottom, right = _ABOVE + _SIDE, _LEFT + _SIDE
    for tick in range(6):
        step, color = round(tick / 5 * _SIDE), _SOFT if not tick else _RULE
        canvas[bottom - step, _LEFT : right + 1] = color
        canvas[_ABOVE : bottom + 1, _LEFT + step] = color
        write_text(canvas, f"{tick / 5:.1f}", (_LEFT - 12, bottom - step), 0.5, _SOFT, align=1.0)
        write_text(canvas, f"{tick / 5:.1f}", (_LEFT + step, bottom + 20), 0.5, _SOFT, align=0.5)
    write_text(canvas, curves.x_name, (right, bottom + 52), 0.55, _SOFT, align=1.0)
    slip = np.full((24, text_width(curves.y_name, 0.55) + 4, 3), _PAGE, np.uint8)
    write_text(slip, curves.y_name, (2, 12), 0.55, _SOFT)
    upwards = np.rot90(slip)[:_SIDE]
    canvas[_ABOVE : _ABOVE + len(upwards), 16:40] = upwards


def _draw_line(canvas: RgbImage, points: RgbImage, color: Colour) -> None:
    """Draw (points, 2) shares; OpenCV takes 16ths of pixels."""
    import cv2

    known = np.isfinite(points).all(axis=1)
    ends = np.flatnonzero(np.diff(known, prepend=False, append=False))
    for first, end in ends.reshape(-1, 2):
        x, y = np.clip(points[first:end], 0.0, 1.0).T
        place = np.stack([_LEFT + x * _SIDE, _ABOVE + (1 - y) * _SIDE], axis=1)
        path = np.round(place * 16).astype(np.int32)
        cv2.polylines(canvas, [path], False, color, 3, cv2.LINE_AA, shift=4)
