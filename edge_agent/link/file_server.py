"""Models from a plain file server over HTTPS, as nginx or a bucket's public address."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edge_agent.link import answers
from edge_agent.link.download import Download
from fleet_model.errors import ConnectionFailed, RefusedError, SettingsError

if TYPE_CHECKING:
    import httpx

ABSENT = (403, 404)  # a bucket says 403 of what is not there, unless everybody may list it


class FileServer:
    """Plain GET of files; redirections are not followed, and nothing of the robot is sent."""

    def __init__(self, url: str, authority: Path | None) -> None:
        """Read whom to trust; nothing is asked yet.

        Args:
            url: of the folder that holds metadata, targets and objects.
            authority: certificate that the server's is checked by; None: those of this system.

        Raises:
            SettingsError: the certificate cannot be read.
        """
        import httpx

        self._name = urlsplit(url).netloc
        try:
            context = ssl.create_default_context(cafile=None if authority is None else authority)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"server.models_ca {authority}: not a CA certificate ({reason}); name the file of "
                f"the authority that signs the certificate of {self._name}"
            ) from None
        self._client = httpx.Client(base_url=url, verify=context, timeout=answers.SILENCE_S)

    def small(self, path: str) -> bytes | None:
        """Return a small file; None if it is not there."""
        with self._open(path, {}) as response:
            if response.status_code in ABSENT:
                return None
            self._require(response, 200)
            return answers.small(response, self._name)

    def rest(self, download: Download, path: str, count: Callable[[int], None]) -> bool:
        """Fetch what is missing of a file: its name is its content, so any part of it fits."""
        headers = {"range": f"bytes={download.size}-"} if download.size else {}
        with self._open(path, headers) as response:
            if response.status_code in ABSENT:
                return False
            continues = response.headers.get("content-range", "")
            if response.status_code != 206 or not download.is_continued(continues):
                download.discard()
                self._require(response, 200)

            def counted() -> Iterator[bytes]:
                size = download.entry.size_bytes
                for block in answers.blocks(response, size, self._name):
                    count(len(block))
                    yield block

            download.append(counted())
        return True

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @contextmanager
    def _open(self, path: str, headers: dict[str, str]) -> "Iterator[httpx.Response]":
        import httpx

        asked = {**headers, "accept-encoding": "identity", "cache-control": "no-cache"}
        try:
            with self._client.stream("GET", path, headers=asked) as response:
                yield response
        except (httpx.HTTPError, ssl.SSLError, UnicodeError) as error:
            text = str(error) or type(error).__name__
            if "CERTIFICATE_VERIFY_FAILED" in text:
                raise ConnectionFailed(
                    f"the certificate of {self._name} is not trusted ({text}): name its authority "
                    "in server.models_ca"
                ) from None
            raise ConnectionFailed(f"no answer from {self._name} ({text})") from None

    def _require(self, response: "httpx.Response", status: int) -> None:
        """Raise unless the answer has this status."""
        got = response.status_code
        if got == status:
            return
        if got == 401:
            raise RefusedError(f"{self._name} asks for a password, and robots have none for it")
        if 300 <= got < 400:
            raise ConnectionFailed(
                f"{self._name} sends robots to another address (status {got}), which is not "
                "followed: set server.models to that address"
            )
        raise ConnectionFailed(f"{self._name} cannot answer now: status {got}")
