"""What is on a disk after a power cut: a model of a strict file system.

It promises as little as POSIX does, and less than ext4, XFS and btrfs do:

- Bytes of a file are safe when fsync of that file has returned (or of the whole file system).
- A name in a folder is safe when fsync of that folder has returned. The fsync of a file does not
  save its name, and that of a folder does not save the folder's own name in its parent.
- What is not safe is kept or lost, each operation by itself, in any order. A write may be torn, or
  leave zeros where the file has grown.
- A rename is never half done: the old name or the new one, also between two folders. It is safe
  when the folder that it leads into is.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from operations import (
    ROOT,
    Create,
    Mark,
    Operation,
    Remove,
    Rename,
    Resize,
    SyncAll,
    SyncFile,
    SyncFolder,
    Write,
)

SECTOR = 512
# What becomes of an operation that is not safe; those that are not named are kept.
Fate: TypeAlias = Literal["lost", "torn", "short", "zeros"]
Fates: TypeAlias = Mapping[int, Fate]


@dataclass(slots=True)
class Node:
    """A file (bytes), a folder (name -> number) or a symbolic link (text)."""

    content: bytes | dict[str, int] | str


@dataclass(frozen=True, slots=True)
class Tree:
    """Every file and folder that has a name; equal trees look the same to a program."""

    nodes: dict[int, Node]

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield (path, number), a folder before what is in it."""
        folders = [("", ROOT)]
        while folders:
            prefix, number = folders.pop()
            content = self.nodes[number].content
            assert isinstance(content, dict)
            for name in sorted(content):
                path, inner = prefix + name, content[name]
                yield path, inner
                if isinstance(self.nodes[inner].content, dict):
                    folders.append((f"{path}/", inner))

    def fingerprint(self) -> bytes:
        """Return a digest of what a program can see, hard links included."""
        digest, first = hashlib.blake2b(digest_size=16), dict[int, str]()
        for path, number in self.entries():
            content = self.nodes[number].content
            seen = first.setdefault(number, path)
            shown = "folder" if isinstance(content, dict) else content
            digest.update(f"{path}\0{seen}\0".encode() + (_digest(shown) if seen == path else b""))
        return digest.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.fingerprint() == other.fingerprint()

    __hash__ = None  # type: ignore[assignment]

    def put(self, target: Path) -> None:
        """Make it real in an empty folder."""
        first = dict[int, Path]()
        for path, number in self.entries():
            content, position = self.nodes[number].content, target / path
            if isinstance(content, dict):
                position.mkdir()
            elif isinstance(content, str):
                position.symlink_to(content)
            elif number in first:
                os.link(first[number], position)
            else:
                position.write_bytes(content)
                first[number] = position


class Disk:
    """A folder at the beginning; everything in it is safe."""

    def __init__(self, nodes: dict[int, Node], inodes: dict[tuple[int, int], int]) -> None:
        self.nodes = nodes
        self.inodes = inodes  # (device, inode) -> number, for the recorder

    @classmethod
    def of(cls, root: Path) -> "Disk":
        """Read a real folder."""
        nodes: dict[int, Node] = {}
        inodes: dict[tuple[int, int], int] = {}

        def read(path: Path) -> int:
            status = path.lstat()
            key = status.st_dev, status.st_ino
            if key in inodes:
                return inodes[key]
            number = inodes[key] = len(inodes)
            if path.is_symlink():
                nodes[number] = Node(os.readlink(path))
            elif path.is_dir():
                nodes[number] = Node({p.name: read(p) for p in sorted(path.iterdir())})
            else:
                nodes[number] = Node(path.read_bytes())
            return number

        read(root)
        return cls(nodes, inodes)

    def tree(self) -> Tree:
        """Return it as it is."""
        return self.after(())

    def after(self, operations: Sequence[Operation], fates: Fates | None = None) -> Tree:
        """Return what is there when each operation has met its fate."""
        return Replay(self, operations).tree(len(operations), fates or {})


