"""Pascal VOC: an XML file for each picture, as labelImg, CVAT and Roboflow write them."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from edge_agent.data.label_formats.annotations.told import Told
from edge_agent.data.label_formats.annotations.xml import read_xml
from edge_agent.data.label_formats.data_set import clean_text
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def told_by_voc(path: Path, file: str, damage: DamageLog) -> Iterator[Told] | None:
    """Return what a VOC file says; None if it is another XML file.

    The picture of the file's own name counts more than the one that it names: people rename both
    and leave the text as it is. Corners are taken as written, in pixels.

    Args:
        path: the file.
        file: its name in the data set.
        damage: gets the objects whose box cannot be read.

    Raises:
        FrameError: it is no whole XML file.
    """
    root = read_xml(path, path.name)
    return iter([_told(root, file, damage)]) if root.tag == "annotation" else None


def _told(root: Element, file: str, damage: DamageLog) -> Told:
    own = PurePosixPath(file).with_suffix("").as_posix()
    named = (root.findtext("filename") or "").strip()
    boxes: list[Box] = []
    for number, item in enumerate(root.iterfind("object"), start=1):
        try:
            boxes.append(_box(item))
        except ValueError as error:
            damage.add("bad label", f"{file}, object {number}: {error}")
    size = _size(root, "width"), _size(root, "height")
    names, seen = (own, named) if named else (own,), root.find("object") is None
    return Told(names, file, boxes=tuple(boxes), size=size, seen=seen)


def _box(item: Element) -> Box:
    label = clean_text(item.findtext("name") or "").strip()
    corners = [_number(item.findtext(f"bndbox/{corner}")) for corner in _CORNERS]
    if not label:
        raise ValueError("has no name")
    x0, y0, x1, y1 = corners
    return Box(label=label, x0=x0, y0=y0, x1=x1, y1=y1)


def _number(text: str | None) -> float:
    if text is None:
        raise ValueError(f"has no bndbox with {', '.join(_CORNERS)}")
    return float(text)


def _size(root: Element, side: str) -> int:
    text = (root.findtext(f"size/{side}") or "").strip()
    return int(text) if text.isdecimal() and len(text) < 9 else 0
