"""What COCO's JSON files say, image by image, in 50 bytes a box."""

import re
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.label_formats.coco.json_stream import read_members
from edge_agent.data.label_formats.data_set import clean_text, inside
from edge_agent.data.label_formats.exact_numbers import coco_corners
from fleet_model.errors import FrameError
from fleet_model.types import Box

_SPLIT = re.compile(r"^(?:instances|annotations|_annotations)?[_.]?(.*?)(?:\.coco)?$")


class Picture(NamedTuple):
    """One entry of "images"; what other tools do not write is "" or None."""

    file_name: str
    label: str = ""
    stamp_ns: int | None = None
    topic: str = ""
    source: str = ""
    size: tuple[int, int] = (0, 0)  # width and height; 0 is not known


class CocoIndex:
    """One JSON file."""

    def __init__(self, path: Path, damage: DamageLog) -> None:
        """Read the file; what of it is damaged is added to `damage`."""
        self._name, self._damage = path.name, damage
        self._labels: dict[Any, str] = {}  # category id -> name
        self._pictures: dict[Any, Picture] = {}  # image id -> picture
        self._image_slots: dict[Any, int] = {}  # as annotations name them -> number
        self._class_slots: dict[Any, int] = {}
        self._slots, self._classes, self._corners = array("q"), array("q"), array("d")
        self._read(path)
        self._sort()

    def pictures(self) -> Mapping[Any, Picture]:
        """Return image id -> picture, in the file's order."""
        return self._pictures

    def boxes(self, image_id: Any) -> tuple[Box, ...]:
        """Return the boxes of an image, in the file's order."""
        slot = self._image_slots.get(image_id)
        if slot is None:
            return ()
        first, last = np.searchsorted(self._sorted, [slot, slot + 1])
        found = []
        for at in self._order[first:last]:
            x0, y0, x1, y1 = self._corners[4 * at : 4 * at + 4]
            label = self._class_names[self._classes[at]]
            if label is not None:
                found.append(Box(label=label, x0=x0, y0=y0, x1=x1, y1=y1))
        return tuple(found)

    def _read(self, path: Path) -> None:
        readers = {
            "images": self._add_picture,
            "annotations": self._add_box,
            "categories": self._add_category,
        }
        try:
            for key, item in read_members(path):
                if key not in readers:
                    continue
                try:
                    readers[key](item)
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    known = item.get("id") if isinstance(item, dict) else item
                    what = f"{self._name}: {key} {str(known)[:40]}: {error!r}"
                    self._damage.add("bad label", what)
        except FrameError as error:
            self._damage.add(error.reason, str(error))

    def _add_picture(self, item: Any) -> None:
        stamp = item.get("stamp_ns")
        self._pictures[item["id"]] = Picture(
            file_name=_text(item["file_name"]),
            label=clean_text(_text(item.get("label", ""))),
            stamp_ns=stamp if isinstance(stamp, int) and abs(stamp) < 2**63 else None,
            topic=_text(item.get("topic", "")),
            source=_text(item.get("source", "")),
            size=(_pixels(item.get("width")), _pixels(item.get("height"))),
        )

    def _add_category(self, item: Any) -> None:
        self._labels[item["id"]] = clean_text(_text(item["name"]))

    def _add_box(self, item: Any) -> None:
        if item.get("iscrowd") in (1, True):
            return
        numbers = item["bbox"]
        if len(numbers) != 4:
            raise ValueError(f"{len(numbers)} numbers in bbox")
        corners = coco_corners(numbers)
        slot = self._image_slots.setdefault(item["image_id"], len(self._image_slots))
        position = self._class_slots.setdefault(item["category_id"], len(self._class_slots))
        self._slots.append(slot)
        self._classes.append(position)
        self._corners.extend(corners)

    def _sort(self) -> None:
        slots = np.array(self._slots, np.int64)
        self._order = np.argsort(slots, kind="stable")
        self._sorted = slots[self._order]
        self._class_names = [self._labels.get(category) for category in self._class_slots]
        counts = np.bincount(np.array(self._classes, np.int64), minlength=len(self._class_slots))
        for category, count in zip(self._class_slots, counts, strict=True):
            if category not in self._labels:
                what = f"{self._name}: category {str(category)[:40]}"
                self._damage.add("unknown class", what, int(count))
        for image_id, slot in self._image_slots.items():
            if image_id not in self._pictures:
                first, last = np.searchsorted(self._sorted, [slot, slot + 1])
                what = f"{self._name}: image {str(image_id)[:40]}"
                self._damage.add("unknown image", what, int(last - first))


class ImageFinder:
    """Finds the images of one JSON file: every tool has another folder for them."""

    def __init__(self, root: Path, annotations: Path) -> None:
        """Keep where to look: beside the file, or in a folder called as its split."""
        self._root = root
        match = _SPLIT.match(annotations.stem)
        split = match[1] if match else ""
        own = annotations.parent.relative_to(root).as_posix() if annotations.parent != root else ""
        folders = [f"images/{split}", split, "images", own, "", "train", "val", "valid", "test"]
        self._folders = list(dict.fromkeys(folder.strip("/") for folder in folders))

    def find(self, file_name: str) -> str:
        """Return the name relative to the root.

        Raises:
            FrameError: there is no such image ("missing file"), or its name leads out.
        """
        inside(self._root, file_name)
        for folder in self._folders:
            name = f"{folder}/{file_name}" if folder else file_name
            if (self._root / name).is_file():
                self._folders.remove(folder)  # the next one most likely lies there too
                self._folders.insert(0, folder)
                return name
        raise FrameError(f"{self._root.name}: no image {file_name[:80]!r}", "missing file")


def _pixels(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value < 2**31 else 0


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value
