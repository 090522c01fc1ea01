"""COCO: one JSON file with images, categories and boxes as x, y, width, height in pixels."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.frames.folder import image_names
from edge_agent.data.frames.source import FrameFacts
from edge_agent.data.label_formats.coco.index import CocoIndex, ImageFinder, Picture
from edge_agent.data.label_formats.data_set import LabelledEntry
from edge_agent.data.label_formats.exact_numbers import coco_numbers
from edge_agent.data.label_formats.image_rows import (
    ImageRow,
    entry_of,
    image_rows,
    mark_of,
    sound_boxes,
)
from edge_agent.data.label_formats.marks import Mark
from edge_agent.data.label_formats.picture_size import class_names, size_of
from edge_agent.data.manifest import ManifestRow
from fleet_model.durable import writing
from fleet_model.errors import FrameError
from fleet_model.types import Box

_ANNOTATIONS = "annotations/instances.json"
_INSTANCES = "instances"  # keypoints_*.json repeat the boxes of instances_*.json
_ROBOFLOW = "_annotations.coco.json"
_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_BOX_KEYS = (b'"categories"', b'"bbox"')  # without one of them it has captions
_LOOKED_AT = 1 << 16  # bytes of a JSON file that may be COCO's


class CocoFormat:
    """Reads one or several JSON files; crowds and outlines are left out, only boxes are read."""

    embeds_images = False
    holds_boxes_only = True

    def recognizes(self, path: Path) -> bool:
        """Return whether there is a JSON file that looks like COCO's."""
        return bool(_json_files(path))

    def entries(self, path: Path, damage: DamageLog) -> Iterator[LabelledEntry]:
        """Yield the images that the JSON files list, then the others; see DataSetFormat."""
        path = path.resolve()
        root = path if path.is_dir() else path.parent
        if path.is_file() and root.name == "annotations":
            root = root.parent
        known = _known_images(root, _json_files(path), damage)
        names = [*known, *image_names(root, damage)] if path.is_dir() else list(known)
        for image in image_rows(root, names, damage):
            listed = known.get(image.name, ())
            told = _told(image, listed) if listed and image.row is None else image
            mark = partial(_mark, root, told, listed, damage)
            topic = image.row.topic if image.row else ""
            yield entry_of(root, told, mark)._replace(topic=topic)

    def path_of(self, row: ManifestRow) -> str:
        """Return images/name."""
        return f"images/{row.file}"

    def finish(self, out: Path, rows: Iterable[ManifestRow]) -> None:
        """Write annotations/instances.json; ids are counted from 1."""
        names = class_names(rows)
        with writing(out / _ANNOTATIONS) as stream:
            stream.write(b'{\n"info": {"description": "camera frames of a robot"},\n"images": [')
            _write_items(stream, (_image_text(out, i, row) for i, row in enumerate(rows, start=1)))
            stream.write(b'],\n"annotations": [')
            _write_items(stream, _annotation_texts(rows, names))
            stream.write(b'],\n"categories": [')
            _write_items(stream, (_json(id=i, name=n) for i, n in enumerate(names, start=1)))
            stream.write(b"]\n}\n")


class _Listed(NamedTuple):
    file: CocoIndex
    image_id: Any
    picture: Picture


def _json_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".json" and _looks_right(path) else []
    if not path.is_dir():
        return []
    positions = (path / "annotations", path)
    found = [
        file
        for position in positions
        if position.is_dir()
        for file in sorted(position.glob("*.json"))
    ]
    found += sorted(path.glob(f"*/{_ROBOFLOW}"))
    found = [file for file in found if not file.name.startswith(".") and _looks_right(file)]
    return [file for file in found if file.name.startswith(_INSTANCES)] or found


def _looks_right(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(_LOOKED_AT)
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - _LOOKED_AT))
        text = start + stream.read(_LOOKED_AT)
    begins = start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    has_boxes = any(key in text for key in _BOX_KEYS)
    return begins and has_boxes and sum(key in text for key in _KEYS) >= 2


def _known_images(
    root: Path, files: Iterable[Path], damage: DamageLog
) -> Mapping[str, tuple[_Listed, ...]]:
    """Return image name -> where it is listed; the same image may be in several files."""
    known: dict[str, tuple[_Listed, ...]] = {}
    for file in files:
        index, finder = CocoIndex(file, damage), ImageFinder(root, file)
        for image_id, picture in index.pictures().items():
            try:
                name = finder.find(picture.file_name)
            except FrameError as error:
                damage.add(error.reason, f"{error}, in {file.name}")
            else:
                known[name] = (*known.get(name, ()), _Listed(index, image_id, picture))
    return known


def _told(image: ImageRow, listed: tuple[_Listed, ...]) -> ImageRow:
    """Return an image that no manifest knows with what the JSON files say about it."""
    picture, row = listed[0].picture, None
    time_ns = image.time_ns if picture.stamp_ns is None else picture.stamp_ns
    if picture.topic or picture.source:
        row = ManifestRow(
            file=image.name,
            topic=picture.topic,
            stamp_ns=time_ns,
            source=picture.source,
            label=picture.label,
            boxes=_boxes(listed),
        )
    return image._replace(time_ns=time_ns, row=row, size=picture.size)


def _mark(
    root: Path,
    image: ImageRow,
    listed: tuple[_Listed, ...],
    damage: DamageLog,
    facts: FrameFacts,
) -> Mark:
    where = f"{root.name}/{image.name}"
    for width, height in {one.picture.size for one in listed if all(one.picture.size)}:
        if facts.width and (width, height) != (facts.width, facts.height):
            is_size = f"{facts.width} x {facts.height}"
            told = f"{where}: has {is_size} pixels, labelled at {width} x {height}"
            damage.add("other picture size", told)
    sound = sound_boxes(_boxes(listed), facts.width, facts.height, where, damage)
    return mark_of(sound, image.row, listed[0].picture.label if listed else "")


def _boxes(listed: Iterable[_Listed]) -> tuple[Box, ...]:
    return tuple(box for position in listed for box in position.file.boxes(position.image_id))


def _write_items(stream: BinaryIO, texts: Iterable[str]) -> None:
    separator = b"\n"
    for text in texts:
        stream.write(separator + text.encode())
        separator = b",\n"


def _image_text(out: Path, number: int, row: ManifestRow) -> str:
    width, height = size_of(out, row)
    return _json(
        id=number,
        file_name=row.file.removeprefix("images/"),
        width=width,
        height=height,
        label=row.label,
        stamp_ns=row.stamp_ns,
        topic=row.topic,
        source=row.source,
    )


def _annotation_texts(rows: Iterable[ManifestRow], names: list[str]) -> Iterator[str]:
    ids = {name: number for number, name in enumerate(names, start=1)}
    number = 0
    for image_id, row in enumerate(rows, start=1):
        for box in row.boxes:
            number += 1
            area = min((box.x1 - box.x0) * (box.y1 - box.y0), sys.float_info.max)
            head = _json(id=number, image_id=image_id, category_id=ids[box.label])
            numbers = ", ".join(coco_numbers(box))
            yield f'{head[:-1]}, "bbox": [{numbers}], "area": {area!r}, "iscrowd": 0}}'


def _json(**fields: str | int) -> str:
    return json.dumps(fields)
