"""What both sides set before they import Flower."""

import os


def quiet() -> None:
    """Keep Flower from calling home; call before flwr is imported."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
