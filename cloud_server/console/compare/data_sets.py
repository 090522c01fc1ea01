"""Inputs with their truth out of a folder of the server's, for a batch.

Pictures: what manifest.csv lists, as `edge-agent extract` writes it; else every picture below the
folder, whose class is the name of the folder that it lies in. Texts: tables with their labels.
"""

import csv
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cloud_server.console.compare.contenders import PICTURE
from cloud_server.console.compare.uploads import MOST_PICTURE_BYTES, too_long
from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog
from fleet_model.tables.texts import TextTables

MANIFEST = "manifest.csv"
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MOST_INPUTS = 5000  # of a larger folder every second, third, ... is taken


class Input(NamedTuple):
    """One input of a data set."""

    name: str  # in its data set
    truth: str  # its class; "" where nobody has told it
    file: Path | None = None  # of a picture
    text: str = ""

    def read(self) -> bytes:
        """Return what models are shown; raises FrameError: unreadable, or too long."""
        if self.file is None:
            return self.text.encode()
        try:
            size = self.file.stat().st_size
            if size > MOST_PICTURE_BYTES:
                raise FrameError(too_long(size, MOST_PICTURE_BYTES), "too large")
            return self.file.read_bytes()
        except OSError as error:
            raise FrameError(f"cannot be read ({error.strerror})", "unreadable") from None


class DataSet(NamedTuple):
    """What a batch asks about."""

    name: str
    inputs: Sequence[Input]
    of: int  # inputs of the folder, all of them
    left_out: str = ""  # what is no input and was to be one, counted


def read_data_set(path: Path, takes: str, classes: Collection[str]) -> DataSet:
    """Return the inputs of a folder, MOST_INPUTS of them at most, spread over all.

    Args:
        path: of the folder, or of a table of texts.
        takes: PICTURE or TEXT.
        classes: that a truth may be.

    Raises:
        SettingsError: there is none, or it cannot be read.
    """
    damage = DamageLog()
    try:
        read = _pictures if takes == PICTURE else _texts
        found = list(read(path, classes, damage))
    except (OSError, FrameError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"{path.name}: cannot be read as a data set: {why}") from None
    if not found:
        what = f"picture ({', '.join(SUFFIXES)})" if takes == PICTURE else "row with a text"
        raise SettingsError(f"{path.name}: has no {what}")
    step = -(-len(found) // MOST_INPUTS)
    return DataSet(path.name, found[::step], len(found), damage.sentence())


def data_sets_in(folder: Path) -> dict[str, Path]:
    """Return what can be chosen in a folder of data sets, by name; nothing hidden, no links out."""
    root = Path(os.path.realpath(folder))  # Path.resolve raises where links lead in a circle
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return {}
    return {
        one.name: one
        for one in entries
        if not one.name.startswith(".")
        and one.exists()
        and Path(os.path.realpath(one)).is_relative_to(root)
    }


def _pictures(path: Path, classes: Collection[str], damage: DamageLog) -> Iterator[Input]:
    root = path.resolve()
    if (path / MANIFEST).is_file():
        with (path / MANIFEST).open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            for row in rows:
                file = path / (row.get("file") or "")
                if _is_picture(file, root):
                    yield Input(row["file"], _known(row.get("label") or "", classes), file)
                else:
                    damage.add("row without its picture", f"{MANIFEST} line {rows.line_num}")
        return
    for file in sorted(path.rglob("*")):
        if _is_picture(file, root):
            yield Input(str(file.relative_to(path)), _known(file.parent.name, classes), file)


def _is_picture(file: Path, root: Path) -> bool:
    return (
        file.suffix.lower() in SUFFIXES
        and file.is_file()
        and file.resolve().is_relative_to(root)  # no manifest and no link leads elsewhere
    )


def _texts(path: Path, classes: Collection[str], damage: DamageLog) -> Iterator[Input]:
    for row in TextTables(path, labels=tuple(classes)).rows(damage):
        yield Input(row.place, _known(row.label, classes), None, row.text)


def _known(label: str, classes: Collection[str]) -> str:
    return label if label in classes else ""
