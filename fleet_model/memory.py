"""Memory that large bodies leave behind goes back to the system at once."""

import ctypes
import gc

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others give back by themselves


def give_back() -> None:
    """Collect cycles, then return the free pages of the heaps.

    Flower and its web server leave cycles that hold whole bodies, and free blocks between used
    ones stay with the process: a few megabytes with every transfer.
    """
    gc.collect()
    if _trim is not None:
        _trim(0)
