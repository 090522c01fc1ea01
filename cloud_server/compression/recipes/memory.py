"""Print by how many bytes a process grows at most that opens a model file and answers once.

usage: python -m cloud_server.compression.recipes.memory FILE SIZE THREADS

A process of its own, for what another one has held before would hide it. Linux tells; elsewhere
it prints nothing.
"""

import sys
from pathlib import Path

import numpy as np

from cloud_server.compression.recipes.opened import open_model

_STATUS = Path("/proc/self/status")


def main(file: str, size: str, threads: str) -> None:
    """Open the file, answer a black picture, print the number."""
    if not _STATUS.exists():
        return
    import ai_edge_litert.interpreter  # noqa: F401  (the library is no part of the model)

    before = _kilobytes("VmRSS")
    open_model(Path(file), int(threads))(np.zeros((int(size), int(size), 3), np.float32))
    print((_kilobytes("VmHWM") - before) * 1024)  # noqa: T201  (read by the caller)


def _kilobytes(name: str) -> int:
    # Of this process: ru_maxrss is inherited from the parent.
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
