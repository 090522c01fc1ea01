"""The table of a data set: one row per frame, exact in both directions as CSV text.

It holds what an image file cannot: topic, stamp, source, label, boxes. Numbers are written as the
shortest text that reads back to the same 64 bits, so a data set that was read and written again
has the same rows. A frame that somebody has looked at and found empty has the boxes `[]`, one that
nobody has looked at has none.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from fleet_model.durable import writing
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.text import text_lines
from fleet_model.types import Box

T = TypeVar("T")
MANIFEST = "manifest.csv"  # at the root of every data set that is written here
COLUMNS = (
    "file",
    "topic",
    "stamp_ns",
    "source",
    "label",
    "sharpness",
    "width",
    "height",
    "boxes",
)
_TO_QUOTE = re.compile(r'[,"\r\n]|^\s|\s$')
_LONGEST_CELL = 1 << 26  # characters; the csv module's own limit holds 1,500 boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One frame of a data set."""

    file: str  # relative to the data set, with "/"; before it is placed only the image's name
    topic: str
    stamp_ns: int
    source: str  # bag or folder that the frame came from
    label: str = ""  # "" where there is none
    sharpness: float | None = None  # None: nobody looked
    width: int = 0  # pixels; 0 is unknown
    height: int = 0
    boxes: tuple[Box, ...] = ()
    seen: bool = False  # somebody has said which things are there: always, where there are boxes

    def __post_init__(self) -> None:
        if self.boxes and not self.seen:
            object.__setattr__(self, "seen", True)


class DataSetManifest:
    """The rows of a manifest.csv; every iteration reads the file again, in constant memory."""

    def __init__(self, path: Path, damage: DamageLog | None = None) -> None:
        """Keep the file's name; nothing is opened yet.

        Args:
            path: the manifest.csv.
            damage: gets the lines that are no rows; without it they raise FrameError.
        """
        self._path, self._damage = path, damage

    def __iter__(self) -> Iterator[ManifestRow]:
        return self._each(_row)

    def labels(self) -> Iterator[set[str]]:
        """Yield the labels of each row and its boxes, in a third of the time that rows take."""
        return self._each(_labels)

    def _each(self, make: Callable[[dict[str, str]], T]) -> Iterator[T]:
        for line, row in read_table(self._path, COLUMNS[:5], self._damage):
            try:
                yield make(row)
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                message = f"{self._path.name} line {line}: {error}"
                if self._damage is None:
                    raise FrameError(message, "bad manifest row") from None
                self._damage.add("bad manifest row", message)


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write a manifest.csv durably, in constant memory."""
    with writing(path) as stream:
        stream.write(header_line().encode())
        for row in rows:
            stream.write(encode_text(row_line(row)))


def header_line() -> str:
    """Return the first line of a manifest.csv."""
    return ",".join(COLUMNS) + "\n"


def row_line(row: ManifestRow, file: str = "") -> str:
    """Return the line of one frame, line feed included; `file` stands in for the row's own."""
    cells = (
        file or row.file,
        row.topic,
        str(row.stamp_ns),
        row.source,
        row.label,
        "" if row.sharpness is None else repr(float(row.sharpness)),
        str(row.width),
        str(row.height),
        boxes_text(row.boxes) if row.seen else "",
    )
    return ",".join(map(_quoted, cells)) + "\n"


def is_labelled(line: str) -> bool:
    """Return whether a line of `row_line` has a label, or says which things are there."""
    cells = next(csv.reader([line]))
    return bool(cells[4] or cells[8])


def has_label_alone(line: str) -> bool:
    """Return whether a line of `row_line` has a label and no box."""
    cells = next(csv.reader([line]))
    return bool(cells[4]) and not boxes_of(cells[8])


def boxes_text(boxes: Iterable[Box]) -> str:
    """Return boxes as JSON."""
    listed = [
        {"label": box.label, "x0": box.x0, "y0": box.y0, "x1": box.x1, "y1": box.y1}
        for box in boxes
    ]
    return json.dumps(listed, ensure_ascii=False)


def boxes_of(text: str) -> tuple[Box, ...]:
    """Return what `boxes_text` wrote, none of ""; raises ValueError, KeyError or TypeError."""
    if not text:
        return ()
    listed = json.loads(text)
    if not isinstance(listed, list):
        raise ValueError("boxes are no JSON list")
    return tuple(_box(item) for item in listed)


