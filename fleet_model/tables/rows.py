"""What a table gives, row by row, and why a row is left out."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Protocol

from fleet_model.files.damage import DamageLog

LONGEST = 1 << 20  # characters of one row; a stray quote must not swallow a file
# Kinds of damage, each counts rows.
BAD_ROW, WRONG_FIELDS = "damaged row", "wrong number of fields"
TOO_LONG = f"longer than {LONGEST} characters"
CUT = "cut file"  # counts files: nobody knows how many rows are lost
_SPLIT_WORDS: Mapping[str, bool] = {
    **dict.fromkeys(("train", "training"), False),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), True),
    **dict.fromkeys(("test", "testing"), True),
}
_BETWEEN_WORDS = re.compile(r"[^a-z]+")


class TableRow(NamedTuple):
    """One row."""

    number: int  # the line where it begins, from 1; of Parquet and Arrow the row, from 1
    cells: Mapping[str, Any]  # column -> text of a CSV, else what JSON or Arrow has; None: nothing


class Table(Protocol):
    """One file of rows."""

    @property
    def name(self) -> str:
        """The file's name in its folder, with "/"; of a file that was named itself its own."""
        ...

    @property
    def held_out(self) -> bool | None:
        """Whether its place says that it is for measuring (True) or training; None: it does not."""
        ...

    def rows(self, damage: DamageLog, columns: Collection[str] | None = None) -> Iterator[TableRow]:
        """Yield the rows in the order of the file, in constant memory.

        Args:
            damage: gets what is no row, by the kinds above; never what stands in it.
            columns: that are wanted; others may be missing in the cells. None: those that can hold
                a text, a label or a number.

        Raises:
            FrameError: nothing of the file can be read.
        """
        ...


def is_held_out(word: str) -> bool | None:
    """Return what the name of a split says; None where it is no name of one."""
    return _SPLIT_WORDS.get(word.strip().casefold())


def split_of(name: str) -> bool | None:
    """Return what the name of a file says, "data/train-00000.csv"; the last word that does counts.

    The file's own name goes before those of its folders.
    """
    path = PurePosixPath(name.casefold())
    for part in (path.name.partition(".")[0], *reversed(path.parts[:-1])):
        found = [is_held_out(word) for word in _BETWEEN_WORDS.split(part)]
        if said := [one for one in found if one is not None]:
            return said[-1]
    return None
