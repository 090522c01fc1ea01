"""Images in folders: their names, their bytes, and what keeps them from being read."""

from pathlib import Path

from edge_agent.data.frames.source import image_files
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import unreadable


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
