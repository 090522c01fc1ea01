"""CreateML: a JSON list of pictures, each with labels or boxes by their center, in pixels."""

from collections.abc import Iterator
from typing import Any

from edge_agent.data.label_formats.annotations.told import Told
from edge_agent.data.label_formats.data_set import clean_text
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

_NAMES = ("image", "imagefilename")
_LISTS = ("annotations", "annotation")


def told_by_createml(content: Any, file: str, damage: DamageLog) -> Iterator[Told] | None:
    """Return what a CreateML file says; None if it is another JSON file."""
    if not (isinstance(content, list) and content and all(map(_is_picture, content))):
        return None
    return _told(content, file, damage)


def _is_picture(item: Any) -> bool:
    return isinstance(item, dict) and bool(_text(item, _NAMES)) and any(k in item for k in _LISTS)


def _told(listed: list[Any], file: str, damage: DamageLog) -> Iterator[Told]:
    for number, item in enumerate(listed, start=1):
        annotations = next(item[key] for key in _LISTS if key in item)
        names = (_text(item, _NAMES),)
        yield Told(names, file, seen=annotations == [])
        for each in annotations if isinstance(annotations, list) else [annotations]:
            try:
                label, boxes = _labels_of(each)
            except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
                expected = "expected label and coordinates with x, y, width, height"
                damage.add("bad label", f"{file}, picture {number}: {expected}")
            else:
                yield Told(names, file, 0, label, boxes)


def _labels_of(item: Any) -> tuple[str, tuple[Box, ...]]:
    if isinstance(item, str):
        return clean_text(item), ()
    label, place = clean_text(item["label"]), item.get("coordinates")
    if place is None:
        return label, ()
    x, y, width, height = (_number(place[key]) for key in ("x", "y", "width", "height"))
    x0, y0 = x - width / 2, y - height / 2
    return "", (Box(label=label, x0=x0, y0=y0, x1=x0 + width, y1=y0 + height),)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _text(item: Any, keys: tuple[str, ...]) -> str:
    found = next((item[key] for key in keys if isinstance(item.get(key), str)), "")
    return str(found)
