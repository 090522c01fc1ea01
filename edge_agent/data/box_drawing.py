"""Draw what was found in a frame around it, with OpenCV alone."""

from collections.abc import Iterable, Sequence

import numpy as np

from fleet_model.confusion.lettering import Colour, shortened, text_width, write_text
from fleet_model.types import Box, Prediction, RgbImage

_RIGHT, _WRONG, _UNKNOWN, _MISSED = (26, 127, 80), (201, 60, 48), (52, 104, 176), (176, 112, 0)
_WHITE = (255, 255, 255)
_PLAIN_HEIGHT = 600  # pixels: what is drawn on taller pictures grows with them
_SCALE = 0.45  # of the text: letters of 10 pixels
_TITLE = 16  # pixels, height of a title
_LONGEST_TITLE = 240  # pixels
_RIGHT_OVERLAP = 0.5  # IoU with a true box of the same label

_Corners = tuple[float, float, float, float]
_Drawn = tuple[_Corners, Colour, str]  # a box, its color, its title


def with_boxes(
    picture: RgbImage, found: Sequence[Prediction], truth: Sequence[Box] | None = None
) -> RgbImage:
    """Return the picture with a rectangle for every prediction, its label and score beside it.

    Beside true boxes, of which there may be none, green is right, red is wrong, and a true box that
    nothing has found is thin and brown. Where nobody has looked (None) predictions are blue.
    """
    import cv2

    boxes = _judged(found, truth)
    drawn = picture.copy()
    factor = max(1.0, min(picture.shape[:2]) / _PLAIN_HEIGHT)
    for corners, color, _ in boxes:
        x0, y0, x1, y1 = (round(edge) for edge in corners)
        thickness = round((1 if color == _MISSED else 2) * factor)
        cv2.rectangle(drawn, (x0, y0), (x1, y1), color, thickness)
    _write_titles(drawn, boxes, factor)
    return drawn


def _judged(found: Sequence[Prediction], truth: Sequence[Box] | None) -> list[_Drawn]:
    """Return what to draw: the surest prediction takes the true box that it overlaps most."""
    free, boxes = list(truth or ()), list[_Drawn]()
    for one in sorted(found, key=lambda one: -one.score):
        if one.box is None:
            continue
        overlaps = [_overlap(one.box, each) * (each.label == one.label) for each in free]
        is_right = max(overlaps, default=0.0) >= _RIGHT_OVERLAP
        if is_right:
            del free[int(np.argmax(overlaps))]
        color = _RIGHT if is_right else _UNKNOWN if truth is None else _WRONG
        boxes.append((one.box, color, f"{one.label} {one.score:.0%}"))
    missed = [((b.x0, b.y0, b.x1, b.y1), _MISSED, f"missed: {b.label}") for b in free]
    return missed + boxes[::-1]  # the surest lies on top


def _overlap(box: _Corners, other: Box) -> float:
    width = min(box[2], other.x1) - max(box[0], other.x0)
    height = min(box[3], other.y1) - max(box[1], other.y0)
    shared = max(width, 0.0) * max(height, 0.0)
    both = (box[2] - box[0]) * (box[3] - box[1]) + (other.x1 - other.x0) * (other.y1 - other.y0)
    return shared / (both - shared) if shared else 0.0


def _write_titles(picture: RgbImage, boxes: Sequence[_Drawn], factor: float) -> None:
    """Write the titles from the last box, which lies on top, to the first: each where room is."""
    import cv2

    scale, height, edge = _SCALE * factor, round(_TITLE * factor), round(4 * factor)
    thickness = max(1, round(0.8 * factor))
    used = np.zeros(picture.shape[:2], bool)
    for corners, color, title in reversed(boxes):
        text = shortened(title, scale, _LONGEST_TITLE * factor)
        width = text_width(text, scale, thickness) + 2 * edge
        x, y = _free_place(used, corners, width, height)
        used[y : y + height, x : x + width] = True
        cv2.rectangle(picture, (x, y), (x + width, y + height), color, cv2.FILLED)
        middle = (x + edge, y + height / 2)
        write_text(picture, text, middle, scale, _WHITE, thickness=thickness)


def _free_place(used: RgbImage, corners: _Corners, width: int, height: int) -> tuple[int, int]:
    """Return x, y of a title in the picture: above the box, below it, in it, or anywhere near."""
    x0, y0, x1, y1 = (round(edge) for edge in corners)

    def inside(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        rows, columns = used.shape
        return [(max(0, min(x, columns - width)), max(0, min(y, rows - height))) for x, y in places]

    above, below, within = y0 - height, y1, y0
    left, right = x0, x1 - width
    places = inside((x, y) for y in (above, below, within, y1 - height) for x in (left, right))
    places += inside((left, above + step * height) for step in range(1, used.shape[0] // height))
    free = (p for p in places if not used[p[1] : p[1] + height, p[0] : p[0] + width].any())
    return next(free, places[0])
