"""What every child process of the agent does: import as its parent, keep its pipes, step aside."""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

# The least urgent work of a robot: at nice 10 it gets a tenth of a core that perception or control
# wants, and all of an idle one. For the same reason the memory killer takes it first.
NICENESS, OOM_SCORE = 10, 500
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def import_paths() -> Mapping[str, str]:
    """Let the child import what its parent can, plug-ins too, but not from its current folder."""
    paths = [path or str(Path.cwd()) for path in sys.path]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def signal_at_parents_end(number: signal.Signals) -> None:
    """Have the kernel send a signal to this process when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout to ourselves: what a library prints goes to stderr instead."""
    inbound, outbound = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(inbound, "rb"), os.fdopen(outbound, "wb")


def step_aside(niceness: int = NICENESS, oom_score: int = OOM_SCORE) -> None:
    """Be less urgent than all else on this robot, for processor, disk and memory killer."""
    import psutil

    os.nice(niceness)
    with suppress(OSError, psutil.Error):  # not in every container
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
        Path("/proc/self/oom_score_adj").write_text(str(oom_score))
