"""Draw panels of lines and of stacked bars into one PNG with OpenCV, which every install has."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fleet_model.command_line.output_file import write_output
from fleet_model.types import RgbImage

Color: TypeAlias = tuple[int, int, int]  # RGB
Point: TypeAlias = tuple[float, float]

WIDTH, HEADING, PANEL = 1600, 170, 470  # pixels; a panel's height
INK, SOFT, RULE, PAGE = (22, 25, 29), (89, 97, 109), (225, 226, 220), (255, 255, 255)
TEAL, BLUE, AMBER, GRAY = (11, 122, 117), (37, 99, 201), (214, 137, 16), (200, 204, 209)
RED = (180, 35, 24)
_LEFT, _RIGHT, _ABOVE, _BELOW = 130, 60, 80, 80  # around a panel's axes
_CAPITAL = 21.5  # pixels of a capital letter at scale 1, in OpenCV 4 and 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A panel: one line a name, over a common x axis that begins at 0 or is logarithmic."""

    title: str
    x_name: str
    points: Mapping[str, Sequence[Point]]
    top: float  # of the y axis, which begins at 0
    shown: Callable[[float], str]  # writes a y value
    log_x: bool = False  # then the ticks stand at the points
    values: bool = True  # few points are written with their values


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """A panel: one bar an entry, made of parts that lie on each other in the order of `parts`."""

    title: str
    x_name: str
    names: Sequence[str]  # below the bars
    parts: Mapping[str, Sequence[float]]  # name -> its height in each bar
    colors: Sequence[Color]  # one a part
    shown: Callable[[float], str]


