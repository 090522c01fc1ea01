"""What takes much memory: bodies that were sent, which go back to the system, and frameworks."""

import ctypes
import gc
import sys

# Each takes more memory than all the rest of an agent.
FRAMEWORKS = ("jax", "tensorflow", "torch")
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others give back by themselves


def give_back() -> None:
    """Collect cycles, then return the free pages of the heaps.

    Flower and its web server leave cycles that hold whole bodies, and free blocks between used
    ones stay with the process: a few megabytes with every transfer.
    """
    gc.collect()
    if _trim is not None:
        _trim(0)


def available_mb() -> float:
    """Return how much memory programs may still take here."""
    import psutil

    return float(psutil.virtual_memory().available) / 1e6


def framework_loaded() -> bool:
    """Say whether this process has loaded a machine learning framework."""
    return any(name in sys.modules for name in FRAMEWORKS)
