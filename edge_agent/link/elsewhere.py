"""Models from another place than the server: a plain file server, or a bucket.

  <place>/metadata/timestamp.json ...            the same names as in the server's store
  <place>/targets/stable/<sha256>.manifest.json
  <place>/objects/<sha256>

Nothing is proved there, and nothing is believed: what is signed is verified as if it came from the
server. A failure there is none of the robot's server: the robot keeps its model, and goes on with
rounds. See docs/decisions/0027-signed-models.md.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from edge_agent.link.download import Download, fetch_whole
from edge_agent.robot.server_settings import ServerLink
from fleet_model.bundle import FileEntry
from fleet_model.errors import BundleError, ConnectionFailed, RefusedError
from fleet_model.protocol.routes import OBJECT, path_of

FILES = "https"  # the scheme of a plain file server; all others are buckets


class Place(Protocol):
    """Plain files by path. Errors: ConnectionFailed, RefusedError."""

    def small(self, path: str) -> bytes | None:
        """Return a small file; None if it is not there."""
        ...

    def rest(self, download: Download, path: str, count: Callable[[int], None]) -> bool:
        """Fetch what is missing of a file, counting its bytes; return whether it is there."""
        ...

    def close(self) -> None:
        """Close connections, end child processes."""
        ...


class Elsewhere:
    """What robots ask of the place that is set; for one thread."""

    def __init__(self, place: Place, name: str) -> None:
        """Ask nothing yet; `name` is for words, and holds no path."""
        self._place, self.name = place, name
        self.bytes_down = 0

    def small(self, path: str) -> bytes | None:
        """Return a small file; None if it is not there; raises BundleError."""
        with self._telling():
            content = self._place.small(path)
        self._count(len(content or b""))
        return content

    def fetch(self, entry: FileEntry, into: Path) -> bool:
        """Write one file by content, checked; return False if the place does not have it.

        Raises:
            BundleError: it was changed, or the place does not answer as it should.
        """
        there = True

        def rest(download: Download) -> None:
            nonlocal there
            there = self._place.rest(
                download, path_of("", OBJECT, sha256=entry.sha256), self._count
            )
            if not there:
                raise _NotThereError

        with self._telling():
            try:
                fetch_whole(Download(entry, into), rest, self.name)
            except _NotThereError:
                return False
        return True

    def close(self) -> None:
        """Close what is open."""
        self._place.close()

    def _count(self, size: int) -> None:
        self.bytes_down += size

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Keep a failure there apart from one of the server, which the agent waits for."""
        try:
            yield
        except (ConnectionFailed, RefusedError) as error:
            raise BundleError(
                f"{error}; models are taken from there (server.models), the active model stays"
            ) from None


class _NotThereError(Exception):
    pass


def open_elsewhere(link: ServerLink) -> Elsewhere | None:
    """Return the place of server.models; None if the server has the models.

    Raises:
        SettingsError: its authority cannot be read, or a package is missing.
    """
    if not link.models:
        return None
    parts = urlsplit(link.models)
    if parts.scheme == FILES:
        from edge_agent.link.file_server import FileServer

        return Elsewhere(FileServer(link.models, link.models_ca), parts.netloc)
    from edge_agent.link.bucket import Bucket

    name = f"{parts.scheme}://{parts.netloc}"
    return Elsewhere(Bucket(link.models, link.models_options, name), name)
