"""Where camera frames come from: the seam, its table, the choice by what lies at a path."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from edge_agent.frames.damage import DamageLog
from fleet_model.errors import FrameError
from fleet_model.loading import load_plugin
from fleet_model.types import Frame

FRAME_SOURCES = {
    "bag": "edge_agent.frames.bag:BagFrames",
    "folder": "edge_agent.frames.folder:FolderFrames",
}
BAG_SUFFIXES = (".mcap", ".db3", ".bag")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class Entry(NamedTuple):
    """One frame that was not yet read."""

    time_ns: int  # bag time, or a file's own stamp: ranges and rates go by it
    # Reads header and payload. Raises FrameError (with `reason`) for whatever is wrong and can be
    # seen without decoding: sizes that do not fit, a JPEG that was cut, an unknown encoding.
    load: Callable[[], Frame]


class FrameSource(Protocol):
    """Camera frames in the order of recording; of a folder, in the order of names."""

    def entries(self, damage: DamageLog) -> Iterator[Entry]:
        """Yield every frame there is, the same ones in the same order at every call.

        Parts of the source that cannot be read are added to `damage`.

        Raises:
            FrameError: nothing can be read, or the topic must be named first.
        """
        ...


def frames_of(source: FrameSource, damage: DamageLog) -> Iterator[Frame]:
    """Yield every frame that loads; the others are added to `damage` by their reason."""
    for entry in source.entries(damage):
        try:
            frame = entry.load()
        except FrameError as error:
            damage.add(error.reason, str(error))
        else:
            yield frame


def open_frames(path: Path, topic: str = "") -> FrameSource:
    """Return the bag or the image folder that lies at `path`.

    Args:
        path: a bag folder, a bare .mcap, .db3 or .bag file, a folder of images, one image.
        topic: the camera topic of a bag; "" takes the only one.

    Raises:
        FrameError: nothing there is a bag or an image.
    """
    return cast("FrameSource", load_plugin(FRAME_SOURCES, source_kind(path))(path, topic))


def source_kind(path: Path) -> str:
    """Return the key of FRAME_SOURCES that fits what lies at `path`; raises FrameError."""
    if not path.exists():
        raise FrameError(f"{path.name}: no such file or folder")
    try:
        if is_bag(path):
            return "bag"
        if next(image_files(path), None):
            return "folder"
        bags = find_bags(path)
    except OSError as error:
        raise FrameError(f"{path.name}: {error.strerror}; who may read it?") from None
    expected = f"a rosbag2 folder, {', '.join(BAG_SUFFIXES)} or images"
    if bags:
        names = ", ".join(bag.relative_to(path).as_posix() for bag in bags[:5])
        raise FrameError(f"{path.name}: holds bags but is none; name one of them: {names}")
    raise FrameError(f"{path.name}: neither a bag nor an image; expected {expected}")


def is_bag(path: Path) -> bool:
    """Return whether `path` is a storage file or a folder with one, or with its metadata."""
    if path.is_dir():
        names = [child.name for child in path.iterdir()]
        return "metadata.yaml" in names or any(name.endswith(BAG_SUFFIXES) for name in names)
    return path.is_file() and path.suffix in BAG_SUFFIXES


def find_bags(path: Path) -> list[Path]:
    """Return the bags in `path` and its folders, in the order of names; itself where it is one."""
    if is_bag(path):
        return [path]
    if not path.is_dir():
        return []
    children = sorted(child for child in path.iterdir() if child.is_dir())
    return [bag for child in children for bag in find_bags(child)]


def image_files(path: Path) -> Iterator[Path]:
    """Yield the images in `path` and its folders; itself where it is one; hidden ones left out."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        hidden = any(part.startswith(".") for part in file.relative_to(path.parent).parts[1:])
        if file.suffix.lower() in IMAGE_SUFFIXES and not hidden and file.is_file():
            yield file
