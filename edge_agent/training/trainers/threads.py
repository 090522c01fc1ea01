"""How many processor threads a training has."""

import os


def threads_from_environment() -> int:
    """Return OMP_NUM_THREADS, which the agent sets for its training process; 2 without it."""
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # may be a list: "4,2"
    return int(value) if value.isdigit() and int(value) > 0 else 2
