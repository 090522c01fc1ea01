"""The client of python-tuf over the agent's own link: roots, timestamp, snapshot, roles, in order.

Loaded by tuf_process.py alone: it takes 14 MB and 0.2 s. Its own files are not synced and need
symbolic links, so it works in a temporary folder, and what it has verified is kept by the caller.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from fleet_model.errors import TrustError
from fleet_model.protocol.proof import utc_now

ROOT = "root.json"
MOST_BYTES = 200_000  # of one file; they have about 1,000
STAYS = "the active model stays"


def refresh(
    held: dict[str, bytes],
    targets: Sequence[str],
    base: str,
    get: Callable[[str], bytes | None],
) -> dict[str, str]:
    """Return name -> sha256 of what is signed; a name under which nothing is, is left out.

    Args:
        held: file name -> content of what is trusted, root.json among them; what is verified here
            is added, also where the end fails.
        targets: the names.
        base: path of the server before the names of metadata.
        get: asks the server; None: it is not there. Its errors pass.

    Raises:
        TrustError: what the server has does not follow from what is trusted.
    """
    fetcher = _LinkFetcher(get)
    with TemporaryDirectory(prefix="fleetlearn-trust-") as place:
        folder = Path(place)
        for file, content in held.items():
            if file != ROOT:
                (folder / file).write_bytes(content)
        try:
            updater = Updater(place, base, fetcher=fetcher, config=_limits(), bootstrap=held[ROOT])
            updater.refresh()
            found = {name: updater.get_targetinfo(name) for name in targets}
        except (RepositoryError, DownloadError, DeserializationError) as error:
            raise TrustError(f"{_words(error, fetcher, held)}; {STAYS}") from None
        finally:
            held |= {file.name: file.read_bytes() for file in folder.glob("*.json")}
    return {name: info.hashes["sha256"] for name, info in found.items() if info is not None}


def require_root(content: bytes) -> None:
    """Raise TrustError unless this is a root that its own keys have signed."""
    try:
        root = Metadata[Root].from_bytes(content)
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except (RepositoryError, DeserializationError, ValueError, AttributeError):
        raise TrustError(
            "root.json is no list of keys that sign models; copy it from the server's kit"
        ) from None


class _LinkFetcher(FetcherInterface):
    """Asks through the agent's link; remembers the last file, for words about it."""

    def __init__(self, get: Callable[[str], bytes | None]) -> None:
        self._get = get
        self.name, self.content = ROOT, b""

    def _fetch(self, url: str) -> Iterator[bytes]:
        content = self._get(url)
        self.name = url.rpartition("/")[2]
        if content is None:
            raise DownloadHTTPError("it is not there", 404)
        self.content = content
        yield content


def _limits() -> UpdaterConfig:
    return UpdaterConfig(
        root_max_length=MOST_BYTES,
        timestamp_max_length=MOST_BYTES,
        snapshot_max_length=MOST_BYTES,
        targets_max_length=MOST_BYTES,
    )


def _words(error: Exception, fetcher: _LinkFetcher, held: dict[str, bytes]) -> str:
    name = fetcher.name[:60]
    if isinstance(error, ExpiredMetadataError):
        is_root = "root" in str(error)
        return _expired(ROOT if is_root else name, held[ROOT] if is_root else fetcher.content)
    if isinstance(error, DownloadHTTPError):
        return f"{name}, by which models are signed, is not on the server"
    kinds = {
        UnsignedMetadataError: "is not signed by the keys that this robot trusts",
        BadVersionNumberError: "is older than what this robot has seen, or of another state than "
        "what belongs to it: somebody shows it what was valid once",
        LengthOrHashMismatchError: "is not the file that was signed",
        DownloadLengthMismatchError: f"is longer than {MOST_BYTES} bytes",
        DeserializationError: "is damaged",
    }
    what = next((words for kind, words in kinds.items() if isinstance(error, kind)), "")
    return f"the server's {name} {what or 'lacks what belongs to it'}"


def _expired(name: str, content: bytes) -> str:
    counted = "counts no longer"
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        until = datetime.fromisoformat(json.loads(content)["signed"]["expires"].rstrip("Z"))
        counted = f"counted until {until:%Y-%m-%d %H:%M} UTC"
    return (
        f"the server's {name} {counted}, by this robot's clock it is {utc_now():%Y-%m-%d %H:%M} "
        "UTC: its clock is wrong, the server has not signed since, or somebody holds newer models "
        "back"
    )
