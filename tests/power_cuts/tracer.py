"""Stop a process at the system calls that change files, with nothing but the standard library.

A seccomp filter lets all other calls pass at full speed, ptrace stops the process at these.

ptrace sees what libraries in C and Rust do and what stdio does inside libc, which an LD_PRELOAD
library or patched Python functions would miss. It needs no compiler and no privilege for one's own
child. See ptrace(2), PTRACE_GET_SYSCALL_INFO (Linux 5.3).
"""

import ctypes
import errno
import mmap
import os
import signal
import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol

from system_calls import NAMES, at_form

_TRACEME, _CONT, _SYSCALL, _SETOPTIONS, _SYSCALL_INFO = 0, 7, 24, 0x4200, 0x420E
_SYSGOOD, _FORK, _VFORK, _CLONE, _SECCOMP, _EXITKILL = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 7, 1 << 20
_WALL = 0x40000000
_INFO = struct.Struct("=B3xIQQ")  # kind of stop, architecture, instruction and stack pointer
_EXIT, _ENTRY = 2, 3  # the entry as seccomp sees it
_CALL_ENDS, _CALL_BEGINS = (signal.SIGTRAP | 0x80) << 8, (signal.SIGTRAP | 7 << 8) << 8
# Of linux/prctl.h, linux/seccomp.h and linux/filter.h.
_NO_NEW_PRIVS, _SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000
# Calls that change nothing, or lead to no change, without one of these bits in an argument.
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ONLY_WITH = {"open": (1, _CHANGES), "openat": (2, _CHANGES), "mmap": (3, mmap.MAP_SHARED)}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class TracingError(Exception):
    """The traced process did something that cannot be recorded, or failed."""


class NotPermittedError(TracingError):
    """This machine does not let a process trace its own child."""


class Call(NamedTuple):
    """A system call of a thread, in its *at form."""

    thread: int
    name: str
    arguments: tuple[int, ...]


class Observer(Protocol):
    """What is told of the calls."""

    def before(self, call: Call) -> object:
        """Look at the files before the call; what is returned is passed to `after`."""

    def after(self, call: Call, result: int, seen: object) -> None:
        """Look again; `result` is negative where the call failed."""


def run_traced(work: Callable[[], None], observer: Observer) -> int:
    """Run `work` in a forked process and tell `observer` of its calls and those of its children.

    Returns:
        The exit code: 0, or 1 after an exception, which is printed.

    Raises:
        NotPermittedError: ptrace is not allowed here.
        TracingError: the kernel or processor is not supported.
    """
    child = os.fork()
    if child == 0:
        _work_as_traced(work)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSTOPPED(status):
        raise NotPermittedError("this machine does not permit to trace an own child process")
    ptrace(_SETOPTIONS, child, None, _SYSGOOD | _FORK | _VFORK | _CLONE | _SECCOMP | _EXITKILL)
    try:
        return _Tracing(child, observer).run()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise


def _work_as_traced(work: Callable[[], None]) -> None:
    code = 1
    try:
        if _libc.ptrace(_TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            _stop_at_changes()
            work()
            code = 0
    except BaseException:  # noqa: BLE001 - this process ends here, whatever it is
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _stop_at_changes() -> None:
    """Let the kernel stop this process, and those that it starts, at calls that change files."""
    code = [(_LOAD, 0, 0, 0)]  # the number of the call
    for number, name in NAMES.items():
        stop: list[tuple[int, int, int, int]] = [(_RETURN, 0, 0, _TRACE)]
        if name in _ONLY_WITH:
            argument, bits = _ONLY_WITH[name]
            stop = [
                (_LOAD, 0, 0, 16 + 8 * argument), (_JUMP_IF_SET, 1, 0, bits),
                (_RETURN, 0, 0, _ALLOW), *stop,
            ]  # fmt: skip
        code += [(_JUMP_IF_EQUAL, 0, len(stop), number), *stop]
    code += [(_RETURN, 0, 0, _ALLOW)]
    steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in code))
    program = struct.pack("@HP", len(code), ctypes.addressof(steps))
    for option in ((_NO_NEW_PRIVS, 1, None), (_SET_SECCOMP, _MODE_FILTER, program)):
        if _libc.prctl(*option, 0, 0):
            raise OSError(ctypes.get_errno(), "the system calls cannot be filtered")


class _Tracing:
    def __init__(self, child: int, observer: Observer) -> None:
        self._child, self._observer = child, observer
        self._calls: dict[int, tuple[Call, object]] = {}  # begun and not ended, by thread
        self._threads = {child}

    def run(self) -> int:
        ptrace(_CONT, self._child, None, 0)
        while True:
            thread, status = os.waitpid(-1, _WALL)
            if not os.WIFSTOPPED(status):
                self._threads.discard(thread)
                if thread == self._child:
                    return os.waitstatus_to_exitcode(status)
                continue
            number = os.WSTOPSIG(status)
            if status & ~0xFF in (_CALL_BEGINS, _CALL_ENDS):
                self._at_call(thread)
                number = 0
            elif number == signal.SIGTRAP or thread not in self._threads:
                number = 0  # an event of ptrace itself, or the first stop of a new thread
            self._threads.add(thread)
            ptrace(_SYSCALL if thread in self._calls else _CONT, thread, None, number)

    def _at_call(self, thread: int) -> None:
        info = ctypes.create_string_buffer(88)
        if _libc.ptrace(_SYSCALL_INFO, thread, len(info), ctypes.addressof(info)) <= 0:
            if ctypes.get_errno() == errno.ESRCH:  # its process has ended since it stopped
                return
            raise TracingError("the kernel does not tell system calls (Linux before 5.3)")
        kind = info.raw[0]
        if kind == _ENTRY:
            number, *arguments = struct.unpack_from("=7Q", info, _INFO.size)
            if number in NAMES:
                call = Call(thread, *at_form(NAMES[number], tuple(arguments)))
                self._calls[thread] = call, self._observer.before(call)
        elif kind == _EXIT and thread in self._calls:
            call, seen = self._calls.pop(thread)
            (result,) = struct.unpack_from("=q", info, _INFO.size)
            self._observer.after(call, result, seen)


def ptrace(request: int, thread: int, address: int | None, value: int) -> None:
    """Ask for something of a thread that has stopped; one that has ended since is left alone."""
    ended = errno.ESRCH
    if _libc.ptrace(request, thread, address, value) < 0 and ctypes.get_errno() != ended:
        raise TracingError(f"ptrace({request}): {os.strerror(ctypes.get_errno())}")
