"""Models as points, accuracy over what they cost; their Pareto front is a line."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cloud_server.compression.recipes.measure import front
from cloud_server.simulation.chart import INK, PAGE, RULE, SOFT, TEAL, Color
from fleet_model.types import RgbImage

_WIDTH, _HEIGHT = 1500, 560  # pixels of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 130, 330, 90, 80  # around its axes; names stand at the right
_NAME, _ROW = 300, 20  # of a written name
_TICKS = 4


class Point(NamedTuple):
    """A model."""

    name: str
    cost: float  # above 0
    accuracy: float  # 0..1


class Panel(NamedTuple):
    """Points over one kind of cost, whose axis is logarithmic."""

    title: str
    unit: str
    points: Sequence[Point]


def picture(panels: Sequence[Panel]) -> bytes:
    """Return a PNG of panels below each other; those on the front of a panel are filled."""
    import cv2

    canvas = np.full((_HEIGHT * len(panels), _WIDTH, 3), PAGE, np.uint8)
    for number, panel in enumerate(panels):
        _draw(canvas[number * _HEIGHT : (number + 1) * _HEIGHT], panel)
    _, png = cv2.imencode(".png", canvas[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return png.tobytes()


def _draw(area: RgbImage, panel: Panel) -> None:
    import cv2

    points = panel.points
    costs, heights = [one.cost for one in points], [one.accuracy for one in points]
    left, right = min(costs) / 1.3, max(costs) * 1.3
    margin = max(0.01, 0.15 * (max(heights) - min(heights)))
    low, high = max(0.0, min(heights) - margin), min(1.0, max(heights) + margin)

    def place(cost: float, accuracy: float) -> tuple[int, int]:
        across = math.log(cost / left) / math.log(right / left)
        up = (accuracy - low) / (high - low)
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return round(_LEFT + width * across), round(_TOP + height * (1 - up))

    _text(area, f"{panel.title}; filled and joined: the Pareto front", (60, 50), 0.9, INK)
    for tick in range(_TICKS + 1):
        accuracy = low + (high - low) * tick / _TICKS
        cost = left * (right / left) ** (tick / _TICKS)
        cv2.line(area, place(left, accuracy), place(right, accuracy), RULE, 1)
        x, y = place(left, accuracy)
        _text(area, f"{accuracy:.3f}", (x - 85, y + 7), 0.6, SOFT)
        x, y = place(cost, low)
        _text(area, f"{cost:.3g} {panel.unit}", (x - 40, y + 35), 0.6, SOFT)
    best = front([(one.cost, -one.accuracy) for one in points])
    line = sorted(place(*one[1:]) for one, is_best in zip(points, best, strict=True) if is_best)
    cv2.polylines(area, [np.array(line, np.int32)], False, TEAL, 3, cv2.LINE_AA)
    taken: list[tuple[int, int]] = []
    for one, is_best in sorted(zip(points, best, strict=True), key=lambda pair: -pair[0].accuracy):
        x, y = place(one.cost, one.accuracy)
        cv2.circle(area, (x, y), 9, TEAL if is_best else PAGE, -1, cv2.LINE_AA)
        cv2.circle(area, (x, y), 9, TEAL if is_best else SOFT, 2, cv2.LINE_AA)
        row = y + 6
        while any(abs(row - b) < _ROW and abs(x - a) < _NAME for a, b in taken):
            row += 4  # names do not lie on each other
        taken.append((x, row))
        _text(area, one.name, (x + 18, row), 0.55, INK)


def _text(area: RgbImage, text: str, at: tuple[int, int], scale: float, color: Color) -> None:
    import cv2

    cv2.putText(area, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
