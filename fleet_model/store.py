"""Where published bundles live."""

from pathlib import Path
from typing import Protocol

from fleet_model.bundle import Manifest


class ModelStore(Protocol):
    """Publish bundles to a channel, look at its newest one, fetch files by content.

    Implementations: a directory on the server, HTTPS on robots (which cannot publish).
    """

    def latest(self, channel: str) -> Manifest | None:
        """Return what `channel` offers now; None if nothing was published."""
        ...

    def fetch(self, sha256: str, size_bytes: int, into: Path) -> int:
        """Write one file by content to `into`, verified; return the bytes transferred."""
        ...