class Replay:
    """The states that a sequence of operations may leave; what is common to them is done once."""

    def __init__(self, disk: Disk, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._kept = [_copy(disk.nodes)]  # after so many operations, all of them kept

    def tree(self, cut: int, fates: Fates) -> Tree:
        """Return what is there after `cut` operations, each of which has met its fate."""
        first = min(fates, default=cut)
        while len(self._kept) <= first:
            nodes = _copy(self._kept[-1])
            _apply(nodes, self._operations[len(self._kept) - 1], None)
            self._kept.append(nodes)
        nodes = _copy(self._kept[first])
        for index in range(first, cut):
            _apply(nodes, self._operations[index], fates.get(index))
        return Tree(nodes)


def unsafe(operations: Sequence[Operation]) -> list[int]:
    """Return the positions of the changes that a power cut now may undo."""
    waiting: dict[int, Operation] = {}
    for index, operation in enumerate(operations):
        if isinstance(operation, SyncAll):
            waiting.clear()
        elif isinstance(operation, SyncFile | SyncFolder):
            node = operation.node
            waiting = {i: o for i, o in waiting.items() if home_of(o) != node}
        elif not isinstance(operation, Mark):
            waiting[index] = operation
    return sorted(waiting)


def home_of(operation: Operation) -> int:
    """Return the file or folder whose fsync makes a change safe."""
    if isinstance(operation, Rename):
        return operation.to_folder
    if isinstance(operation, Create | Remove):
        return operation.folder
    assert isinstance(operation, Write | Resize)
    return operation.node


def fates_of(operation: Operation) -> Iterable[Fate]:
    """Return what may become of a change that is not safe, other than being kept."""
    return ("lost", "torn", "short", "zeros") if isinstance(operation, Write) else ("lost",)


def _copy(nodes: dict[int, Node]) -> dict[int, Node]:
    return {
        number: Node(dict(node.content) if isinstance(node.content, dict) else node.content)
        for number, node in nodes.items()
    }


@cache
def _digest(content: bytes | str) -> bytes:
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=16, person=type(content).__name__.encode()).digest()


def _apply(nodes: dict[int, Node], operation: Operation, fate: Fate | None) -> None:
    if isinstance(operation, Create) and operation.node not in nodes:
        empty = {"file": b"", "folder": {}, "link": operation.target}[operation.kind]
        nodes[operation.node] = Node(empty)  # there, whether its name is or not
    if fate == "lost":
        return
    if isinstance(operation, Write):
        _write(nodes[operation.node], operation, fate)
    elif isinstance(operation, Resize):
        node = nodes[operation.node]
        assert isinstance(node.content, bytes)
        node.content = node.content[: operation.size].ljust(operation.size, b"\0")
    elif isinstance(operation, Create):
        _names(nodes, operation.folder)[operation.name] = operation.node
    elif isinstance(operation, Remove):
        _names(nodes, operation.folder).pop(operation.name, None)
    elif isinstance(operation, Rename):
        before = _names(nodes, operation.folder)
        if before.get(operation.name) == operation.node:
            del before[operation.name]
        _names(nodes, operation.to_folder)[operation.to_name] = operation.node


def _names(nodes: dict[int, Node], folder: int) -> dict[str, int]:
    names = nodes[folder].content
    assert isinstance(names, dict)
    return names


def _write(node: Node, write: Write, fate: Fate | None) -> None:
    assert isinstance(node.content, bytes)
    data, content = write.data, node.content
    if fate == "torn":  # the sectors of the first half arrived, or half of a single one
        half = len(data) // 2
        data = data[: half - half % SECTOR or half]
    elif fate == "short":  # all but the end
        data = data[:-1]
    elif fate == "zeros":
        data = bytes(len(data))
    if data:
        content = content.ljust(write.offset, b"\0")
        node.content = content[: write.offset] + data + content[write.offset + len(data) :]
