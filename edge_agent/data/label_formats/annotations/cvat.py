"""CVAT for images 1.1: one XML file, a picture's boxes, outlines, masks and tags in its element."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from edge_agent.data.label_formats.annotations.shapes import (
    NOT_READ,
    Point,
    around,
    number,
    rectangle,
    turned,
)
from edge_agent.data.label_formats.annotations.told import Told
from edge_agent.data.label_formats.annotations.xml import read_xml
from edge_agent.data.label_formats.data_set import clean_text
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog


def told_by_cvat(path: Path, file: str, damage: DamageLog) -> Iterator[Told] | None:
    """Return what a file of CVAT says; None if it is another XML file.

    Args:
        path: the file.
        file: its name in the data set.
        damage: gets the shapes that cannot be read.

    Raises:
        FrameError: it is no whole XML file, or labels a video, whose frames have no names.
    """
    root = read_xml(path, path.name)
    if root.tag != "annotations":
        return None
    if root.find("track") is not None:
        raise FrameError(
            "labels a video; export the task as 'CVAT for images' or 'COCO'", "bad label file"
        )
    return _told(root, file, damage) if root.find("image") is not None else None


def _told(root: Element, file: str, damage: DamageLog) -> Iterator[Told]:
    kinds = {shape.tag for shape in root.iterfind("image/*")}
    for image in root.iterfind("image"):
        names = (image.get("name", ""),)
        size = _size(image, "width"), _size(image, "height")
        yield Told(names, file, seen=kinds != {"tag"} and len(image) == 0)
        for shape in image:
            where = f"{file}, image {image.get('id', '')[:20]}: {shape.tag[:20]}"
            label = clean_text(shape.get("label", "")).strip()
            if shape.tag == "tag" and label:
                yield Told(names, file, label=label)
                continue
            try:
                corners = _corners(shape)
                if corners is None:
                    damage.add(NOT_READ, where)
                elif not label:
                    raise ValueError("has no label")
                else:
                    yield Told(names, file, boxes=(around(label, corners),), size=size)
            except ValueError as error:
                damage.add("bad label", f"{where}: {error}")


def _corners(shape: Element) -> list[Point] | None:
    """Return points of the shape's edge; None if it has no area."""

    def of(name: str) -> float:
        return number(shape.get(name))

    angle = number(shape.get("rotation", "0"))
    if shape.tag == "box":
        x0, y0, x1, y1 = (of(name) for name in ("xtl", "ytl", "xbr", "ybr"))
        return turned(rectangle(x0, y0, x1, y1), ((x0 + x1) / 2, (y0 + y1) / 2), angle)
    if shape.tag == "polygon":
        pairs = (point.split(",") for point in shape.get("points", "").split(";") if point)
        return [(number(x), number(y)) for x, y in pairs]
    if shape.tag == "mask":
        left, top, width, height = (of(name) for name in ("left", "top", "width", "height"))
        return rectangle(left, top, left + width, top + height)
    if shape.tag == "ellipse" and not angle:
        x, y, across, down = (of(name) for name in ("cx", "cy", "rx", "ry"))
        return rectangle(x - across, y - down, x + across, y + down)
    return None


def _size(image: Element, side: str) -> int:
    text = image.get(side, "").strip()
    return int(text) if text.isdecimal() and len(text) < 9 else 0
