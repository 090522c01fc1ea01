"""The boxes around what people draw in labelling tools, from numbers that may be anything."""

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

from fleet_model.types import Box

NOT_READ = "shape not read"  # the damage of what is drawn and is no area: points, lines, brushes
Point: TypeAlias = tuple[float, float]


def number(value: Any) -> float:
    """Return a number of JSON, or a text of XML that spells one; raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a coordinate is no number")
    try:
        found = float(value)
    except (ValueError, OverflowError):
        raise ValueError("a coordinate is no number") from None
    if not math.isfinite(found):
        raise ValueError("a coordinate is no number")
    return found


def points(listed: Any) -> list[Point]:
    """Return a list of [x, y]; raises ValueError."""
    if not isinstance(listed, list) or not all(isinstance(p, list) and len(p) > 1 for p in listed):
        raise ValueError("its points are no list of [x, y]")
    return [(number(p[0]), number(p[1])) for p in listed]


def around(label: str, corners: Iterable[Point]) -> Box:
    """Return the upright box around points; raises ValueError without any."""
    found = list(corners)
    if not found:
        raise ValueError("it has no points")
    xs, ys = zip(*found, strict=True)
    return Box(label=label, x0=min(xs), y0=min(ys), x1=max(xs), y1=max(ys))


def turned(corners: Iterable[Point], center: Point, degrees: float) -> list[Point]:
    """Return points turned around a center, clockwise as pictures are seen."""
    if not degrees:
        return list(corners)
    (cx, cy), angle = center, math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    return [
        (cx + (x - cx) * cosine - (y - cy) * sine, cy + (x - cx) * sine + (y - cy) * cosine)
        for x, y in corners
    ]


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    """Return the four corners of an upright box."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
