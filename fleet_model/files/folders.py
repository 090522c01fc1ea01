"""Files in folders, and the error of one that the system does not hand out."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fleet_model.errors import FrameError


def files_below(
    folder: Path,
    unlisted: Callable[[Path, OSError], None],
    seen: set[tuple[int, int]] | None = None,
) -> Iterator[Path]:
    """Yield the files in a folder and its folders, in the order of names; as `image_files`."""
    seen = set() if seen is None else seen
    try:
        status = folder.stat()
        new = (status.st_dev, status.st_ino) not in seen
        children = sorted(os.scandir(folder), key=lambda child: child.name) if new else []
    except OSError as error:
        unlisted(folder, error)
        return
    seen.add((status.st_dev, status.st_ino))
    for child in children:
        if child.name.startswith("."):
            continue
        try:
            is_folder, is_file = child.is_dir(), child.is_file()
        except OSError:  # a loop of links leads nowhere
            continue
        if is_folder:
            yield from files_below(folder / child.name, unlisted, seen)
        elif is_file:
            yield folder / child.name


def unreadable(where: str, error: OSError) -> FrameError:
    """Return the error of a file that the system does not hand out, without its directory."""
    reason = "missing file" if isinstance(error, FileNotFoundError) else "unreadable"
    return FrameError(f"{where}: {error.strerror or type(error).__name__}", reason)
