"""Supervisely and LabelMe: a JSON file for each picture, with outlines by their corners."""

from collections.abc import Iterator, Mapping
from math import dist
from pathlib import PurePosixPath
from typing import Any

from edge_agent.data.label_formats.annotations.shapes import (
    NOT_READ,
    Point,
    around,
    number,
    points,
    rectangle,
)
from edge_agent.data.label_formats.annotations.told import Told
from edge_agent.data.label_formats.data_set import clean_text
from fleet_model.files.damage import DamageLog

_AREAS = ("rectangle", "polygon")


def told_by_supervisely(content: Any, file: str, damage: DamageLog) -> Iterator[Told] | None:
    """Return what Supervisely's file NAME.jpg.json says; None if it is another file."""
    if not isinstance(content, dict):
        return None
    listed, size = content.get("objects"), content.get("size")
    if not isinstance(listed, list) or not isinstance(size, dict):
        return None
    shapes = [
        (each.get("classTitle"), each.get("geometryType"), _exterior(each))
        for each in listed if isinstance(each, dict)
    ]  # fmt: skip
    tags = content.get("tags")
    labels = (
        [tag.get("name") for tag in tags if isinstance(tag, dict)] if isinstance(tags, list) else []
    )
    names = (PurePosixPath(file).name.removesuffix(".json"),)
    return _told(names, file, shapes, labels, _size(size, "width", "height"), damage)


def told_by_labelme(content: Any, file: str, damage: DamageLog) -> Iterator[Told] | None:
    """Return what a file of LabelMe says; None if it is another file.

    The picture of the file's own name counts more than the one that it names.
    """
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return None
    own, named = PurePosixPath(file).with_suffix("").as_posix(), content.get("imagePath")
    if not isinstance(named, str):
        return None
    shapes = [
        (each.get("label"), each.get("shape_type") or "polygon", each.get("points"))
        for each in content["shapes"] if isinstance(each, dict)
    ]  # fmt: skip
    flags = content.get("flags")
    labels = [name for name, is_set in flags.items() if is_set] if isinstance(flags, dict) else []
    size = _size(content, "imageWidth", "imageHeight")
    return _told((own, named), file, shapes, labels, size, damage)


def _told(
    names: tuple[str, ...], file: str, shapes: list[tuple[Any, Any, Any]], labels: list[Any],
    size: tuple[int, int], damage: DamageLog,
) -> Iterator[Told]:  # fmt: skip
    yield Told(names, file, seen=not (shapes or labels))
    yield from (Told(names, file, label=clean_text(str(label))) for label in labels)
    for count, (label, kind, listed) in enumerate(shapes, start=1):
        where = f"{file}, object {count}"
        try:
            if kind not in (*_AREAS, "circle"):
                damage.add(NOT_READ, f"{where}: {str(kind)[:20]}")
            elif not isinstance(label, str) or not label:
                raise ValueError("has no label")
            else:
                corners = points(listed)
                corners = _around_circle(corners) if kind == "circle" else corners
                yield Told(names, file, boxes=(around(clean_text(label), corners),), size=size)
        except ValueError as error:
            damage.add("bad label", f"{where}: {error}")


def _exterior(item: Mapping[str, Any]) -> Any:
    listed = item.get("points")
    return listed.get("exterior") if isinstance(listed, dict) else None


def _around_circle(corners: list[Point]) -> list[Point]:
    if len(corners) != 2:
        raise ValueError("a circle has its center and one point of its edge")
    (x, y), edge = corners
    radius = dist((x, y), edge)
    return rectangle(x - radius, y - radius, x + radius, y + radius)


def _size(item: Mapping[str, Any], width: str, height: str) -> tuple[int, int]:
    values = item.get(width), item.get(height)
    if all(isinstance(value, int) and 0 < value < 2**31 for value in values):
        return int(number(values[0])), int(number(values[1]))
    return 0, 0
