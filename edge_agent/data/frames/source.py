"""What a camera frame is before it is read, and what lies at a path: a bag, images, a topic."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from fleet_model.errors import FrameError
from fleet_model.types import Frame

LIVE_PREFIX = "ros:"  # "ros:/camera/image" in place of a path is that topic, live
# compressed as a whole: .zstd; a ROS 1 recording that was never closed: .active
BAG_SUFFIXES = (".mcap", ".mcap.zstd", ".db3", ".db3.zstd", ".bag", ".bag.active")
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    # Listed, so that each is counted as what is not read:
    *(".avif", ".exr", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".pbm", ".pgm", ".pnm", ".ppm"),
)


class FrameFacts(Protocol):
    """What labels are found by: a Frame, or what is known of one without its payload."""

    @property
    def source(self) -> str:
        """As in Frame."""

    @property
    def topic(self) -> str:
        """As in Frame."""

    @property
    def stamp_ns(self) -> int:
        """As in Frame."""

    @property
    def width(self) -> int:
        """As in Frame."""

    @property
    def height(self) -> int:
        """As in Frame."""


class Place(NamedTuple):
    """Where the bytes of a frame are. As long as the file is unchanged, so is the frame."""

    file: Path  # absolute
    at: int = 0  # the number of the frame in its file; in a bag, of its topic
    # Source, topic and stamp of an image, which other files name; None: they are in the bytes.
    given: tuple[str, str, int] | None = None


class FrameEntry(NamedTuple):
    """One frame that was not yet read."""

    time_ns: int  # bag time, or a file's own stamp: ranges and rates go by it
    # Reads header and payload. Raises FrameError (with `reason`) for whatever is wrong and can be
    # seen without decoding: sizes that do not fit, a JPEG that was cut, an unknown encoding.
    load: Callable[[], Frame]
    topic: str = ""  # where it is known without reading the frame
    place: Place | None = None  # None: live, it comes once


def nothing_to_read(path: Path) -> FrameError:
    """Return the error for a path where no frames were found; it says what is there instead."""
    if not path.exists():
        return FrameError(f"{path.name}: no such file or folder")
    try:
        bags = find_bags(path)
    except OSError as error:
        return FrameError(f"{path.name}: {error.strerror}; who may read it?")
    if bags:
        names = ", ".join(bag.relative_to(path).as_posix() for bag in bags[:5])
        return FrameError(f"{path.name}: holds bags but is none; name one of them: {names}")
    expected = f"a rosbag2 folder, {', '.join(BAG_SUFFIXES)} or images"
    return FrameError(f"{path.name}: neither a bag nor an image; expected {expected}")


def is_live(path: Path) -> bool:
    """Return whether `path` names a live topic, whose frames have no end and come only once."""
    return path.as_posix().startswith(LIVE_PREFIX)


def is_bag(path: Path) -> bool:
    """Return whether `path` is a storage file or a folder with one, or with its metadata."""
    if path.is_dir():
        names = [child.name for child in path.iterdir()]
        return "metadata.yaml" in names or any(storage_suffix(name) for name in names)
    return path.is_file() and bool(storage_suffix(path.name))


def storage_suffix(name: str) -> str:
    """Return ".mcap", ".db3" or ".bag" for the name of a storage file in any case, else ""."""
    return bag_suffix(name).removesuffix(".zstd").removesuffix(".active")


def bag_suffix(name: str) -> str:
    """Return which of BAG_SUFFIXES the name of a storage file has in any case, else ""."""
    hidden = name.startswith(".")  # macOS leaves "._x.mcap" on foreign disks
    ends = (end for end in BAG_SUFFIXES if name.lower().endswith(end))
    return "" if hidden else next(ends, "")


def find_bags(path: Path) -> list[Path]:
    """Return the bags in `path` and its folders, in the order of names; itself where it is one."""
    if is_bag(path):
        return [path]
    if not path.is_dir():
        return []
    children = sorted(child for child in path.iterdir() if child.is_dir())
    return [bag for child in children for bag in find_bags(child)]


def image_files(path: Path, unlisted: Callable[[Path, OSError], None]) -> Iterator[Path]:
    """Yield the images in `path` and its folders; itself where it is one; hidden ones left out.

    Links to folders are followed, each folder once.

    Args:
        path: a folder or an image.
        unlisted: gets the folders that cannot be listed; may raise.
    """
    if path.is_dir():
        found = files_below(path, unlisted)
        yield from (file for file in found if file.name.lower().endswith(IMAGE_SUFFIXES))
    elif path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        yield path


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
        if child.is_dir():
            yield from files_below(folder / child.name, unlisted, seen)
        elif child.is_file():
            yield folder / child.name
