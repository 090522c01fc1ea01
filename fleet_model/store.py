"""Where published bundles live."""

from pathlib import Path
from typing import Protocol

from fleet_model.bundle import Offer

# Of a file, `.<sha256>.part`, that has not arrived as a whole: the next fetch continues it.
PART = ".part"


class ModelStore(Protocol):
    """Look at the newest bundle of a channel, fetch files by content.

    Implementations: a directory on the server, HTTPS on robots.
    """

    def latest(self, channel: str) -> Offer | None:
        """Return what `channel` offers now; None if nothing was published."""
        ...

    def fetch(self, sha256: str, size_bytes: int, into: Path) -> int:
        """Write one file by content to `into`, verified; return the bytes transferred.

        After a break a part may lie beside `into`: called again, the fetch continues it.
        """
        ...
