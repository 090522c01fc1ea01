"""Labels in a CSV file: `stamp_ns,label[,x0,y0,x1,y1]` or `file,label[,x0,y0,x1,y1]`.

A frame has one line, or one for each box. A line without numbers names the frame as a whole; its
label wins over the largest box's. A manifest.csv is such a table too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.label_formats.data_set import clean_text, largest_label
from edge_agent.data.manifest import boxes_of, read_table
from fleet_model.errors import FrameError
from fleet_model.types import Box

_CORNERS = ("x0", "y0", "x1", "y1")


class Labels(NamedTuple):
    """What a table says about one frame."""

    label: str  # the frame's own, else the largest box's
    boxes: tuple[Box, ...]
    topic: str = ""  # "" says nothing about the topic


@dataclass(slots=True)
class _Lines:
    label: str = ""
    topic: str = ""
    boxes: list[Box] = field(default_factory=list)


def labels_by_file(path: Path, damage: DamageLog) -> dict[str, Labels]:
    """Return the labels of a table with the column `file`; raises FrameError as `read_table`."""
    grouped: dict[str, _Lines] = {}
    for where, cells in _lines(path, "file", damage):
        _note(grouped.setdefault(cells["file"], _Lines()), cells, where, damage)
    return {name: _labels(lines) for name, lines in grouped.items()}


def labels_by_stamp(path: Path, damage: DamageLog) -> Iterator[tuple[int, Labels]]:
    """Yield (stamp in ns, labels) of a table with the column `stamp_ns`, in its order.

    Raises:
        FrameError: as `read_table`.
    """
    grouped: dict[tuple[int, str], _Lines] = {}
    for where, cells in _lines(path, "stamp_ns", damage):
        try:
            key = int(cells["stamp_ns"]), cells.get("topic", "")
        except ValueError:
            damage.add("bad label line", f"{where}: the stamp {cells['stamp_ns'][:40]!r}")
            continue
        _note(grouped.setdefault(key, _Lines(topic=key[1])), cells, where, damage)
    for (stamp_ns, _), lines in grouped.items():
        yield stamp_ns, _labels(lines)


def names_files(path: Path) -> bool:
    """Return whether a table names its frames by file and not by stamp; raises FrameError."""
    try:
        with path.open("rb") as stream:
            first = stream.readline(1 << 12).decode(errors="replace")
    except OSError as error:
        raise FrameError(f"{path.name}: {error.strerror}") from None
    columns = [cell.strip(' "\ufeff\r\n').lower() for cell in first.split(",")]
    return "file" in columns and "stamp_ns" not in columns


def _lines(path: Path, key: str, damage: DamageLog) -> Iterator[tuple[str, Mapping[str, str]]]:
    for line, cells in read_table(path, (key, "label"), damage):
        where = f"{path.name} line {line}"
        if "label" in cells:
            yield where, cells
        else:
            damage.add("bad label line", f"{where}: too few cells")


def _note(lines: _Lines, cells: Mapping[str, str], where: str, damage: DamageLog) -> None:
    label = clean_text(cells["label"]).strip()
    try:
        lines.boxes.extend(boxes_of(cells.get("boxes", "")))
        corners = [float(cells[name]) for name in _CORNERS if cells.get(name, "").strip()]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        damage.add("bad label line", f"{where}: {error}")
        return
    if not corners:
        lines.label = label
    elif len(corners) == len(_CORNERS):
        x0, y0, x1, y1 = corners
        lines.boxes.append(Box(label=label, x0=x0, y0=y0, x1=x1, y1=y1))
    else:
        damage.add("bad label line", f"{where}: {len(corners)} of {len(_CORNERS)} corners")


def _labels(lines: _Lines) -> Labels:
    return Labels(lines.label or largest_label(lines.boxes), tuple(lines.boxes), lines.topic)
