"""The system calls that change files and folders, by their numbers on x86-64 and aarch64.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
"""

import platform

_X86_64 = {
    1: "write", 2: "open", 9: "mmap", 18: "pwrite64", 20: "writev", 40: "sendfile", 74: "fsync",
    75: "fdatasync", 76: "truncate", 77: "ftruncate", 82: "rename", 83: "mkdir", 84: "rmdir",
    85: "creat", 86: "link", 87: "unlink", 88: "symlink", 162: "sync", 257: "openat",
    258: "mkdirat", 263: "unlinkat", 264: "renameat", 265: "linkat", 266: "symlinkat",
    285: "fallocate", 296: "pwritev", 306: "syncfs", 316: "renameat2", 326: "copy_file_range",
    328: "pwritev2",
}  # fmt: skip
_AARCH64 = {
    34: "mkdirat", 35: "unlinkat", 36: "symlinkat", 37: "linkat", 38: "renameat", 45: "truncate",
    46: "ftruncate", 47: "fallocate", 56: "openat", 64: "write", 66: "writev", 68: "pwrite64",
    70: "pwritev", 71: "sendfile", 81: "sync", 82: "fsync", 83: "fdatasync", 222: "mmap",
    267: "syncfs", 276: "renameat2", 285: "copy_file_range", 287: "pwritev2",
}  # fmt: skip
# A program that uses these would change files behind the recorder's back: it is refused.
_UNSUPPORTED = {425: "io_uring_setup", 437: "openat2"}

NAMES = {"x86_64": _X86_64, "aarch64": _AARCH64}.get(platform.machine(), {}) | _UNSUPPORTED
AT_FDCWD = -100

# Name -> the same call in the form with folder descriptors: which of its arguments are passed on,
# None stands for "relative to the working folder".
AT_FORMS = {
    "open": ("openat", (None, 0, 1)),
    "creat": ("openat", (None, 0)),
    "rename": ("renameat", (None, 0, None, 1)),
    "mkdir": ("mkdirat", (None, 0)),
    "rmdir": ("unlinkat", (None, 0)),
    "unlink": ("unlinkat", (None, 0)),
    "link": ("linkat", (None, 0, None, 1)),
    "symlink": ("symlinkat", (0, None, 1)),
}


def at_form(name: str, arguments: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Return the call as its *at form."""
    if name not in AT_FORMS:
        return name, arguments
    new_name, order = AT_FORMS[name]
    return new_name, tuple(AT_FDCWD if i is None else arguments[i] for i in order)
