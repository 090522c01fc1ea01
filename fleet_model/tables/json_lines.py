"""JSON: an object in each line, or one array of objects."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.json_stream import read_items
from fleet_model.files.text import AS_WINDOWS, GUESSED, is_utf8
from fleet_model.tables.rows import BAD_ROW, LONGEST, TOO_LONG, TableRow
from fleet_model.tables.text_file import TextTable, table_lines


@dataclass(frozen=True, slots=True)
class JsonTable(TextTable):
    """A file of objects whose keys are the columns; an empty line is none."""

    def rows(
        self,
        damage: DamageLog,
        columns: Collection[str] | None = None,
    ) -> Iterator[TableRow]:
        """Yield the rows; as Table.rows. Of an array the number is that of the object, from 1."""
        if self._is_array():
            yield from self._array(damage)
            return
        lines = table_lines(self.file, self.name, self.encoding, damage, self.guessed)
        for number, line in enumerate(lines, start=1):
            if len(line) > LONGEST:
                damage.add(TOO_LONG, f"{self.name} line {number}")
                continue
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError):  # its words would quote the line
                cells = None
            if isinstance(cells, dict):
                yield TableRow(number, cells)
            else:
                damage.add(BAD_ROW, f"{self.name} line {number}")

    def _is_array(self) -> bool:
        lines = table_lines(self.file, self.name, self.encoding, DamageLog(), None)
        return next(filter(None, map(str.strip, lines)), "").startswith("[")

    def _array(self, damage: DamageLog) -> Iterator[TableRow]:
        if self.file.name.lower().endswith(".gz"):
            raise FrameError(f"{self.name}: a compressed array is not read; write JSON lines")
        number, errors = 0, "replace"
        if not self.encoding and not is_utf8(self.file):
            errors = AS_WINDOWS
            if self.guessed is not None:
                self.guessed.add(GUESSED, f"{self.name}; read as Windows-1252")
        items = read_items(self.file, self.name, self.encoding, errors)
        try:
            for number, cells in enumerate(items, start=1):
                if isinstance(cells, dict):
                    yield TableRow(number, cells)
                else:
                    damage.add(BAD_ROW, f"{self.name} object {number}")
        except FrameError:
            if not number:
                raise FrameError(f"{self.name}: is no JSON", "damaged file") from None
            damage.add(BAD_ROW, f"{self.name} after object {number}")
