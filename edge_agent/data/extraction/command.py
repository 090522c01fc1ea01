"""Say as text what is extracted from what: the same text means the same data set, byte for byte."""

import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from edge_agent.data.extraction.selection import Selection
from edge_agent.data.frames.source import is_live, shown
from edge_agent.data.labels import LabelSettings
from fleet_model.errors import FrameError

_VERSION = 2  # rises when the same options would give other files


def command_text(
    paths: tuple[Path, ...], labels: LabelSettings, selection: Selection, image_options: str
) -> str:
    """Return one line for each source, the labels, the selection, the rest.

    Sources are known by their names and sizes, so a bag may move to another disk meanwhile.

    Args:
        paths: bags or data sets; they exist.
        labels: whose label_topic may be a file or folder.
        selection: of frames by time.
        image_options: everything else that decides about the files, as text.

    Raises:
        FrameError: a source cannot be read.
    """
    lines = [f"version {_VERSION}"]
    lines += [f"from {_described(path)}" for path in paths]
    label_files = Path(labels.label_topic)
    is_file = bool(labels.label_topic) and label_files.exists()
    source = _described(label_files) if is_file else repr(labels.label_topic)
    lines.append(f"topic {labels.topic!r}, labels {source} within {labels.tolerance_s!r} s")
    lines += [_selected(selection), image_options]
    return "\n".join(lines) + "\n"


def _selected(selection: Selection) -> str:
    moments = [f"{m.ns} ns{'' if m.absolute else ' in'}" if m else "" for m in selection[:2]]
    return f"from {moments[0] or 'begin'} to {moments[1] or 'end'}, every {selection.every_n}, " + (
        f"{selection.rate_hz!r} Hz" if selection.rate_hz else "any rate"
    )


def _described(path: Path) -> str:
    """Return name, files, bytes of a source, and a checksum of the names and sizes.

    What is live never comes again, so it is another one each time.
    """
    if is_live(path):
        return f"{shown(path)!r} live from {time.time_ns()} on"
    count, size, crc = 0, 0, 0
    try:
        for name, size_bytes in _files(path):
            count, size = count + 1, size + size_bytes
            crc = zlib.crc32(f"{name}\0{size_bytes}\0".encode("utf-8", "surrogateescape"), crc)
    except OSError as error:
        raise FrameError(f"{path.name}: {error.strerror}; who may read it?") from None
    return f"{path.name!r} ({count} files, {size} bytes, {crc:08x})"


def _files(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (relative name, bytes), in the order of names; hidden ones left out."""
    if not path.is_dir():
        yield path.name, path.stat().st_size
        return
    for folder, folders, files in os.walk(path, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                file = Path(folder, name)
                yield file.relative_to(path).as_posix(), file.stat().st_size


def _raise(error: OSError) -> None:
    raise error
