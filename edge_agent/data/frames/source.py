"""What a camera frame is before it is read, and what lies at a path: a bag, images, a topic."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import quote, unquote

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import files_below
from fleet_model.types import Frame

LIVE_PREFIX = "ros:"  # "ros:/camera/image" in place of a path is that topic, live
_RTSP = re.compile(r"(rtsps?):(.*)", re.DOTALL)
_WEBCAM = re.compile(r"/dev/video[0-9]+|[0-9]{1,3}")  # a device, or its number
_USER = re.compile(r"//[^/?#]*@")  # and password, in a URL
# compressed as a whole: .zstd; a ROS 1 recording that was never closed: .active
BAG_SUFFIXES = (".mcap", ".mcap.zstd", ".db3", ".db3.zstd", ".bag", ".bag.active")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
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


class FrameSource(Protocol):
    """Where frames come from: a bag's topic, a video, a camera."""

    def entries(self, damage: DamageLog) -> Iterator[FrameEntry]:
        """Yield the frames; what cannot be read is added to `damage`."""
        ...


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
    expected = f"a rosbag2 folder, {', '.join(BAG_SUFFIXES)}, images or video"
    return FrameError(f"{path.name}: neither a bag nor an image; expected {expected}")


def is_live(path: Path) -> bool:
    """Return whether `path` names a topic or camera, whose frames have no end and come only once.

    "ros:/camera/image", "rtsp://host/stream", "/dev/video0", or "0" where no file is called that.
    """
    text = path.as_posix()
    return text.startswith(LIVE_PREFIX) or bool(_RTSP.fullmatch(text)) or is_webcam(path)


def is_webcam(path: Path) -> bool:
    """Return whether `path` is a camera of this machine."""
    text = path.as_posix()
    return bool(_WEBCAM.fullmatch(text)) and not (text[0] != "/" and path.exists())


def source_path(text: str) -> Path:
    """Return what a person typed as a path, from which `live_name` gives it back.

    A Path keeps no "//", so it holds some URLs as one escaped name.
    """
    path, match = Path(text), _RTSP.fullmatch(text)
    return (
        path
        if match is None or live_name(path) == text
        else Path(f"{match[1]}:{quote(match[2], safe='')}")
    )


def live_name(path: Path) -> str:
    """Return the topic, URL or device as it was typed, password and all."""
    text = path.as_posix()
    match = _RTSP.fullmatch(text)
    if match is None:
        return text
    rest = match[2] if "/" in match[2] else unquote(match[2])
    return f"{match[1]}:{rest if rest.startswith('//') else '/' + rest}"


def shown(path: Path) -> str:
    """Return a name for messages: of what is live all of it but user and password, else the last.

    Directories stay on the robot.
    """
    return _USER.sub("//", live_name(path)) if is_live(path) else path.name


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


def is_video(path: Path) -> bool:
    """Return whether `path` is a video file."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


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


def has_pictures(path: Path) -> bool:
    """Return whether there is an image in `path` or its folders, as far as they can be listed."""
    return next(image_files(path, lambda *_: None), None) is not None
