"""What COCO's JSON files say, image by image, in 50 bytes a box."""

import re
from array import array
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_agent.data.label_formats.coco.outline import outline_corners
from edge_agent.data.label_formats.data_set import clean_text
from edge_agent.data.label_formats.exact_numbers import coco_corners
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.json_stream import read_members
from fleet_model.types import Box

_BOX, _CROWD, _WHOLE = range(3)  # what an annotation is: it may name a picture as a whole
_COUNT = re.compile(r"0|[1-9][0-9]{0,17}")
_NOWHERE = (0.0, 0.0, 0.0, 0.0)


class Picture(NamedTuple):
    """One entry of "images"; what other tools do not write is "" or None."""

    file_name: str
    label: str = ""
    seen: bool | None = None
    stamp_ns: int | None = None
    topic: str = ""
    source: str = ""
    size: tuple[int, int] = (0, 0)  # width and height; 0 is not known


class CocoIndex:
    """One JSON file.

    An annotation with a box or an outline is a box; one without either names its whole picture.
    Crowds are left out and counted, as long as anything is none: where everything is marked as a
    crowd, the mark says nothing, and CVAT marks every mask so.
    """

    _is_whole = False  # whether it was read to its end

    def __init__(self, path: Path, where: str, damage: DamageLog) -> None:
        """Read the file, called `where` in `damage`, which gets what of it is damaged."""
        self._name, self._damage = where, damage
        self._labels: dict[Any, str] = {}  # category id -> name
        self._pictures: dict[Any, Picture] = {}  # image id -> picture
        self._image_slots: dict[Any, int] = {}  # as annotations name them -> number
        self._class_slots: dict[Any, int] = {}
        self._slots, self._classes, self._corners = array("q"), array("q"), array("d")
        self._kinds = array("b")
        self._unread: set[Any] = set()  # ids of images with annotations that cannot be read
        self._read(path)
        self._sort()

    def pictures(self) -> Mapping[Any, Picture]:
        """Return image id -> picture, in the file's order."""
        return self._pictures

    def boxes(self, image_id: Any) -> tuple[Box, ...]:
        """Return the boxes of an image, in the file's order."""
        found = []
        for at in self._annotations(image_id):
            label = self._class_names[self._classes[at]]
            if label is not None and self._kinds[at] in self._box_kinds:
                x0, y0, x1, y1 = self._corners[4 * at : 4 * at + 4]
                found.append(Box(label=label, x0=x0, y0=y0, x1=x1, y1=y1))
        return tuple(found)

    def labels(self, image_id: Any) -> set[str]:
        """Return what annotations without a place say about an image."""
        named = (at for at in self._annotations(image_id) if self._kinds[at] == _WHOLE)
        found = {self._class_names[self._classes[at]] for at in named}
        return {label for label in found if label}

    def says_nothing_in(self, image_id: Any) -> bool:
        """Return whether it says that an image without boxes shows nothing.

        A file that names pictures as a whole says nothing about things in them, and neither does
        one that was cut. What cannot be read, a crowd or an unknown class is something.
        """
        picture = self._pictures[image_id]
        if picture.seen is not None:
            return picture.seen
        if not self._is_whole or not self._tells_boxes or image_id in self._unread:
            return False
        return not picture.label and not self._annotations(image_id)

    def _annotations(self, image_id: Any) -> list[int]:
        slot = self._image_slots.get(image_id)
        if slot is None:
            return []
        first, last = np.searchsorted(self._sorted, [slot, slot + 1])
        found: list[int] = self._order[first:last].tolist()
        return found

    def _read(self, path: Path) -> None:
        readers = {
            "images": self._add_picture,
            "annotations": self._add_annotation,
            "categories": self._add_category,
        }
        try:
            for key, item in read_members(path, self._name):
                if key not in readers:
                    continue
                try:
                    readers[key](item)
                except ValueError as error:
                    known = item.get("id") if isinstance(item, dict) else item
                    self._damage.add("bad label", f"{self._name}: {key} {str(known)[:40]}: {error}")
                    if key == "annotations":
                        with suppress(ValueError):
                            self._unread.add(_id(item, "image_id"))
            self._is_whole = True
        except FrameError as error:
            self._damage.add(error.reason, str(error))

    def _add_picture(self, item: Any) -> None:
        stamp, seen = _field(item, "stamp_ns", None), _field(item, "seen", None)
        self._pictures[_id(item, "id")] = Picture(
            file_name=_text(item, "file_name"),
            label=clean_text(_text(item, "label", "")),
            seen=seen if isinstance(seen, bool) else None,
            stamp_ns=stamp if isinstance(stamp, int) and abs(stamp) < 2**63 else None,
            topic=_text(item, "topic", ""),
            source=_text(item, "source", ""),
            size=(_pixels(item.get("width")), _pixels(item.get("height"))),
        )

    def _add_category(self, item: Any) -> None:
        self._labels[_id(item, "id")] = clean_text(_text(item, "name"))

    def _add_annotation(self, item: Any) -> None:
        image_id, category_id = _id(item, "image_id"), _id(item, "category_id")
        numbers = item.get("bbox") or outline_corners(item.get("segmentation"))
        kind, corners = _WHOLE, _NOWHERE
        if numbers is not None:
            if not isinstance(numbers, list | tuple) or len(numbers) != 4:
                raise ValueError("the bbox is not x, y, width, height")
            corners = coco_corners(numbers)
            kind = _CROWD if item.get("iscrowd") in (1, True) else _BOX
        self._slots.append(self._image_slots.setdefault(image_id, len(self._image_slots)))
        self._classes.append(self._class_slots.setdefault(category_id, len(self._class_slots)))
        self._corners.extend(corners)
        self._kinds.append(kind)

    def _sort(self) -> None:
        slots, kinds = np.array(self._slots, np.int64), np.array(self._kinds, np.int8)
        self._order = np.argsort(slots, kind="stable")
        self._sorted = slots[self._order]
        self._class_names = [self._labels.get(category) for category in self._class_slots]
        self._tells_boxes = not len(kinds) or bool(np.any(kinds != _WHOLE))
        crowds = np.count_nonzero(kinds == _CROWD)
        self._box_kinds = {_BOX, _CROWD} if crowds == len(kinds) else {_BOX}
        if crowds and _CROWD not in self._box_kinds:
            self._damage.add("crowd left out", f"{self._name}: iscrowd", int(crowds))
        counts = np.bincount(np.array(self._classes, np.int64), minlength=len(self._class_slots))
        for category, count in zip(self._class_slots, counts, strict=True):
            if category not in self._labels:
                what = f"{self._name}: category {str(category)[:40]}"
                self._damage.add("unknown class", what, int(count))
        for image_id in self._image_slots:
            if image_id not in self._pictures:
                what = f"{self._name}: image {str(image_id)[:40]}"
                self._damage.add("unknown image", what, len(self._annotations(image_id)))


def _field(item: Any, key: str, *otherwise: Any) -> Any:
    if not isinstance(item, dict):
        raise ValueError("expected an object")
    if key not in item and not otherwise:
        raise ValueError(f"has no {key}")
    return item.get(key, *otherwise)


def _pixels(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value < 2**31 else 0


def _id(item: Any, key: str) -> int | str | Decimal:
    value = _field(item, key)
    if isinstance(value, str) and _COUNT.fullmatch(value):
        return int(value)  # some tools write "1" in one place and 1 in the other
    if isinstance(value, int | str | Decimal):
        return value
    raise ValueError(f"the {key} is neither a number nor a text")


def _text(item: Any, key: str, *otherwise: str) -> str:
    value = _field(item, key, *otherwise)
    if not isinstance(value, str):
        raise ValueError(f"the {key} is no text")
    return value
