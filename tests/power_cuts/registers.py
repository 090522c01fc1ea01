"""Change the system call at which ptrace has stopped a process: do less of it, or nothing.

x86-64 and aarch64. test_faults.py looks at what the process then sees.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from tracer import ptrace

_GETREGSET, _SETREGSET = 0x4204, 0x4205
_GENERAL, _CALL_OF_ARM = 1, 0x404  # NT_PRSTATUS, NT_ARM_SYSTEM_CALL of linux/elf.h
# Of user_regs_struct: how many, where the result and the third argument are.
_X86 = platform.machine() == "x86_64"
_WORDS, _RESULT, _THIRD = (27, 10, 12) if _X86 else (34, 0, 2)
_NUMBER = 15  # orig_rax: which call it is
_NONE = -1  # no such call


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def skip(thread: int) -> None:
    """Let the kernel do nothing, at the entry of a call; then `answer` at its exit."""
    if _X86:
        with _registers(thread) as words:
            words[_NUMBER] = _NONE
    else:
        number = (ctypes.c_int * 1)(_NONE)
        _exchange(_SETREGSET, thread, _CALL_OF_ARM, number)


def answer(thread: int, code: int) -> None:
    """Let a call that was skipped end with an error."""
    with _registers(thread) as words:
        words[_RESULT] = -code


def shorten(thread: int) -> None:
    """Let a call that writes take half of its bytes, as on a disk that has room for no more."""
    with _registers(thread) as words:
        words[_THIRD] //= 2


@contextmanager
def _registers(thread: int) -> Iterator["ctypes.Array[ctypes.c_long]"]:
    words = (ctypes.c_long * _WORDS)()
    _exchange(_GETREGSET, thread, _GENERAL, words)
    yield words
    _exchange(_SETREGSET, thread, _GENERAL, words)


def _exchange(request: int, thread: int, kind: int, value: "ctypes.Array[ctypes.c_long]") -> None:
    piece = _Piece(ctypes.addressof(value), ctypes.sizeof(value))
    ptrace(request, thread, kind, ctypes.addressof(piece))
