"""End a process at each of its operations on files, or let the disk be full there, and look.

What counts is what any code of the process does below one folder, seen with ptrace. In contrast to
power_cuts.py the work is done again for every operation, for what it says and does about an error
of the disk matters, too:

    kill   it ends before the operation, as by SIGKILL
    once   there is no room for this operation alone, as where others need room for a moment
    full   there is no room from this operation on: half of a write, and then nothing more
"""

import errno
import logging
import os
import random
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import registers
from disk import Disk
from power_cuts import Expected, Scenario, WrongStateError, in_one_line, memory, put
from recorder import MARKS, absolute, fd_path, record, signed, text_at
from system_calls import AT_FDCWD
from tracer import Call, TracingError, run_traced

from fleet_model.command_line.app import run_app
from fleet_model.errors import StorageError

KINDS = KILL, ONCE, FULL = ("kill", "once", "full")
log = logging.getLogger(__name__)
_NEVER = 1 << 30  # number of an operation
_ROOM = os.strerror(errno.ENOSPC)
# The calls that may find no room, some of them on few file systems: where a file is written late
# its fsync does, and where nothing is written in place a rename does.
_NEED_ROOM = {
    "mkdirat", "symlinkat", "linkat", "renameat", "renameat2", "write", "writev", "pwrite64",
    "sendfile", "copy_file_range", "fallocate", "fsync", "fdatasync", "syncfs",
}  # fmt: skip
_AT_FIRST, _AT_SECOND, _AT_THIRD = {"mkdirat", "unlinkat"}, {"symlinkat"}, {"renameat", "linkat"}
_SYNCS = {"fsync", "fdatasync"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_TRUNC


class Faults:
    """An observer of run_traced that disturbs the operation with a number."""

    def __init__(self, root: Path, kind: str, at: int) -> None:
        """Disturb nothing yet.

        Args:
            root: only what happens below it counts.
            kind: one of KINDS; of the last two, only what needs room counts.
            at: number of the operation, from 1.
        """
        self._root, self._kind, self._at = f"{root.resolve()}/", kind, at
        self.count = 0
        self.step = 0  # marks that came before, see recorder.mark
        self.disturbed = ""  # the operation
        self._safe: dict[int, int] = {}  # inode -> bytes that no full disk takes away

    def before(self, call: Call) -> object:
        """Disturb the call if it is its turn."""
        operation, needs_room = self._operation(call)
        if not operation or not (needs_room or self._kind == KILL):
            return None
        self.count += 1
        if self.count < self._at or (self.count > self._at and self._kind != FULL):
            return None
        is_first, self.disturbed = not self.disturbed, self.disturbed or operation
        if self._kind == KILL:
            os.kill(call.thread, signal.SIGKILL)
            return None
        if is_first and self._kind == FULL and call.name == "write" and call.arguments[2] > 1:
            registers.shorten(call.thread)
            return None
        if call.name in _SYNCS:
            self._lose_bytes(call)
        registers.skip(call.thread)
        return registers.skip

    def after(self, call: Call, result: int, seen: object) -> None:
        """Say that there is no room."""
        if seen is registers.skip:
            registers.answer(call.thread, errno.ENOSPC)
        elif call.name in _SYNCS and result == 0:
            status = os.stat(f"/proc/{call.thread}/fd/{call.arguments[0]}")
            self._safe[status.st_ino] = status.st_size

    def _lose_bytes(self, call: Call) -> None:
        """Cut off half of what was to be made safe: where files are written late, it is lost."""
        path = f"/proc/{call.thread}/fd/{call.arguments[0]}"
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            safe = self._safe.get(status.st_ino, 0)
            os.truncate(path, (safe + status.st_size) // 2)

    def _operation(self, call: Call) -> tuple[str, bool]:
        """Return what a call is about to change, "" for nothing, and whether that needs room."""
        name, (first, *rest) = call.name.removesuffix("2"), call.arguments
        needs_room = call.name in _NEED_ROOM
        if name == "openat":
            flags = signed(rest[1]) if len(rest) > 1 else os.O_CREAT | os.O_TRUNC
            path = self._path(call.thread, first, rest[0])
            needs_room = bool(flags & os.O_CREAT) and not os.path.lexists(path)
            if not (needs_room or flags & os.O_TRUNC) and os.path.exists(path):
                status = os.stat(path)
                self._safe.setdefault(status.st_ino, status.st_size)
            if not (needs_room or flags & _WRITES):
                return "", False
        elif name in _AT_FIRST:
            path = self._path(call.thread, first, rest[0])
        elif name in _AT_SECOND:
            path = self._path(call.thread, rest[0], rest[1])
        elif name in _AT_THIRD:
            path = self._path(call.thread, rest[1], rest[2])
        elif name == "truncate":
            path = self._path(call.thread, AT_FDCWD, first)
        elif name == "mmap":
            return "", False
        else:
            path = fd_path(call.thread, signed(rest[1] if name == "copy_file_range" else first))
        if not f"{path}/".startswith(self._root):
            return "", False
        return f"{call.name} {path.removeprefix(self._root)}", needs_room

    def _path(self, thread: int, folder: int, text: int) -> str:
        path = text_at(thread, text)
        if path == MARKS:
            self.step += 1
            return ""
        return absolute(thread, folder, path)


class Outcome(NamedTuple):
    """How a disturbed process has ended."""

    code: int  # its exit code, negative for a signal
    said: str  # on stderr, with its log
    faults: Faults


def disturbed(root: Path, work: Callable[[], None], kind: str, at: int) -> Outcome:
    """Do the work in a child process that ends as a command line does, and disturb it.

    Raises:
        TracingError: this machine cannot trace.
    """
    with tempfile.TemporaryFile() as said:
        faults = Faults(root, kind, at)
        code = run_traced(lambda: _as_a_command(work, said.fileno()), faults)
        said.seek(0)
        return Outcome(code, said.read().decode(), faults)


def _as_a_command(work: Callable[[], None], said: int) -> NoReturn:
    os.dup2(said, 2)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s", force=True)
    code = 0
    try:
        run_app(work, "act")  # type: ignore[arg-type]  # it is called, as an app is
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        log.exception("this is a bug")
        code = 1
    sys.stderr.flush()
    os._exit(code)


def disturb_everywhere(
    scenario: Scenario, *, kinds: Sequence[str] = KINDS, seed: int = 0, most: int = 10**6
) -> dict[str, int]:
    """Disturb each operation of a scenario and check what it leaves and what it says.

    Returns how many operations were disturbed, by kind.

    Args:
        scenario: what to do; its `act` may raise what a command line turns into a message.
        kinds: of disturbances.
        seed: draws the points where there are more.
        most: points of each kind.

    Raises:
        WrongStateError: neither the old nor the new state was there, it did not heal, an error was
            not told, or not in one clear line.
        TracingError: this machine cannot trace.
    """
    with tempfile.TemporaryDirectory(prefix="faults-", dir=memory()) as folder:
        root = Path(folder, "root")
        root.mkdir()
        scenario.prepare(root)
        begin = Disk.of(root).tree()
        expected = Expected(scenario, record(root, lambda: scenario.act(root)), root)
        points = {}
        for kind in kinds:
            put(begin, root)
            calm = disturbed(root, lambda: scenario.act(root), kind, _NEVER)
            if calm.code:
                raise TracingError(f"it fails by itself: {calm.said}")
            chosen = range(1, calm.faults.count + 1)
            number = min(most, len(chosen))
            for at in sorted(random.Random(seed).sample(chosen, number)):
                put(begin, root)
                outcome = disturbed(root, lambda: scenario.act(root), kind, at)
                try:
                    _require_told(outcome, kind)
                    expected.require(_step(outcome, expected))
                except (Exception, SystemExit) as error:
                    raise WrongStateError(
                        f"{kind} at operation {at} of {len(chosen)}, {outcome.faults.disturbed}: "
                        f"{in_one_line(error)}\n{outcome.said}"
                    ) from error
            points[kind] = number
        return points


def _step(outcome: Outcome, expected: Expected) -> int:
    """Return how many steps are done: all of them, where it says so."""
    return len(expected.marks) if outcome.code == 0 else outcome.faults.step


def _require_told(outcome: Outcome, kind: str) -> None:
    """Raise unless it was killed, has ended well, or has said clearly why not."""
    code, said, _ = outcome
    wanted = {-signal.SIGKILL} if kind == KILL else {0, StorageError.exit_code}
    if code not in wanted:
        raise WrongStateError(f"exit code {code}")
    if "Traceback" in said:
        raise WrongStateError("a traceback")
    if code > 0:
        last = said.splitlines()[-1]
        if _ROOM not in last or "Errno" in last:
            raise WrongStateError(f"an error that does not say what is wrong: {last}")
