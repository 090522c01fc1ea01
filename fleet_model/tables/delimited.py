"""CSV and TSV, as spreadsheets, pandas and people write them."""

import csv
import re
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.tables.rows import BAD_ROW, LONGEST, TOO_LONG, WRONG_FIELDS, TableRow
from fleet_model.tables.text_file import TextTable, table_lines

_DELIMITERS = ",;\t|"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_NO_DELIMITER = "\x1f"  # the unit separator: of a table with one column, whose texts have commas
_LONGEST_CELL = 1 << 26  # of the csv module, for the whole program; rows are bounded by LONGEST
_LONGEST_NAME = 100  # characters; what is longer is a text and no name of a column


class _TooLong(Exception):  # noqa: N818  (says what the row is, and never leaves this module)
    """A row that has no end."""


@dataclass(frozen=True, slots=True)
class DelimitedTable(TextTable):
    """A file whose first line names the columns.

    They are separated by commas, semicolons, tabs or bars, whichever the first line has most. A
    quote in a quoted cell is written twice. After a row that cannot be read the next line begins a
    row, so a stray quote costs one row and not the rest of the file.

    In a file with tabs a line that cannot be read with quotes is read without them: programs that
    write tabs often quote nothing, and a text may begin with a quote.
    """

    def rows(
        self,
        damage: DamageLog,
        columns: Collection[str] | None = None,
    ) -> Iterator[TableRow]:
        """Yield the rows; as Table.rows."""
        csv.field_size_limit(_LONGEST_CELL)
        lines = _Lines(table_lines(self.file, self.name, self.encoding, damage, self.guessed))
        delimiter, names = self._head(lines)
        reader = csv.reader(lines, strict=True, delimiter=delimiter)
        while True:
            number = lines.begin_row()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (csv.Error, _TooLong):
                first = lines.give_back()
                cells = first.rstrip("\r\n").split("\t") if delimiter == "\t" else []
                if len(cells) != len(names) or len(first) > LONGEST:
                    kind = TOO_LONG if len(first) > LONGEST else BAD_ROW
                    damage.add(kind, f"{self.name} line {number}")
                    continue
            if delimiter == "\t" and any("\t" in cell for cell in cells):  # two rows in one cell
                cells = lines.give_back().rstrip("\r\n").split("\t")
            if not cells:
                continue  # an empty line
            while len(cells) > len(names) and not cells[-1]:
                cells.pop()  # a spreadsheet ends all lines with as many delimiters as the longest
            if len(cells) != len(names):
                damage.add(WRONG_FIELDS, f"{self.name} line {number}")
                continue
            yield TableRow(number, dict(zip(names, cells, strict=True)))

    def _head(self, lines: "_Lines") -> tuple[str, list[str]]:
        """Return the delimiter and the columns' names; raises FrameError."""
        try:
            line = next(lines, "")
            if line.lower().startswith("sep="):  # a spreadsheet's own line
                line = next(lines, "")
            while line and not line.strip():
                line = next(lines, "")
        except _TooLong:
            line = ""
        plain = _QUOTED.sub("", line)
        delimiter = max(_DELIMITERS, key=plain.count)
        delimiter = delimiter if delimiter in plain else _NO_DELIMITER
        try:
            names = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error:
            names = []
        named = [name.strip() for name in names]
        if not any(named) or any(len(name) > _LONGEST_NAME for name in named):
            raise FrameError(
                f"{self.name}: its first line does not name the columns; expected e.g. text,label",
                "no names of columns",
            )
        return delimiter, _different(named)


class _Lines:
    """Hands lines to a csv reader, and gives back those of a row that was none."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._again = lines, deque[str]()
        self._row, self._length, self._number = list[str](), 0, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._row.append(line)
        self._number += 1
        self._length += len(line)
        if self._length > LONGEST:
            raise _TooLong
        return line

    def begin_row(self) -> int:
        """Forget the lines of the last row; return the number of the next line, from 1."""
        self._row.clear()
        self._length = 0
        return self._number + 1

    def give_back(self) -> str:
        """Return the row's first line; the others come once more."""
        first, *others = self._row
        self._again.extendleft(reversed(others))
        self._number -= len(others)
        self._row = [first]
        return first


def _different(names: list[str]) -> list[str]:
    """Return names of which no two are equal: the second "text" is "text.1", as pandas calls it."""
    found: dict[str, Any] = {}
    for place, name in enumerate(names):
        wanted = name or f"column {place + 1}"
        again = 0
        while (one := f"{wanted}.{again}" if again else wanted) in found:
            again += 1
        found[one] = None
    return list(found)
