"""COCO: one JSON file with images, categories and boxes as x, y, width, height in pixels."""

import json
import mmap
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from edge_agent.data.frames.folder import image_names
from edge_agent.data.frames.source import FrameFacts
from edge_agent.data.label_formats.coco.index import CocoIndex, Picture
from edge_agent.data.label_formats.data_set import LabelledEntry
from edge_agent.data.label_formats.exact_numbers import coco_numbers
from edge_agent.data.label_formats.image_finder import Written, find_images
from edge_agent.data.label_formats.image_rows import (
    ImageRow,
    entry_of,
    image_rows,
    mark_of,
    sized_boxes,
)
from edge_agent.data.label_formats.marks import Mark, is_seen
from edge_agent.data.label_formats.picture_size import class_names, size_of
from edge_agent.data.manifest import ManifestRow
from fleet_model.durable import writing
from fleet_model.files.damage import DamageLog
from fleet_model.files.text import encoding_of
from fleet_model.types import Box

_ANNOTATIONS = "annotations/instances.json"
_INSTANCES = "instances"  # keypoints_*.json repeat the boxes of instances_*.json
_KEYS = ("images", "annotations", "categories")  # without the last one it has captions
_MOST_FILES = 100  # of JSON in a folder; more are one for each picture, and nothing of COCO's


class CocoFormat:
    """Reads one or several JSON files: boxes, else those around outlines, else whole pictures.

    In an image that is listed without annotations nothing is; one that is not listed nobody has
    looked at.
    """

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
        images = image_names(root, damage)
        known = _known_images(root, _json_files(path), images, damage)
        names = [*known, *images] if path.is_dir() else list(known)
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
    with os.scandir(path) as entries:
        inner = sorted(path / entry.name for entry in entries if entry.is_dir())
    below = (place for folder in inner for place in (folder, folder / "annotations"))
    folders = dict.fromkeys((path / "annotations", path, *below))
    found = [file for folder in folders if folder.is_dir() for file in _json_files_in(folder)]
    return [file for file in found if file.name.startswith(_INSTANCES)] or found


def _json_files_in(folder: Path) -> list[Path]:
    files = [file for file in sorted(folder.glob("*.json")) if not file.name.startswith(".")]
    return [file for file in files if _looks_right(file)] if len(files) <= _MOST_FILES else []


def _looks_right(file: Path) -> bool:
    """Return whether a file holds two of COCO's keys, wherever: LVIS has annotations first."""
    with file.open("rb") as stream:
        encoding = encoding_of(stream.read(4))
        stream.seek(0)
        start = stream.read(64).decode(encoding, "replace")
        if not start.lstrip("\ufeff \t\r\n").startswith("{"):
            return False
        with mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as content:
            images, annotations, categories, bbox = (
                content.find(_spelled(key, encoding)) >= 0 for key in (*_KEYS, "bbox")
            )
    return images + annotations + categories >= 2 and (categories or bbox)


def _spelled(key: str, encoding: str) -> bytes:
    """Return the bytes of a key; in UTF-16 without the outermost zero, in either order."""
    text = f'"{key}"'
    return text.encode("utf-16-le")[:-1] if encoding.startswith("utf-16") else text.encode()


def _known_images(
    root: Path, files: Iterable[Path], images: list[str], damage: DamageLog
) -> Mapping[str, tuple[_Listed, ...]]:
    """Return image name -> where it is listed; the same image may be in several files."""
    known: dict[str, tuple[_Listed, ...]] = {}
    for file in files:
        name = file.relative_to(root).as_posix()
        where = f"{root.name}/{name}"
        index = CocoIndex(file, where, damage)
        pictures = index.pictures()
        names = find_images(images, (Written(each.file_name, name) for each in pictures.values()))
        for image_id, picture in pictures.items():
            image = names.get(Written(picture.file_name, name))
            if image is None:
                bare = picture.file_name.replace("\\", "/").rpartition("/")[2][:80]
                damage.add("unknown image", f"{where}: {bare!r}")
            else:
                known[image] = (*known.get(image, ()), _Listed(index, image_id, picture))
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
            seen=_says_nothing(listed),
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
    told, sound = list[Box](), list[Box]()
    for one in listed:
        boxes = one.file.boxes(one.image_id)
        told += boxes
        sound += sized_boxes(boxes, one.picture.size, facts, where, damage)
    labels = {each.picture.label for each in listed} - {""}
    labels = labels or {label for each in listed for label in each.file.labels(each.image_id)}
    if len(labels) > 1:
        damage.add("several labels", f"{where}: {', '.join(sorted(labels))[:80]}")
    label = labels.pop() if len(labels) == 1 else ""
    seen = is_seen(told, sound, _says_nothing(listed))
    return mark_of(tuple(sound), image.row, label, seen=seen)


def _boxes(listed: Iterable[_Listed]) -> tuple[Box, ...]:
    return tuple(box for position in listed for box in position.file.boxes(position.image_id))


def _says_nothing(listed: tuple[_Listed, ...]) -> bool:
    """Return whether the JSON files say that nothing is in an image without boxes."""
    return bool(listed) and all(each.file.says_nothing_in(each.image_id) for each in listed)


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
        seen=row.seen,
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
