"""The robot's side of our own HTTPS routes: who am I, which model is newest, give me that file."""

import hashlib
import ssl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.settings import ServerLink
from fleet_model.bundle import MAX_JSON_BYTES, Manifest, parse_manifest
from fleet_model.durable import writing
from fleet_model.errors import (
    BundleError,
    ConnectionFailed,
    FleetError,
    RefusedError,
    SettingsError,
)
from fleet_model.proof import fingerprint, public_line, read_key, sign, utc_now

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

ROBOT = "/fleetlearn/v1/robot"


class HttpsStore:
    """A ModelStore over HTTPS, with proof of this robot's key on every request."""

    def __init__(self, link: ServerLink) -> None:
        """Read key and trust; nothing is sent yet.

        Raises:
            SettingsError: no key, or no readable CA certificate.
        """
        import httpx

        self.key = read_key(link.key)
        try:
            context = ssl.create_default_context(cafile=str(link.ca))
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"{link.ca}: not a CA certificate ({error})") from None
        self._address = link.address
        self._client = httpx.Client(
            base_url=f"https://{link.address}", verify=context, timeout=30.0
        )
        self._tag, self._newest = "", None  # type: str, Manifest | None
        self.active_version: int | None = None  # told to the server with every look
        self.bytes_down = 0

    def hello(self) -> tuple[str, str]:
        """Return this robot's name and site in the server's words; ends an older session of it.

        Raises:
            RefusedError: the server does not know the key, or the clock is off.
            ConnectionFailed: no answer, or not the server of the kit.
        """
        return self._identity("POST", f"{ROBOT}/hello")

    def whoami(self) -> tuple[str, str]:
        """Return name and site without touching the session; raises as `hello` does."""
        return self._identity("GET", f"{ROBOT}/whoami")

    def latest(self, channel: str) -> Manifest | None:
        """Return the newest manifest; costs a few hundred bytes while nothing is new."""
        active = "" if self.active_version is None else f"?active={self.active_version}"
        headers = {"if-none-match": self._tag} if self._tag else {}
        response = self._request("GET", f"{ROBOT}/channels/{channel}{active}", headers)
        if response.status_code == 304:
            return self._newest
        if response.status_code == 404:
            return None
        if len(response.content) > MAX_JSON_BYTES:
            raise BundleError("the server's manifest is too long; is it a fleetlearn server?")
        self._newest = parse_manifest(response.content)
        self._tag = response.headers.get("etag", "")
        self.bytes_down += len(response.content)
        return self._newest

    def fetch(self, sha256: str, size_bytes: int, into: Path) -> int:
        """Write one file by content, checked while it arrives; return the bytes transferred."""
        digest, received = hashlib.sha256(), 0
        with self._open("GET", f"{ROBOT}/objects/{sha256}") as response:
            if response.status_code == 404:
                raise BundleError(f"the server has no object {sha256[:12]}; publish again")
            with writing(into) as target:
                for block in response.iter_raw():
                    received += len(block)
                    if received > size_bytes:
                        raise BundleError(
                            f"object {sha256[:12]}: more than the {size_bytes} bytes of its entry"
                        )
                    digest.update(block)
                    target.write(block)
                if digest.hexdigest() != sha256:
                    raise BundleError(
                        f"object {sha256[:12]}: arrived with sha256 {digest.hexdigest()[:12]}; it "
                        "was changed or damaged on the way, the active model stays"
                    )
        self.bytes_down += received
        return received

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _identity(self, method: str, path: str) -> tuple[str, str]:
        answer = self._request(method, path).json()
        return str(answer["name"]), str(answer["site"])

    def _request(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> "httpx.Response":
        with self._open(method, path, headers) as response:
            response.read()
            return response

    @contextmanager
    def _open(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> "Iterator[httpx.Response]":
        import httpx

        proof = sign(self.key, method, path, utc_now())
        try:
            with self._client.stream(
                method, path, headers={**(headers or {}), **proof, "accept-encoding": "identity"}
            ) as response:
                if response.status_code in (401, 403):
                    response.read()
                    raise RefusedError(self._reason(response))
                if response.is_error and response.status_code != 404:
                    raise ConnectionFailed(f"{self._address} answers {response.status_code}")
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> FleetError:
        text = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return ConnectionFailed(
                f"{self._address} is not the server of this robot's kit ({text}); copy the kit "
                "again if the server was made anew"
            )
        return ConnectionFailed(f"no answer from {self._address} ({text})")

    def _reason(self, response: "httpx.Response") -> str:
        mine = fingerprint(public_line(self.key.public_key()))
        try:
            detail: Any = response.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = f"status {response.status_code}"
        return f"{self._address} refuses this robot (key {mine}): {detail}"
