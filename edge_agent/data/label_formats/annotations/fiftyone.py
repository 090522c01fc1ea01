"""FiftyOne: samples.json of a FiftyOneDataset, labels.json of others; corners are shares."""

from collections.abc import Iterator, Mapping
from typing import Any

from edge_agent.data.label_formats.annotations.shapes import (
    NOT_READ,
    around,
    number,
    points,
    rectangle,
)
from edge_agent.data.label_formats.annotations.told import Told
from edge_agent.data.label_formats.data_set import clean_text
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

_TRUTH = "ground_truth"


def told_by_fiftyone(content: Any, file: str, damage: DamageLog) -> Iterator[Told] | None:
    """Return what a samples.json or labels.json says; None if it is neither.

    Raises:
        FrameError: its samples have several fields with labels, none of them "ground_truth".
    """
    if not isinstance(content, dict):
        return None
    samples, labels = content.get("samples"), content.get("labels")
    if isinstance(samples, list) and all(isinstance(s, dict) and "filepath" in s for s in samples):
        return _told_by_samples(samples, _field_of(samples), file, damage)
    if isinstance(labels, dict) and set(content) <= {"classes", "labels"}:
        classes = content.get("classes") or []
        return _told_by_labels(labels, classes, file, damage)
    return None


def _field_of(samples: list[Any]) -> str:
    fields = {
        key for sample in samples for key, value in sample.items()
        if isinstance(value, dict) and "_cls" in value and key != "metadata"
    }  # fmt: skip
    if _TRUTH in fields or not fields:
        return _TRUTH
    if len(fields) > 1:
        listed = ", ".join(sorted(fields))[:80]
        raise FrameError(f"several fields have labels: {listed}; export one", "bad label file")
    return str(fields.pop())


def _told_by_samples(
    samples: list[Any], field: str, file: str, damage: DamageLog
) -> Iterator[Told]:
    for count, sample in enumerate(samples, start=1):
        names, value = (str(sample["filepath"]),), sample.get(field)
        if not isinstance(value, dict):
            continue  # nobody has labelled it
        where = f"{file}, sample {count}"
        if value.get("_cls") == "Classification":
            listed = [value]
        else:
            listed = value.get("detections") or value.get("polylines") or []
            listed = listed if isinstance(listed, list) else [listed]
        yield Told(names, file, seen=not listed)
        yield from _told_by_each(listed, (), names, file, where, damage)


def _told_by_labels(
    labels: Mapping[str, Any], classes: Any, file: str, damage: DamageLog
) -> Iterator[Told]:
    for name, value in labels.items():
        if value is None:
            continue
        yield Told((name,), file, seen=value == [])
        listed = value if isinstance(value, list) else [value]
        where = f"{file}, {name[:40]}"
        yield from _told_by_each(listed, classes, (name,), file, where, damage)


def _told_by_each(
    listed: list[Any],
    classes: Any,
    names: tuple[str, ...],
    file: str,
    where: str,
    damage: DamageLog,
) -> Iterator[Told]:
    for each in listed:
        item = each if isinstance(each, dict) else {"label": each}
        try:
            label, box = _label(item.get("label"), classes), _box(item)
        except ValueError as error:
            damage.add("bad label", f"{where}: {error}")
            continue
        if box is not None:
            yield Told(names, file, boxes=(around(label, box),), shares=True)
        elif item.get("_cls", "Classification") == "Classification":
            yield Told(names, file, label=label)
        else:
            damage.add(NOT_READ, f"{where}: {str(item['_cls'])[:20]}")


def _label(value: Any, classes: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and isinstance(classes, list):
        value = classes[value] if 0 <= value < len(classes) else None
    if not isinstance(value, str) or not value:
        raise ValueError("has no label")
    return clean_text(value)


def _box(item: Mapping[str, Any]) -> list[tuple[float, float]] | None:
    """Return points of the edge as shares of the picture."""
    if isinstance(item.get("points"), list):
        return [corner for outline in item["points"] for corner in points(outline)]
    listed = item.get("bounding_box")
    if listed is None:
        return None
    if not isinstance(listed, list) or len(listed) != 4:
        raise ValueError("its bounding_box is not x, y, width, height")
    x, y, width, height = map(number, listed)
    return rectangle(x, y, x + width, y + height)
