"""What a model finds, as COCO's tools read it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_agent.data.extraction.files import FrameNames
from edge_agent.data.frames.source import IMAGE_SUFFIXES, FrameFacts
from fleet_model.types import Box, Prediction

_SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", "bmp": ".bmp", "tiff": ".tiff"}  # else it is a PNG


def pictures_file(results: Path) -> Path:
    """Return the file beside the results that says which picture each number is."""
    return results.with_name(f"{results.stem}.images.json")


class CocoResults:
    """Collects boxes and pictures. pycocotools reads them as `COCO(pictures).loadRes(results)`."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Number the classes from 1, as data sets that are written here."""
        self._ids = {name: number for number, name in enumerate(classes, start=1)}
        self._names = FrameNames()
        self._pictures: list[dict[str, Any]] = []
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def add(
        self,
        frame: FrameFacts,
        size: tuple[int, int],
        found: Sequence[Prediction],
        truth: Sequence[Box],
        *,
        seen: bool,
    ) -> None:
        """Add one picture.

        Args:
            frame: where it comes from. An image keeps its name; another one has that which
                `extract` gives it.
            size: width and height, pixels.
            found: all of it: what is unsure matters in a ranking.
            truth: where it is known; boxes of classes that the model lacks are left out.
            seen: whether the truth is known: then no boxes means that nothing is there.
        """
        number = len(self._pictures) + 1
        self._pictures.append(
            {
                "id": number,
                "file_name": self._name(frame),
                "width": size[0],
                "height": size[1],
                "seen": seen,
                "stamp_ns": frame.stamp_ns,
                "topic": frame.topic,
                "source": frame.source,
            }
        )
        for one in found:
            if one.box is not None:
                self._found.append({**self._box(number, one.label, one.box), "score": one.score})
        for box in truth:
            if box.label in self._ids:
                place = self._box(number, box.label, (box.x0, box.y0, box.x1, box.y1))
                area = place["bbox"][2] * place["bbox"][3]
                # pycocotools takes a box with the number 0 for one that nothing matches.
                entry = {"id": len(self._truth) + 1, **place, "area": area, "iscrowd": 0}
                self._truth.append(entry)

    def results(self) -> bytes:
        """Return the JSON of COCO's results: image_id, category_id, bbox (x, y, w, h), score."""
        return _lines(self._found)

    def pictures(self) -> bytes:
        """Return the JSON of the data set that the numbers in the results belong to."""
        classes = [{"id": number, "name": name} for name, number in self._ids.items()]
        parts = {"images": self._pictures, "categories": classes, "annotations": self._truth}
        members = [f'"{name}": '.encode() + _lines(items) for name, items in parts.items()]
        return b"{" + b",\n".join(members) + b"}\n"

    def _name(self, frame: FrameFacts) -> str:
        if frame.topic.lower().endswith(IMAGE_SUFFIXES):
            return frame.topic
        suffix = _SUFFIXES.get(getattr(frame, "format", ""), ".png")
        return self._names.name(frame.source, frame.topic, frame.stamp_ns) + suffix

    def _box(
        self, number: int, label: str, corners: tuple[float, float, float, float]
    ) -> dict[str, Any]:
        x0, y0, x1, y1 = corners
        kind = self._ids.setdefault(label, len(self._ids) + 1)
        where = {"image_id": number, "category_id": kind}
        return where | {"bbox": [x0, y0, x1 - x0, y1 - y0]}


def _lines(items: Sequence[Any]) -> bytes:
    """Return a JSON list with an item a line."""
    return b"[\n" + b",\n".join(json.dumps(one).encode() for one in items) + b"\n]"
