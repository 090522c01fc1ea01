"""Label Studio: a JSON list of tasks, each a picture and what people said, in percent."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from edge_agent.data.frames.source import IMAGE_SUFFIXES
from edge_agent.data.label_formats.annotations.shapes import (
    NOT_READ,
    Point,
    around,
    number,
    points,
    rectangle,
    turned,
)
from edge_agent.data.label_formats.annotations.told import Told
from edge_agent.data.label_formats.data_set import clean_text
from fleet_model.files.damage import DamageLog

_ANSWERS = ("annotations", "completions")  # the second one before 1.0
_SHORT = {"annotation_id", "lead_time"}  # keys of a task in the format JSON-MIN
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=[^/]+$)")  # before the name of a picture that was uploaded
_AREAS = ("rectanglelabels", "polygonlabels", "ellipselabels")


def told_by_label_studio(content: Any, file: str, damage: DamageLog) -> Iterator[Told] | None:
    """Return what a file in the format JSON or JSON-MIN says; None if it is neither.

    Of several people's answers to one task the last one counts, and the others are counted.
    """
    if not (isinstance(content, list) and content and all(map(_is_task, content))):
        return None
    return _told(content, file, damage)


def _is_task(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    has_answers = any(isinstance(item.get(key), list) for key in _ANSWERS)
    return (has_answers and isinstance(item.get("data"), dict)) or set(item) >= _SHORT


def _told(content: list[Any], file: str, damage: DamageLog) -> Iterator[Told]:
    for task in content:
        where = f"{file}, task {str(task.get('id', ''))[:20]}"
        data = task.get("data", task)
        names = _names([task.get("file_upload"), *data.values()])
        if not names:
            damage.add("bad label", f"{where}: names no picture")
            continue
        for region in _regions(task, where, damage):
            try:
                yield from _told_by(region, names, file)
            except KeyError:
                kind = str(region.get("type", "a value"))[:20]
                damage.add(NOT_READ, f"{where}: {kind}")
            except ValueError as error:
                damage.add("bad label", f"{where}: {error}")


def _regions(task: Mapping[str, Any], where: str, damage: DamageLog) -> Iterator[dict[str, Any]]:
    """Yield the parts of a task's answer; of one without any part, an empty one."""
    if "data" not in task:  # JSON-MIN
        values = (value for key, value in task.items() if key not in ("id", *_SHORT))
        for value in values:
            parts = value if isinstance(value, list) else [value]
            for part in parts:
                if isinstance(part, dict):
                    kind = next((key for key in part if key.endswith(("labels", "choices"))), "")
                    yield {**part, "value": part, "type": kind}
        for key in ("choice", "label", "class"):
            if isinstance(task.get(key), str):
                yield {"type": "choices", "value": {"choices": [task[key]]}}
        return
    answers = next(task[key] for key in _ANSWERS if isinstance(task.get(key), list))
    given = [each for each in answers if isinstance(each, dict) and not each.get("was_cancelled")]
    if len(given) > 1:
        damage.add("several answers", f"{where}: the last one counts", len(given) - 1)
    for answer in given[-1:]:
        result = answer.get("result")
        regions = (
            [each for each in result if isinstance(each, dict)] if isinstance(result, list) else []
        )
        yield from regions or [{"type": "choices", "value": {"choices": []}}]


def _told_by(region: dict[str, Any], names: tuple[str, ...], file: str) -> Iterator[Told]:
    """Yield what a part says; raises KeyError for a kind that is not read, else ValueError."""
    kind, value = region.get("type"), region.get("value")
    if kind not in (*_AREAS, "choices") or not isinstance(value, dict):
        raise KeyError(kind)
    labels = value.get(kind)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"has no {kind}")
    if kind == "choices":
        yield Told(names, file, seen=not labels)
        yield from (Told(names, file, label=clean_text(label)) for label in labels)
        return
    if not labels:
        raise ValueError("has no label")
    width, height = number(region.get("original_width")), number(region.get("original_height"))
    corners = _corners(kind, value, width / 100, height / 100)
    boxes = tuple(around(clean_text(label), corners) for label in labels)
    yield Told(names, file, boxes=boxes, size=(int(width), int(height)))


def _corners(kind: str, value: Mapping[str, Any], across: float, down: float) -> list[Point]:
    """Return points of the edge in pixels; a percent is `across` and `down` of them."""
    if kind == "polygonlabels":
        return [(x * across, y * down) for x, y in points(value.get("points"))]
    x, y, angle = number(value.get("x")), number(value.get("y")), number(value.get("rotation", 0))
    x, y = x * across, y * down
    if kind == "ellipselabels":
        right, lower = number(value.get("radiusX")) * across, number(value.get("radiusY")) * down
        return turned(rectangle(x - right, y - lower, x + right, y + lower), (x, y), angle)
    right, lower = number(value.get("width")) * across, number(value.get("height")) * down
    return turned(rectangle(x, y, x + right, y + lower), (x, y), angle)


def _names(values: list[Any]) -> tuple[str, ...]:
    """Return the name of the picture, also as it was before it was uploaded; () without one."""
    for value in values:
        if isinstance(value, str):
            bare = value.partition("?d=")[2] or value.partition("?")[0]
            if bare.lower().endswith(IMAGE_SUFFIXES):
                return value, _UPLOADED.sub("", value)
    return ()
