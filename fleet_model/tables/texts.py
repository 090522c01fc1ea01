"""The texts of tables with their labels, one after the other."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.tables.columns import (
    NO_COLUMN,
    SAMPLE,
    ChosenColumns,
    Columns,
    choose_columns,
    label_of,
    text_of,
)
from fleet_model.tables.find import tables_at
from fleet_model.tables.instructions import choose_instruction_columns, instruction_of
from fleet_model.tables.json_lines import JsonTable
from fleet_model.tables.rows import Table, TableRow, is_held_out
from fleet_model.tables.text_file import require_encoding
from fleet_model.types import Instruction

# Whether the rows of tables are instructions, and if so, whether they must have answers.
Instructions: TypeAlias = Literal["none", "asked", "answered"]
NO_TEXT, NO_LABEL = "without a text", "with a label that is no word"
UNREADABLE = "unreadable table"  # counts tables
NO_ROWS = "no row"


class TextRow(NamedTuple):
    """A text, and what its table says of it."""

    table: str  # the path's own name, with the file's in it: "set/train.csv"
    number: int  # as TableRow
    id: str  # of the table's own column of ids; "" without one
    text: str  # never empty; whole, with its white space
    label: str  # "": none is told; of an instruction the answer
    held_out: bool | None  # by the table's place or its column; None: nobody says
    instruction: Instruction | None = None  # of a table of instructions; `text` then names it
    known: Mapping[str, str] = MappingProxyType({})  # as ChosenColumns.known -> what the row has

    @property
    def place(self) -> str:
        """Return where it is, in words for this machine."""
        return place_of(self.table, self.number)


def place_of(table: str, number: int) -> str:
    """Return a row's place in words."""
    of_lines = table.lower().removesuffix(".gz").endswith((".csv", ".tsv", ".jsonl", ".ndjson"))
    return f"{table} {'line' if of_lines else 'row'} {number}"


class TextTables:
    """All tables at one path. They have the same columns, which the first one decides."""

    def __init__(
        self,
        path: Path,
        wanted: Columns = Columns(),  # noqa: B008  (it cannot be changed)
        labels: Sequence[str] = (),
        *,
        encoding: str = "",
        shown: str = "",
        instructions: Instructions = "none",
    ) -> None:
        """Keep what to read; nothing is opened yet.

        Args:
            path: see tables_at.
            wanted: columns that the operator has named.
            labels: of the fleet: they tell which column holds labels. None: it is not known.
            encoding: of text files; "" finds it out.
            shown: what rows call the path; "" its own name.
            instructions: whether rows are instructions, with answers or without.

        Raises:
            SettingsError: there is no such encoding.
        """
        require_encoding(encoding)
        self._path, self._wanted, self._labels = path, wanted, tuple(labels)
        self._encoding, self.shown = encoding, shown or path.name
        self._instructions = instructions
        self._chosen: ChosenColumns | None = None

    @property
    def columns(self) -> ChosenColumns:
        """Return what is read; raises FrameError as `rows`."""
        if self._chosen is None:
            self._chosen = self._choose(tables_at(self._path, self._encoding))
        return self._chosen

    def rows(self, damage: DamageLog, guessed: DamageLog | None = None) -> Iterator[TextRow]:
        """Yield every row that has a text, in constant memory.

        Args:
            damage: gets the others by their kind, each with its first place.
            guessed: counts lines that are no UTF-8 and were read as Windows-1252.

        Raises:
            FrameError: nothing can be read, or it is not clear which columns to read.
        """
        columns = self.columns
        failures = list[FrameError]()
        tables = tables_at(self._path, self._encoding, guessed)
        for table in tables:
            try:
                yield from self._texts(table, columns, damage)
            except FrameError as error:
                failures.append(error)
                damage.add(UNREADABLE, str(error))
        if len(failures) == len(tables):
            raise failures[0]

    def _texts(self, table: Table, columns: ChosenColumns, damage: DamageLog) -> Iterator[TextRow]:
        name = f"{self.shown}/{table.name}" if self._path.is_dir() else self.shown
        folder = (self._path / table.name if self._path.is_dir() else self._path).parent
        first = True
        for row in table.rows(damage, columns.all):
            if first and not isinstance(table, JsonTable):  # of JSON each row has its own columns
                _require_text(row, columns, table.name)
            first = False
            text, label, asked = _read(row.cells, columns, folder)
            if not text or text.isspace():
                damage.add(NO_TEXT, place_of(name, row.number))
                continue
            if label is None:
                damage.add(NO_LABEL, place_of(name, row.number))
                continue
            held_out = table.held_out
            if columns.split:
                held_out = is_held_out(text_of(row.cells.get(columns.split)) or "")
            id = _cell(row.cells, columns.id) if columns.id else ""
            known = {what: _cell(row.cells, column) for what, column in columns.known.items()}
            yield TextRow(name, row.number, id, _whole(text), _whole(label), held_out, asked, known)

    def _choose(self, tables: Sequence[Table]) -> ChosenColumns:
        """Look at the first rows that can be read."""
        failures, damage = list[FrameError](), DamageLog()
        for table in tables:
            try:
                sample = [row.cells for row in islice(table.rows(damage), SAMPLE)]
            except FrameError as error:
                failures.append(error)
                continue
            if sample:
                if self._instructions != "none":
                    answered = self._instructions == "answered"
                    return choose_instruction_columns(
                        sample, self._wanted, table.name, answered=answered
                    )
                return choose_columns(sample, self._wanted, self._labels, table.name)
        if failures:
            raise failures[0]
        why = f": {damage.sentence()}" if damage else ""
        raise FrameError(f"{self._path.name}: holds no row{why}", NO_ROWS)


def _read(
    cells: Mapping[str, Any], columns: ChosenColumns, folder: Path
) -> tuple[str, str | None, Instruction | None]:
    """Return the text of a row, its label or None for what is none, and what it asks."""
    if columns.form:
        return _of_instruction(cells, columns, folder)
    return _joined(cells, columns.text), label_of(cells.get(columns.label)), None


def _of_instruction(
    cells: Mapping[str, Any], columns: ChosenColumns, folder: Path
) -> tuple[str, str, Instruction | None]:
    """Return the text that names an instruction, its answer, and itself; "" where it is none.

    Pictures are named from the folder of their table.
    """
    found = instruction_of(cells, columns)
    if found is None:
        return "", "", None
    asked = Instruction(
        turns=tuple((role, _whole(content)) for role, content in found[0].turns),
        prompt=_whole(found[0].prompt),
        answer=_whole(found[0].answer),
        image=_placed(found[0].image, folder),
    )
    return found[1], asked.answer, asked


def _placed(image: str, folder: Path) -> str:
    return image if not image or "://" in image else str(folder / image)


def _cell(cells: Mapping[str, Any], column: str) -> str:
    return _whole(text_of(cells.get(column)) or "")


def _joined(cells: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Return the text of a row; "" where there is none, or a cell is no text."""
    if len(columns) == 1:
        return text_of(cells.get(columns[0])) or ""
    parts = [text_of(cells.get(one)) for one in columns]
    return "" if None in parts else "\n".join(part for part in parts if part)


def _require_text(row: TableRow, columns: ChosenColumns, name: str) -> None:
    """Refuse a table without the columns that another one of the same folder has."""
    missing = next((one for one in columns.text if one not in row.cells), None)
    if missing is not None:
        raise FrameError(f"{name}: has no column {missing!r}, which another table has", NO_COLUMN)


def _whole(text: str) -> str:
    """Replace halves of characters, which no tokenizer takes; JSON may hold them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