def write_chart(path: Path, heading: str, note: str, panels: Sequence["Lines | Bars"]) -> None:
    """Write the panels below each other as PNG.

    Raises:
        StorageError: the file cannot be written.
    """
    import cv2

    canvas = np.full((HEADING + PANEL * len(panels), WIDTH, 3), PAGE, np.uint8)
    _text(canvas, heading, (_LEFT - 60, 60), 1.5, INK, bold=True)
    _text(canvas, note, (_LEFT - 60, 118), 0.8, SOFT)
    for index, panel in enumerate(panels):
        area = _Area(canvas, HEADING + index * PANEL)
        if isinstance(panel, Lines):
            _draw_lines(area, panel)
        else:
            _draw_bars(area, panel)
    _, png = cv2.imencode(".png", canvas[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_output(path, png.tobytes())


def round_up(value: float) -> float:
    """Return where an axis may end: the next short number."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if value <= m * power * 1.000001)


@dataclass(frozen=True, slots=True)
class _Area:
    """Where one panel lies on the canvas."""

    canvas: RgbImage
    above: int  # the panel's upper edge

    @property
    def bottom(self) -> int:
        """Return the row of y = 0."""
        return self.above + PANEL - _BELOW

    @property
    def height(self) -> int:
        """Return the pixels of the y axis."""
        return PANEL - _ABOVE - _BELOW

    @property
    def width(self) -> int:
        """Return the pixels of the x axis."""
        return WIDTH - _LEFT - _RIGHT


def _draw_lines(area: _Area, panel: Lines) -> None:
    import cv2

    _frame(area, panel.title, panel.x_name, panel.top, panel.shown)
    ticks, share = _x_axis(panel)
    for tick in ticks:
        below = _LEFT + area.width * share(tick), area.bottom + 24
        _text(area.canvas, f"{tick:,g}", below, 0.75, SOFT, align=0.5)
    colors = (TEAL, BLUE, AMBER, RED, INK)
    legend = {name: colors[i % len(colors)] for i, name in enumerate(panel.points)}
    for name, points in panel.points.items():
        path = [
            (
                round(_LEFT + area.width * share(x)),
                round(area.bottom - area.height * min(y / panel.top, 1.0)),
            )
            for x, y in points
        ]
        cv2.polylines(area.canvas, [np.array(path, np.int32)], False, legend[name], 4, cv2.LINE_AA)
        if len(path) <= 60:  # dots that touch would hide the line
            for dot in path:
                cv2.circle(area.canvas, dot, 8, PAGE, -1, cv2.LINE_AA)
                cv2.circle(area.canvas, dot, 6, legend[name], -1, cv2.LINE_AA)
        if panel.values and len(path) <= 5:
            for (x, y), (_, value) in zip(path, points, strict=True):
                _text(area.canvas, panel.shown(value), (x, y - 26), 0.75, legend[name], align=0.5)
    _legend(area, legend if len(legend) > 1 else {})


def _x_axis(panel: Lines) -> tuple[list[float], Callable[[float], float]]:
    """Return the ticks, and what maps x to a share of the axis."""
    xs = sorted({x for points in panel.points.values() for x, _ in points})
    if panel.log_x and len(xs) > 1:
        decades = math.log(xs[-1] / xs[0])
        return xs, lambda x: 0.05 + 0.9 * math.log(x / xs[0]) / decades
    right = round_up(xs[-1] if xs else 0.0)
    return [right * tick / 5 for tick in range(6)], lambda x: x / right


def _draw_bars(area: _Area, panel: Bars) -> None:
    import cv2

    heights = [sum(parts) for parts in zip(*panel.parts.values(), strict=True)]
    top = round_up(max(heights, default=0.0))
    _frame(area, panel.title, panel.x_name, top, panel.shown)
    pitch = area.width / max(1, len(panel.names))
    gap = min(0.15 * pitch, 12.0)
    every = math.ceil(len(panel.names) / 20)
    for index, name in enumerate(panel.names):
        left, y = _LEFT + index * pitch, float(area.bottom)
        for color, part in zip(panel.colors, panel.parts.values(), strict=True):
            above = y - area.height * part[index] / top
            corners = (round(left + gap), round(above)), (round(left + pitch - gap), round(y) - 1)
            if corners[0][1] <= corners[1][1]:
                cv2.rectangle(area.canvas, *corners, color, -1)
            y = above
        if index % every == 0:
            middle = (left + pitch / 2, area.bottom + 24)
            _text(area.canvas, name, middle, 0.75, SOFT, align=0.5)
    _legend(area, dict(zip(panel.parts, panel.colors, strict=True)))


def _frame(area: _Area, title: str, x_name: str, top: float, shown: Callable[[float], str]) -> None:
    import cv2

    _text(area.canvas, title, (_LEFT - 60, area.above + 30), 0.95, INK, bold=True)
    end = WIDTH - _RIGHT
    for tick in range(6):
        y = round(area.bottom - area.height * tick / 5)
        cv2.line(area.canvas, (_LEFT, y), (end, y), RULE if tick else SOFT, 2)
        _text(area.canvas, shown(top * tick / 5), (_LEFT - 16, y), 0.75, SOFT, align=1.0)
    _text(area.canvas, x_name, (end, area.bottom + 56), 0.75, SOFT, align=1.0)


def _legend(area: _Area, entries: Mapping[str, Color]) -> None:
    import cv2

    x, y = WIDTH - _RIGHT, area.above + 30
    for name, color in reversed(list(entries.items())):
        x -= _text_width(name, 0.8)
        _text(area.canvas, name, (x, y), 0.8, INK)
        cv2.rectangle(area.canvas, (x - 30, y - 9), (x - 12, y + 9), color, -1)
        x -= 62


def _text_width(text: str, scale: float) -> int:
    import cv2

    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0])


def _text(
    canvas: RgbImage,
    text: str,
    area: Point,
    scale: float,
    color: Color,
    *,
    align: float = 0.0,
    bold: bool = False,
) -> None:
    """Write ASCII around y; `align` is where x lies in it: 0 left, 0.5 middle, 1 right."""
    import cv2

    at = round(area[0] - align * _text_width(text, scale)), round(area[1] + scale * _CAPITAL / 2)
    font = cv2.FONT_HERSHEY_DUPLEX if bold else cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(canvas, text, at, font, scale, color, 1, cv2.LINE_AA)
