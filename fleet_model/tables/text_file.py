"""The lines of a text table: plain or compressed, bounded, in whatever encoding it was saved."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import unreadable
from fleet_model.files.text import text_lines
from fleet_model.tables.rows import CUT, LONGEST


@dataclass(frozen=True, slots=True)
class TextTable:
    """What tables of text have in common; see Table."""

    file: Path
    name: str
    held_out: bool | None = None
    encoding: str = ""  # "" finds it out
    guessed: DamageLog | None = field(default=None, compare=False)  # lines that are no UTF-8


def table_lines(
    file: Path, name: str, encoding: str, damage: DamageLog, guessed: DamageLog | None
) -> Iterator[str]:
    """Yield the lines with their ends; of one longer than LONGEST only the first piece, longer too.

    Args:
        file: the file; ".gz" at its end says that it is compressed.
        name: names it in damage and errors.
        encoding: of the text; "" finds it out.
        damage: told where a compressed file ends too early.
        guessed: counts the lines that are no UTF-8 and were read as Windows-1252.

    Raises:
        FrameError: it cannot be read.
    """
    number, whole = 0, True
    try:
        lines = text_lines(file, guessed, opened=_open, encoding=encoding, longest=LONGEST + 1)
        for line in lines:
            if whole:
                number += 1
                yield line
            whole = line.endswith(("\n", "\r")) or len(line) <= LONGEST
    except (EOFError, zlib.error, gzip.BadGzipFile):
        if not number:
            raise FrameError(f"{name}: is no whole gzip file", CUT) from None
        damage.add(CUT, f"{name} after line {number}")
    except OSError as error:
        raise unreadable(name, error) from None


def require_encoding(encoding: str) -> None:
    """Raise SettingsError for a name of no encoding; "" stands for finding it out."""
    try:
        is_text = not encoding or codecs.lookup(encoding)._is_text_encoding
    except (LookupError, ValueError):
        is_text = False
    if not is_text:
        raise SettingsError(f"encoding {encoding!r} is not known; expected e.g. utf-8 or cp1250")


def _open(file: Path) -> IO[bytes]:
    if file.name.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(file, "rb"))
    return file.open("rb")
