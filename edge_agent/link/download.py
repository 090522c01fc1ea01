"""A file by content that may arrive over several connections: what has come is kept aside.

A robot on a bad link would never get a file of gigabytes if each break began at 0. The part is
verified as a whole at its end, so it does not matter which connection, process or year it is from.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from fleet_model.bundle import FileEntry, sha256_of_file
from fleet_model.durable import name_durably
from fleet_model.errors import BundleError, ConnectionFailed
from fleet_model.store import PART

log = logging.getLogger(__name__)


class Download:
    """The part of one file that has arrived, `.<sha256>.part` beside where the file will be."""

    def __init__(self, entry: FileEntry, into: Path) -> None:
        self.entry = entry
        self._into = into
        self._part = into.with_name(f".{entry.sha256}{PART}")
        if self.size > entry.size_bytes:
            self.discard()

    @property
    def size(self) -> int:
        """Return how many bytes have arrived."""
        return self._part.stat().st_size if self._part.exists() else 0

    @property
    def has_all(self) -> bool:
        """Return whether as many bytes have arrived as the file has; see `finish`."""
        return self.size == self.entry.size_bytes

    def headers(self) -> dict[str, str]:
        """Return what asks for the rest, or for the whole file if it is another one there."""
        if self.size == 0:
            return {}
        return {"range": f"bytes={self.size}-", "if-range": f'"{self.entry.sha256}"'}

    def is_continued(self, content_range: str) -> bool:
        """Return whether an answer 206 with this header continues the part."""
        whole = self.entry.size_bytes
        return content_range == f"bytes {self.size}-{whole - 1}/{whole}"

    def append(self, blocks: Iterable[bytes]) -> None:
        """Add bytes as they arrive; what was added before an error stays, but for a full disk.

        Raises:
            BundleError: they are more than the file has.
            OSError: the disk is full; the part is removed, for others need the room.
        """
        self._part.parent.mkdir(parents=True, exist_ok=True)
        room = self.entry.size_bytes - self.size
        try:
            with self._part.open("ab") as stream:
                for block in blocks:
                    room -= len(block)
                    if room < 0:
                        raise BundleError(
                            f"object {self.entry.sha256[:12]}: more than the "
                            f"{self.entry.size_bytes} bytes of its entry"
                        )
                    stream.write(block)
        except (BundleError, OSError):
            self.discard()
            raise
        finally:
            if self.size == 0:
                self.discard()

    def finish(self) -> str:
        """Give the file its name if it is what was asked for, else discard it; return its sha256.

        A power cut leaves the part, or the whole file under its name.
        """
        self._part.touch()  # a file of no bytes
        digest = sha256_of_file(self._part)
        if digest == self.entry.sha256:
            name_durably(self._part, self._into)
        else:
            self.discard()
        return digest

    def discard(self) -> None:
        """Forget what has arrived."""
        self._part.unlink(missing_ok=True)


def fetch_whole(download: Download, rest: Callable[[Download], None], who: str) -> None:
    """Fetch what is missing of a file, and give it its name.

    If what came in pieces is not the file, it is fetched once more from its start.

    Args:
        download: of the file.
        rest: fetches once what is missing; its errors pass.
        who: sends it, for words.

    Raises:
        BundleError: it was changed on the way; the part is removed.
        ConnectionFailed: it broke off; the part stays.
    """
    sha256, in_pieces = download.entry.sha256, download.size > 0
    digest = _once(download, rest, who)
    if digest != sha256 and in_pieces:
        log.warning("object %s: its pieces do not fit; fetching it from the start", sha256[:12])
        digest = _once(download, rest, who)
    if digest != sha256:
        raise BundleError(
            f"object {sha256[:12]}: arrived with sha256 {digest[:12]}; it was changed or damaged "
            "on the way, the active model stays"
        )


def _once(download: Download, rest: Callable[[Download], None], who: str) -> str:
    """Fetch what is missing of a file, if anything is; return the sha256 of all that came."""
    if not download.has_all:
        rest(download)
        if not download.has_all:
            raise ConnectionFailed(
                f"{who} sent {download.size} of the {download.entry.size_bytes} bytes of object "
                f"{download.entry.sha256[:12]}"
            )
    return download.finish()
