"""The export child ends with the process that started it, also when that was killed."""

import ctypes
import os
import signal
import stat
import threading

PR_SET_PDEATHSIG = 1  # of sys/prctl.h


def end_with_parent() -> None:
    """Watch stdin, a pipe whose other end only the parent holds; do nothing if it is no pipe."""
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        # At once, also while a framework is deep in code of its own, where no thread of Python
        # runs. On other systems than Linux the thread must do.
        prctl = getattr(ctypes.CDLL(None), "prctl", None)
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        threading.Thread(target=_wait, name="parent", daemon=True).start()


def _wait() -> None:
    os.read(0, 1)  # the parent writes nothing: this returns when it is gone
    os._exit(1)
