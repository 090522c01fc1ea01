"""What of this machine a training may use; the agent tells its training process by environment."""

import os

DEVICE, ROWS_AT_ONCE = "EDGE_AGENT_TRAINING__DEVICE", "EDGE_AGENT_TRAINING__ROWS_AT_ONCE"


def threads_from_environment() -> int:
    """Return OMP_NUM_THREADS, which the agent sets for its training process; 2 without it."""
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # may be a list: "4,2"
    return int(value) if value.isdigit() and int(value) > 0 else 2


def device_from_environment() -> str:
    """Return training.device of the agent's settings."""
    return os.environ.get(DEVICE, "auto")


def rows_from_environment() -> int:
    """Return training.rows_at_once of the agent's settings."""
    value = os.environ.get(ROWS_AT_ONCE, "")
    return int(value) if value.isdigit() else 0
