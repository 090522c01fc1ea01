"""Read images from a folder."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.frames.image_file import image_frame
from edge_agent.data.frames.source import FrameEntry, image_files
from fleet_model.errors import FrameError
from fleet_model.types import Frame


class FolderFrames:
    """The images in a folder and its folders, in the order of their relative names.

    `topic` of a frame is the relative name, e.g. "circle/0001.jpg"; `stamp_ns` is the time the file
    was last written. A single image is read as a folder that holds nothing else.
    """

    def __init__(self, path: Path, topic: str = "") -> None:
        """Keep `path`.

        Raises:
            FrameError: a topic was named, which a folder does not have.
        """
        if topic:
            raise FrameError(f"{path.name}: is a folder of images and has no topic {topic!r}")
        self.path = path.resolve()

    def entries(self, damage: DamageLog) -> Iterator[FrameEntry]:
        """Yield the images; see FrameSource."""
        root = self.path if self.path.is_dir() else self.path.parent
        for name in image_names(self.path, damage):
            try:
                stamp_ns = (root / name).stat().st_mtime_ns
            except OSError as error:
                unread = unreadable(f"{root.name}/{name}", error)
                damage.add(unread.reason, str(unread))
            else:
                yield FrameEntry(stamp_ns, partial(_load, root, name, stamp_ns))


def image_names(path: Path, damage: DamageLog | None = None) -> list[str]:
    """Return the names of the images in `path` and its folders, sorted; its own where it is one.

    Args:
        path: a folder or an image.
        damage: gets the folders that cannot be listed; without it the first one raises.

    Raises:
        FrameError: `path` itself cannot be listed.
    """
    root = path if path.is_dir() else path.parent

    def unlisted(folder: Path, error: OSError) -> None:
        where = f"{root.name}/{folder.relative_to(root).as_posix()}".removesuffix("/.")
        if damage is None or folder == root:
            raise unreadable(where, error)
        damage.add("unreadable", f"{where}: {error.strerror}")

    return sorted(file.relative_to(root).as_posix() for file in image_files(path, unlisted))


def read_image(file: Path, where: str) -> bytes:
    """Return the bytes of a file; raises FrameError, which `where` names it in."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise unreadable(where, error) from None


def unreadable(where: str, error: OSError) -> FrameError:
    """Return the error of a file that the system does not hand out, without its directory."""
    reason = "missing file" if isinstance(error, FileNotFoundError) else "unreadable"
    return FrameError(f"{where}: {error.strerror or type(error).__name__}", reason)


def _load(root: Path, name: str, stamp_ns: int) -> Frame:
    where = f"{root.name}/{name}"
    return image_frame(read_image(root / name, where), root.name, name, stamp_ns, where)
