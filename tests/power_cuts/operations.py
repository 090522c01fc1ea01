"""What a program does to files and folders: the vocabulary of recorder and disk model.

Files and folders are numbered, because names change: a file that is renamed keeps its number, a
file that is made again under an old name gets a new one.
"""

from dataclasses import dataclass
from typing import TypeAlias

ROOT = 0  # the number of the recorded folder


@dataclass(frozen=True, slots=True)
class Create:
    """A name appears: a new file or folder, a symbolic link, or one more name (hard link)."""

    folder: int
    name: str
    node: int
    kind: str  # "file", "folder" or "link"
    target: str = ""  # of a symbolic link


@dataclass(frozen=True, slots=True)
class Rename:
    """One name becomes another one, in one step."""

    folder: int
    name: str
    to_folder: int
    to_name: str
    node: int


@dataclass(frozen=True, slots=True)
class Remove:
    """A name disappears: unlink or rmdir."""

    folder: int
    name: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at a position of a file."""

    node: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """truncate, or fallocate beyond the end."""

    node: int
    size: int


@dataclass(frozen=True, slots=True)
class SyncFile:
    """fsync or fdatasync of a file has returned."""

    node: int


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """fsync of a folder has returned."""

    node: int


@dataclass(frozen=True, slots=True)
class SyncAll:
    """sync or syncfs has returned."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The scenario says that a step is done: its result must survive from now on."""


Naming: TypeAlias = Create | Rename | Remove
Change: TypeAlias = Naming | Write | Resize
Operation: TypeAlias = Change | SyncFile | SyncFolder | SyncAll | Mark
