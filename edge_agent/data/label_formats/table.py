"""Labels in a CSV file: `stamp_ns,label[,x0,y0,x1,y1]` or `file,label[,x0,y0,x1,y1]`.

A frame has one line, or one for each box. A line without numbers names the frame as a whole; its
label wins over the largest box's. In a table of boxes, a line without label and numbers says that
nothing is in the frame. A manifest.csv is such a table too. Columns may be called as Roboflow,
TensorFlow and others call them: filename, class, xmin.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge_agent.data.label_formats.annotations.told import Told
from edge_agent.data.label_formats.data_set import clean_text, largest_label
from edge_agent.data.label_formats.marks import Mark
from edge_agent.data.manifest import boxes_of, columns_of, read_table
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

BY_FILE = "file,label[,x0,y0,x1,y1]"
BY_STAMP = "stamp_ns,label[,x0,y0,x1,y1]"
_CORNERS = ("x0", "y0", "x1", "y1")
# As others call the columns, the first that is there; of the corners all four.
_FILE = ("file", "filename", "file_name", "image_path", "image", "image_name", "path", "file_path")
_LABEL = ("label", "class_name", "label_name", "category_name", "class", "category")
_CORNER_NAMES = (
    _CORNERS,
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)
# A table with these has boxes, but nothing says whether x is a corner or the center.
_UNCLEAR = {name for names in _CORNER_NAMES for name in names} | {
    *("x", "y", "w", "h", "cx", "cy", "x_center", "y_center", "xcenter", "ycenter"),
    *("bbox", "box", "bbox_x", "bbox_y", "points", "segmentation", "region_shape_attributes"),
}


class Labels(NamedTuple):
    """What a table says about the frame of one moment."""

    mark: Mark  # its label is the frame's own, else the largest box's
    topic: str = ""  # "" says nothing about the topic


@dataclass(slots=True)
class _Lines:
    label: str = ""
    topic: str = ""
    boxes: list[Box] = field(default_factory=list)
    seen: bool = False


def told_by_table(path: Path, file: str, damage: DamageLog) -> Iterator[Told]:
    """Yield what a table with the columns file and label says, line by line.

    Args:
        path: the table.
        file: its name in the data set.
        damage: gets the lines that say nothing.

    Raises:
        FrameError: as `read_table`.
    """
    for line, cells in read_table(path, ("file", "label"), damage, renamed):
        where = f"{path.name} line {line}"
        found = _labels_of(cells, where, damage)
        if found:
            size = _whole(cells.get("width", "")), _whole(cells.get("height", ""))
            yield Told(
                (cells["file"],), file, line, found.label, found.boxes, size, seen=found.seen
            )


def labels_by_stamp(path: Path, damage: DamageLog) -> Iterator[tuple[int, Labels]]:
    """Yield (stamp in ns, labels) of a table with the column `stamp_ns`, in its order.

    Raises:
        FrameError: as `read_table`.
    """
    grouped: dict[tuple[int, str], _Lines] = {}
    for line, cells in read_table(path, ("stamp_ns", "label"), damage, renamed):
        where = f"{path.name} line {line}"
        found = _labels_of(cells, where, damage)
        if not found:
            continue
        try:
            key = int(cells["stamp_ns"]), cells.get("topic", "")
        except ValueError:
            damage.add("bad label line", f"{where}: the stamp {cells['stamp_ns'][:40]!r}")
            continue
        lines = grouped.setdefault(key, _Lines(topic=key[1]))
        lines.boxes.extend(found.boxes)
        lines.seen = lines.seen or found.seen
        if found.label or not found.boxes:
            lines.label = found.label
    for (stamp_ns, _), lines in grouped.items():
        label = lines.label or largest_label(lines.boxes)
        yield stamp_ns, Labels(Mark(label, tuple(lines.boxes), lines.seen), lines.topic)


def names_files(path: Path) -> bool:
    """Return whether a table names its frames by file and not by stamp; raises FrameError."""
    columns = renamed(columns_of(path))
    return "file" in columns and "stamp_ns" not in columns


def renamed(columns: list[str]) -> list[str]:
    """Return columns by their names here; those of boxes stay only where they can be understood.

    Raises:
        FrameError: there are boxes whose numbers may mean several things.
    """
    names: dict[str, str] = {}
    for ours, others in (("file", _FILE), ("label", _LABEL)):
        there = next((name for name in others if name in columns), ours)
        names[there] = ours
    corners = next((four for four in _CORNER_NAMES if set(four) <= set(columns)), ())
    names.update(zip(corners, _CORNERS, strict=False))
    found = [names.get(name, "" if name in names.values() else name) for name in columns]
    unclear = [name for name in columns if name in _UNCLEAR and name not in corners]
    holds_labels = "label" in found and ("file" in found or "stamp_ns" in found)
    if holds_labels and unclear and not corners:
        raise FrameError(
            f"nobody says what its columns {', '.join(unclear)} mean; expected "
            f"{', '.join(_CORNERS)}: left, top, right and bottom in pixels",
            "bad label file",
        )
    return found


def _labels_of(cells: Mapping[str, str], where: str, damage: DamageLog) -> Mark | None:
    """Return the label of the whole frame and the boxes; None where the line says neither."""
    if "label" not in cells:
        damage.add("bad label line", f"{where}: too few cells")
        return None
    label = clean_text(cells["label"]).strip()
    try:
        boxes = boxes_of(cells.get("boxes", ""))
        corners = [_number(cells[name]) for name in _CORNERS if cells.get(name, "").strip()]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        damage.add("bad label line", f"{where}: {error}")
        return None
    if not corners:
        says_nothing = not label and any(name in cells for name in _CORNERS)
        return Mark(label, boxes, says_nothing or bool(cells.get("boxes")))
    if len(corners) != len(_CORNERS):
        damage.add("bad label line", f"{where}: {len(corners)} of {len(_CORNERS)} corners")
        return None
    if all(0 <= corner <= 1 for corner in corners) and set(corners) - {0, 1}:
        damage.add("bad label line", f"{where}: corners are shares of the picture, not pixels")
        return None
    x0, y0, x1, y1 = corners
    return Mark("", (*boxes, Box(label=label, x0=x0, y0=y0, x1=x1, y1=y1)))


def _number(cell: str) -> float:
    """Return a number; a comma in it is a decimal point, as spreadsheets in Europe write it."""
    return float(cell.replace(",", "."))


def _whole(cell: str) -> int:
    return int(cell) if cell.strip().isdecimal() and len(cell) < 9 else 0
