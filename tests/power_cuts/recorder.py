"""Record every change of files and folders below one folder, by any code of a process.

Bytes are read back from the file right after the call that wrote them, so it does not matter how
they got there. What cannot be recorded (io_uring, a shared writable mapping, a file moved in from
elsewhere) raises TracingError; `record` also compares the folder with the sum of the operations, so
nothing is missed in silence.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from disk import Disk
from operations import (
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
from system_calls import AT_FDCWD
from tracer import Call, TracingError, run_traced

MARKS = "/power-cut-mark/"  # a folder that does not exist: removing one in it is a message to us
_AT_REMOVEDIR, _AT_SYMLINK_FOLLOW = 0x200, 0x400
_KEEP_SIZE = 1  # of fallocate
_UNRECORDABLE = "openat2", "io_uring_setup", "pwritev", "pwritev2"


def mark() -> None:
    """Tell the recorder that a step is done. Called by the traced process."""
    try:
        os.rmdir(MARKS)
    except OSError:
        return


class Recording(NamedTuple):
    """A folder as it was, and what was done to it."""

    before: Disk
    operations: list[Operation]


def record(root: Path, work: Callable[[], None]) -> Recording:
    """Run `work` in a child process and return what it did below `root`.

    Raises:
        TracingError: this machine cannot trace, `work` failed, or something was missed.
    """
    root = root.resolve()
    before = Disk.of(root)
    recorder = Recorder(root, before)
    if run_traced(work, recorder):
        raise TracingError("the recorded process failed; its traceback is above")
    expected = before.after(recorder.operations)
    if expected != Disk.of(root).tree():
        raise TracingError(f"{root}: changed in a way that was not recorded")
    return Recording(before, recorder.operations)


class _Name(NamedTuple):
    folder: int  # -1: outside of the recorded folder
    name: str
    path: str
    found: os.stat_result | None  # of the name itself, also of a symbolic link


class Recorder:
    """An observer that turns system calls into operations."""

    def __init__(self, root: Path, before: Disk) -> None:
        self.operations: list[Operation] = []
        self._root = str(root)
        self._nodes = dict(before.inodes)  # (device, inode) -> number
        self._next = max(self._nodes.values()) + 1

    def before(self, call: Call) -> object:
        """Resolve names while they are still what the call will see."""
        thread, name, (first, *rest) = call.thread, call.name, call.arguments
        if name in ("openat", "mkdirat", "unlinkat", "openat2"):
            return self._name(thread, first, rest[0])
        if name in ("renameat", "renameat2", "linkat"):
            return self._name(thread, first, rest[0]), self._name(thread, rest[1], rest[2])
        if name == "symlinkat":
            return self._name(thread, rest[0], rest[1])
        if name == "truncate":
            return self._name(thread, AT_FDCWD, first)
        return None

    def after(self, call: Call, result: int, seen: object) -> None:
        """Add what a call has changed."""
        if call.name == "unlinkat" and isinstance(seen, _Name) and seen.path == MARKS:
            self.operations.append(Mark())
        elif result >= 0:
            handler = _BY_NAME.get(call.name, Recorder._by_descriptor)
            handler(self, call, result, seen)

    # Names.

    def _openat(self, call: Call, result: int, seen: _Name) -> None:
        flags = signed(call.arguments[2]) if len(call.arguments) > 2 else os.O_CREAT | os.O_TRUNC
        if flags & os.O_TMPFILE == os.O_TMPFILE and self._is_below(fd_path(call.thread, result)):
            raise TracingError("O_TMPFILE below the recorded folder")
        if seen.found is None and flags & os.O_CREAT:
            if seen.folder >= 0:
                node = self._new(os.stat(f"/proc/{call.thread}/fd/{result}"))
                self.operations.append(Create(seen.folder, seen.name, node, "file"))
        elif flags & os.O_TRUNC and (node := self._node_of_descriptor(call, result)) is not None:
            self.operations.append(Resize(node, 0))

    def _mkdirat(self, call: Call, result: int, seen: _Name) -> None:
        if seen.folder >= 0:
            node = self._new(os.lstat(seen.path))
            self.operations.append(Create(seen.folder, seen.name, node, "folder"))

    def _symlinkat(self, call: Call, result: int, seen: _Name) -> None:
        if seen.folder >= 0:
            node, target = self._new(os.lstat(seen.path)), os.readlink(seen.path)
            self.operations.append(Create(seen.folder, seen.name, node, "link", target))

    def _linkat(self, call: Call, result: int, seen: tuple[_Name, _Name]) -> None:
        source, target = seen
        if target.folder >= 0:
            node = self._known(source)
            self.operations.append(Create(target.folder, target.name, node, "file"))

    def _unlinkat(self, call: Call, result: int, seen: _Name) -> None:
        if seen.folder >= 0:
            self.operations.append(Remove(seen.folder, seen.name))

    def _renameat(self, call: Call, result: int, seen: tuple[_Name, _Name]) -> None:
        source, target = seen
        if source.folder < 0 and target.folder < 0:
            return
        if source.folder < 0 or target.folder < 0:
            raise TracingError(f"{source.path} -> {target.path}: leaves the recorded folder")
        node = self._known(source)
        self.operations.append(Rename(source.folder, source.name, target.folder, target.name, node))

    def _truncate(self, call: Call, result: int, seen: _Name) -> None:
        if seen.folder >= 0:
            node = self._number(os.stat(seen.path))
            self.operations.append(Resize(node, signed(call.arguments[1])))

    def _sync(self, call: Call, result: int, seen: object) -> None:
        self.operations.append(SyncAll())

    # Descriptors.

    def _by_descriptor(self, call: Call, result: int, seen: object) -> None:
        if call.name == "mmap":
            self._mmap(call)
            return
        position = 2 if call.name == "copy_file_range" else 0
        descriptor = signed(call.arguments[position])
        node = self._node_of_descriptor(call, descriptor)
        if node is None:
            return
        if call.name in _UNRECORDABLE:
            raise TracingError(f"{call.name} below the recorded folder")
        if call.name in ("fsync", "fdatasync"):
            is_folder = os.path.isdir(f"/proc/{call.thread}/fd/{descriptor}")
            self.operations.append(SyncFolder(node) if is_folder else SyncFile(node))
        elif call.name == "syncfs":
            self.operations.append(SyncAll())
        elif call.name == "ftruncate":
            self.operations.append(Resize(node, signed(call.arguments[1])))
        elif call.name == "fallocate":
            self._fallocate(call, node)
        elif result > 0:
            self._written(call, node, descriptor, result)

    def _written(self, call: Call, node: int, descriptor: int, count: int) -> None:
        if call.name == "pwrite64":
            offset = signed(call.arguments[3])
        else:  # at the position of the file, which is behind the bytes now
            with open(f"/proc/{call.thread}/fdinfo/{descriptor}") as stream:
                offset = int(stream.readline().split()[1]) - count
        data = _read(f"/proc/{call.thread}/fd/{descriptor}", offset, count)
        self.operations.append(Write(node, offset, data))

    def _fallocate(self, call: Call, node: int) -> None:
        mode, offset, length = map(signed, call.arguments[1:4])
        if mode & ~_KEEP_SIZE:
            raise TracingError("fallocate that removes bytes")
        if not mode:
            descriptor = signed(call.arguments[0])
            size = os.stat(f"/proc/{call.thread}/fd/{descriptor}").st_size
            self.operations.append(Resize(node, max(size, offset + length)))

    def _mmap(self, call: Call) -> None:
        protection, flags, descriptor = map(signed, call.arguments[2:5])
        shared, writable = flags & 3 in (1, 3), protection & 2
        if shared and writable and descriptor >= 0:
            path = fd_path(call.thread, descriptor)
            # SQLite's index of its write-ahead log is rebuilt after a crash.
            if self._is_below(path) and not path.endswith("-shm"):
                raise TracingError(f"{path}: a shared writable mapping")

    # Numbers.

    def _name(self, thread: int, folder: int, text: int) -> _Name:
        path = text_at(thread, text)
        if path == MARKS:
            return _Name(-1, "", path, None)
        path = absolute(thread, folder, path)
        parent, _, name = path.rpartition("/")
        try:
            found = os.lstat(path)
        except OSError:
            found = None
        number = -1
        if self._is_below(parent):
            try:
                number = self._number(os.stat(parent))
            except FileNotFoundError:
                number = -1  # the call fails, too
        return _Name(number, name, path, found)

    def _known(self, name: _Name) -> int:
        assert name.found is not None
        return self._number(name.found)

    def _node_of_descriptor(self, call: Call, descriptor: int) -> int | None:
        path = fd_path(call.thread, descriptor)
        if not self._is_below(path):
            return None
        status = os.stat(f"/proc/{call.thread}/fd/{descriptor}")
        is_kept = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
        return self._number(status) if is_kept else None

    def _is_below(self, path: str) -> bool:
        return path == self._root or path.startswith(f"{self._root}/")

    def _number(self, status: os.stat_result) -> int:
        try:
            return self._nodes[status.st_dev, status.st_ino]
        except KeyError:
            raise TracingError(f"inode {status.st_ino} appeared without being made") from None

    def _new(self, status: os.stat_result) -> int:
        """Number a file that was just made; the inode of a removed one may be used again."""
        self._nodes[status.st_dev, status.st_ino] = number = self._next
        self._next += 1
        return number


_BY_NAME = {
    "openat": Recorder._openat,
    "mkdirat": Recorder._mkdirat,
    "symlinkat": Recorder._symlinkat,
    "linkat": Recorder._linkat,
    "unlinkat": Recorder._unlinkat,
    "renameat": Recorder._renameat,
    "renameat2": Recorder._renameat,
    "truncate": Recorder._truncate,
    "sync": Recorder._sync,
}


def absolute(thread: int, folder: int, path: str) -> str:
    """Return where a path leads that a call was given, its last name not followed."""
    if not path.startswith("/"):
        at = signed(folder)
        base = f"/proc/{thread}/cwd" if at == AT_FDCWD else f"/proc/{thread}/fd/{at}"
        path = f"{os.readlink(base)}/{path}"
    parent, _, name = path.rstrip("/").rpartition("/")
    return f"{os.path.realpath(parent)}/{name}"


def signed(value: int) -> int:
    value &= 0xFFFFFFFFFFFFFFFF
    if value >> 32 == 0 and value >> 31:  # a 32-bit int, e.g. AT_FDCWD
        return value - (1 << 32)
    return value - (1 << 64) if value >> 63 else value


def fd_path(thread: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{thread}/fd/{descriptor}")
    except OSError:
        return ""


def text_at(thread: int, address: int) -> str:
    """Return the text at an address of the traced process."""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        content = b""
        while b"\0" not in content:  # not beyond the page: the next may not be there
            room = 4096 - (address + len(content)) % 4096
            content += memory.read(room)
    return os.fsdecode(content[: content.index(b"\0")])


def _read(path: str, offset: int, count: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, count, offset)
    finally:
        os.close(descriptor)
    if len(data) != count:
        raise TracingError(f"{count} bytes were written, {len(data)} can be read back")
    return data