def encode_text(text: str) -> bytes:
    """Return the bytes of any text, also of file names that are no valid UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def read_table(
    path: Path,
    needed: Iterable[str],
    damage: DamageLog | None = None,
    renamed: Callable[[list[str]], list[str]] = list,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, column -> text) of a CSV file whose first line names the columns.

    They are separated by commas, semicolons or tabs, whichever the first line has most.

    Args:
        path: the file.
        needed: columns that must be there.
        damage: gets the lines that the csv module refuses; without it they raise FrameError.
        renamed: returns the columns as `needed` names them; gets them in lower case.

    Raises:
        FrameError: the file cannot be read, or a needed column is missing.
    """
    try:
        yield from _read_rows(path, tuple(needed), damage, renamed)
    except OSError as error:
        reason = "missing file" if isinstance(error, FileNotFoundError) else "unreadable"
        raise FrameError(f"{path.name}: {error.strerror}", reason) from None


def columns_of(path: Path) -> list[str]:
    """Return the columns that the first line of a CSV file names, in lower case.

    Raises:
        FrameError: the file cannot be read.
    """
    try:
        cells: list[str] = next(filter(None, _reader(path, None)), [])
    except OSError as error:
        raise FrameError(f"{path.name}: {error.strerror}") from None
    except csv.Error:
        cells = []
    return [cell.strip().lower() for cell in cells]


def _read_rows(
    path: Path,
    needed: tuple[str, ...],
    damage: DamageLog | None,
    renamed: Callable[[list[str]], list[str]],
) -> Iterator[tuple[int, dict[str, str]]]:
    reader = _reader(path, damage)
    columns: list[str] = []
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            message = f"{path.name} line {reader.line_num}: {error}"
            if damage is None or not columns:
                raise FrameError(message, "bad manifest row") from None
            damage.add("bad manifest row", message)
            continue
        if cells is None:
            break
        if not columns and cells:
            columns = renamed([cell.strip().lower() for cell in cells])
            _expect(columns, needed, path.name)
        elif cells:
            yield reader.line_num, dict(zip(columns, cells, strict=False))
    _expect(columns, needed, path.name)


def _reader(path: Path, damage: DamageLog | None) -> Any:
    csv.field_size_limit(_LONGEST_CELL)
    lines = text_lines(path, damage)
    first = [next(lines, "")]
    if first[0].lower().startswith("sep="):  # a spreadsheet's own line
        first = ["\n", next(lines, "")]
    delimiter = max(",;\t", key=first[-1].count)
    return csv.reader(chain(first, lines), strict=True, delimiter=delimiter)


def _expect(columns: list[str], needed: tuple[str, ...], name: str) -> None:
    missing = [column for column in needed if column not in columns]
    if missing:
        raise FrameError(
            f"{name}: its first line names no column {', '.join(missing)}; "
            f"expected {','.join(needed)}"
        )


def _row(cells: dict[str, str]) -> ManifestRow:
    sharpness = cells.get("sharpness", "")
    return ManifestRow(
        file=cells["file"],
        topic=cells["topic"],
        stamp_ns=int(cells["stamp_ns"]),
        source=cells["source"],
        label=cells["label"],
        sharpness=float(sharpness) if sharpness else None,
        width=int(cells.get("width") or 0),
        height=int(cells.get("height") or 0),
        boxes=boxes_of(cells.get("boxes", "")),
        seen=bool(cells.get("boxes")),
    )


def _labels(cells: dict[str, str]) -> set[str]:
    return {cells["label"], *(box["label"] for box in json.loads(cells.get("boxes") or "[]"))}


def _box(item: Any) -> Box:
    label, x0, y0, x1, y1 = item["label"], item["x0"], item["y0"], item["x1"], item["y1"]
    if not isinstance(label, str) or not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise ValueError("a box needs a label and four finite numbers")
    return Box(label=label, x0=float(x0), y0=float(y0), x1=float(x1), y1=float(y1))


def _quoted(cell: str) -> str:
    """Quote what Python 3.10's csv module would leave bare: a lone carriage return, spaces."""
    if _TO_QUOTE.search(cell):
        return '"' + cell.replace('"', '""') + '"'
    return cell
