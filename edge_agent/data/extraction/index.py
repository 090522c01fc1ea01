"""Know the index files of a finished data set again: everything in it that is no image."""

import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_agent.data.extraction.disk import look
from edge_agent.data.extraction.journal import FOLDER
from fleet_model.durable import write_durably


class FinishedMark:
    """OUT/.extract/finished: one line "checksum size name" for each index file.

    It is there from the moment that the data set is complete. Methods raise OSError.
    """

    def __init__(self, out: Path) -> None:
        """Look at the data set in `out`."""
        self._out = out
        self._images = array("q")  # hashes: a set of a million names would take 100 MB
        self._file = out / FOLDER / "finished"

    def is_intact(self) -> bool:
        """Return whether the data set was complete, and its index files are what they were."""
        try:
            lines = self._file.read_text().splitlines()
        except FileNotFoundError:
            return False
        return all(
            _line(self._out, json.loads(line.split(maxsplit=2)[2])) == line for line in lines
        )

    def remove(self) -> None:
        """Say that the data set is not complete."""
        self._file.unlink(missing_ok=True)

    def note_image(self, name: str) -> None:
        """Say that this file is no index file."""
        self._images.append(hash(name))

    def write(self) -> None:
        """Say that the data set is complete, when every image was noted."""
        images = np.sort(np.array(self._images, np.int64))

        def is_index(name: str) -> bool:
            position = int(np.searchsorted(images, hash(name)))
            return position == len(images) or int(images[position]) != hash(name)

        lines = [f"{_line(self._out, name)}\n" for name in _files(self._out) if is_index(name)]
        write_durably(self._file, "".join(lines))


def _line(out: Path, name: str) -> str:
    size, value = look(out / name)
    return f"{value:08x} {size} {json.dumps(name)}"


def _files(out: Path) -> Iterator[str]:
    """Yield every file but those of the journal, relative, sorted."""
    root = str(out)
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != FOLDER)
        inner = folder[len(root) :].lstrip("/")
        yield from (f"{inner}/{name}" if inner else name for name in sorted(files))
