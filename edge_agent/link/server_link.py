"""The robot's side of our own HTTPS routes: who am I, which model is newest, give me that file."""

import json
import logging
import secrets
import ssl
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.link import answers
from edge_agent.link.download import Download, fetch_whole
from edge_agent.link.elsewhere import Elsewhere
from edge_agent.link.signed_models import SignedModels
from edge_agent.robot.join_token import JoinToken
from edge_agent.robot.server_settings import ServerLink
from fleet_model.bundle import MAX_JSON_BYTES, FileEntry, Offer, read_offer
from fleet_model.errors import (
    BundleError,
    ConnectionFailed,
    RefusedError,
    SettingsError,
    UpdateError,
)
from fleet_model.protocol.proof import (
    fingerprint,
    public_line,
    read_key,
    server_name,
    sign,
    utc_now,
)
from fleet_model.protocol.report import (
    AGENT_PARAMETER,
    REPORT_PARAMETER,
    STANDING_HEADER,
    Standing,
    unpack_standing,
)
from fleet_model.protocol.routes import CHANNEL, HELLO, OBJECT, ROBOT, WHOAMI, path_of
from fleet_model.protocol.version import PROTOCOL, PROTOCOL_PARAMETER

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

REPORT_AGAIN_S = 600.0  # after a server did not take a report
WHOLE, PARTS = (200, 304, 404), (200, 206, 404, 416)  # statuses that are answers
SAME_TIME_S = 2.0  # an answer's date is of whole seconds, and may be one old
SLOW_S = 5.0  # an answer that took longer tells nothing of clocks
DOUBT = "; is it a fleetlearn server, and of this version?"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int  # 200, 304 or 404
    content: bytes
    tag: str


class HttpsStore:
    """A ModelStore over HTTPS, with proof of this robot's key on every request."""

    def __init__(
        self,
        link: ServerLink,
        now: Callable[[], datetime] = utc_now,
        signed: SignedModels | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """Read key and trust; nothing is sent yet.

        Args:
            link: the robot's settings.
            now: the robot's clock; the server refuses proofs of another time.
            signed: verifies what a channel offers; None is for those that look at no channel.
            elsewhere: has models and their signatures, in the place of the server.

        Raises:
            SettingsError: no key, no readable CA certificate, or an address that is none.
        """
        import httpx

        self.key = read_key(link.key)
        try:
            context = ssl.create_default_context(cafile=str(link.ca))
            self._server = server_name(link.ca.read_bytes())
        except (OSError, ssl.SSLError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"{link.ca}: not a CA certificate ({reason}); copy ca.crt from the server's kit"
            ) from None
        self.address, self._now = link.address, now
        self._token = JoinToken(link.key.parent)
        try:
            self._client = httpx.Client(
                base_url=f"https://{link.address}", verify=context, timeout=answers.SILENCE_S
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise SettingsError(f"server.address {link.address}: {error}") from None
        self._signed, self._elsewhere = signed, elsewhere
        self._tag, self._newest = "", None  # type: str, Offer | None
        self._report_after = 0.0  # monotonic: no report before
        self.active_version: int | None = None  # sent to the server with every look
        self.standing = Standing()  # what the server thinks of this robot, of its last answer
        self.server_ahead_s = 0.0  # of this robot's clock; 0 also for what is too little to tell
        self._received = 0
        self._agent = secrets.token_hex(8)  # tells this process from another one with the same key

    @property
    def bytes_down(self) -> int:
        """Return how many bytes have come, from the server and from elsewhere."""
        return self._received + (self._elsewhere.bytes_down if self._elsewhere else 0)

    @property
    def models_from(self) -> str:
        """Return where models come from: the server's address, or another place's name."""
        return self.address if self._elsewhere is None else self._elsewhere.name

    def use(self, address: str) -> None:
        """Send further requests there; the same server is trusted as before."""
        self.address = address
        self._client.base_url = f"https://{address}"

    def hello(self) -> tuple[str, str]:
        """Return this robot's name and site in the server's words; ends an older session of it.

        Raises:
            RefusedError: the server does not know the key, or the clock is off.
            ConnectionFailed: no answer, or not the server of the kit.
        """
        name, site = self._identity("POST", path_of(ROBOT, HELLO), self._token.headers())
        self._token.used()
        if self._signed is not None:
            self._signed.site.told(site)
        return name, site

    def whoami(self) -> tuple[str, str]:
        """Return name and site without touching the session; raises as `hello` does."""
        return self._identity("GET", path_of(ROBOT, WHOAMI))

    def latest(self, channel: str, report: str = "") -> Offer | None:
        """Return the newest manifest; costs a few hundred bytes while nothing is new.

        Args:
            channel: where to look.
            report: packed; a server of another version that does not take it is asked without.

        Raises:
            TrustError: it is not signed as it should be.
        """
        tell = time.monotonic() >= self._report_after
        try:
            answer = self._look(channel, report if tell else "")
        except UpdateError as error:
            log.warning("the server does not take this robot's report: %s", error)
            self._report_after = time.monotonic() + REPORT_AGAIN_S
            answer = self._look(channel, "")
        self._received += len(answer.content)
        offer = self._newest if answer.status == 304 else None
        if answer.status == 200:
            offer = read_offer(answer.content)
        if self._signed is not None:
            offer = self._signed.check(
                channel,
                offer,
                self._small,
                signs=self.standing.signs,
                elsewhere=self._elsewhere,
                active=self.active_version,
            )
        self._newest = offer
        if answer.status != 304:  # what is not trusted, or not signed yet, is asked for again
            self._tag = answer.tag if offer and offer.content == answer.content else ""
        return offer

    def fetch(self, sha256: str, size_bytes: int, into: Path) -> int:
        """Write one file by content, checked at its end; return the bytes transferred.

        A fetch that broke off is continued where it ended, also by another process. If what came
        in pieces is not the file, it is fetched once more from its start.

        Raises:
            BundleError: it is no longer published, or was changed on the way; the part is removed.
            ConnectionFailed: it broke off; the part stays.
        """
        entry, before = FileEntry(sha256=sha256, size_bytes=size_bytes), self.bytes_down
        if self._elsewhere is None or not self._elsewhere.fetch(entry, into):
            fetch_whole(Download(entry, into), self._rest, self.address)
        return self.bytes_down - before

    def _rest(self, download: Download) -> None:
        path = path_of(ROBOT, OBJECT, sha256=download.entry.sha256)
        with self._open("GET", path, download.headers()) as response:
            self._require_expected(response, download)
            download.append(self._counted(response, download.entry.size_bytes))

    def _require_expected(self, response: "httpx.Response", download: Download) -> None:
        """Raise unless the answer continues what has arrived, or is the whole file."""
        status = response.status_code
        if status == 206 and download.is_continued(response.headers.get("content-range", "")):
            return
        download.discard()
        if status == 404:
            raise BundleError(
                f"object {download.entry.sha256[:12]} is no longer published; the newest model is "
                "asked for again"
            )
        if status != 200:
            raise self._stranger(f"status {status} for a part of a file")

    def _counted(self, response: "httpx.Response", size_bytes: int) -> "Iterator[bytes]":
        for block in answers.blocks(response, size_bytes, self.address):
            self._received += len(block)
            yield block

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        if self._elsewhere is not None:
            self._elsewhere.close()

    def ask(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        wait_s: float = 0.0,
        most_bytes: int = MAX_JSON_BYTES,
    ) -> bytes | None:
        """Return an answer of another route, None for 404; `wait_s` is how long it may take.

        Raises:
            UpdateError: the server takes no such request.
        """
        with self._open(method, path, content=content, wait_s=wait_s) as response:
            answer = answers.small(response, self.address, DOUBT, most_bytes)
            return answer if response.status_code == 200 else None

    def look_query(self, report: str) -> str:
        """Return what the server is told with every look, as a query."""
        about = {
            "active": "" if self.active_version is None else str(self.active_version),
            PROTOCOL_PARAMETER: str(PROTOCOL),  # a server that knows no numbers ignores it
            REPORT_PARAMETER: report,
            AGENT_PARAMETER: self._agent,
        }
        return "&".join(f"{name}={value}" for name, value in about.items() if value)

    def _look(self, channel: str, report: str) -> _Answer:
        query = self.look_query(report)
        headers = {"if-none-match": self._tag} if self._tag else {}
        path = path_of(ROBOT, CHANNEL, channel=channel)
        return self._request("GET", f"{path}?{query}" if query else path, headers)

    def _small(self, path: str) -> bytes | None:
        """Return a small file of the server's store; None if it is not there."""
        answer = self._request("GET", ROBOT + path)
        self._received += len(answer.content)
        return answer.content if answer.status == 200 else None

    def _identity(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> tuple[str, str]:
        answer = self._request(method, path, headers)
        try:
            values = json.loads(answer.content)
            return str(values["name"]), str(values["site"])
        except (ValueError, TypeError, LookupError, RecursionError):
            raise self._stranger(f"status {answer.status} without a name") from None

    def _request(self, method: str, path: str, headers: dict[str, str] | None = None) -> _Answer:
        with self._open(method, path, headers) as response:
            content = self._read(response)
            return _Answer(response.status_code, content, response.headers.get("etag", ""))

    def _read(self, response: "httpx.Response") -> bytes:
        return answers.small(response, self.address, DOUBT)

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        content: bytes = b"",
        wait_s: float = 0.0,
    ) -> "Iterator[httpx.Response]":
        import httpx

        begin = self._now()
        proof = sign(self.key, method, path, begin, self._server)
        try:
            with self._client.stream(
                method,
                path,
                headers={**(headers or {}), **proof, "accept-encoding": "identity"},
                content=content,
                timeout=max(wait_s, answers.SILENCE_S),
            ) as response:
                self._compare_clocks(begin, response)
                if response.status_code in (401, 403):
                    raise RefusedError(self._reason(response.status_code, self._read(response)))
                if response.status_code == 400:
                    raise UpdateError(answers.detail(400, self._read(response)))
                if response.status_code == 429 or response.status_code >= 500:
                    detail = answers.detail(response.status_code, self._read(response))
                    raise ConnectionFailed(f"{self.address} cannot answer now: {detail}")
                if response.status_code not in (PARTS if "range" in (headers or {}) else WHOLE):
                    raise self._stranger(f"status {response.status_code}")
                self.standing = unpack_standing(response.headers.get(STANDING_HEADER, ""))
                yield response
        except (httpx.HTTPError, ssl.SSLError, UnicodeError) as error:  # of a name with empty parts
            raise answers.unreachable(error, self.address, self._now()) from None

    def _compare_clocks(self, begin: datetime, response: "httpx.Response") -> None:
        if self._now() - begin > timedelta(seconds=SLOW_S):  # such as one that was held
            return
        try:
            then = parsedate_to_datetime(response.headers["date"]) + timedelta(seconds=0.5)
            ahead_s = (then - (begin + (self._now() - begin) / 2)).total_seconds()
        except (LookupError, ValueError, TypeError, OverflowError):  # no date, or none that is one
            return
        self.server_ahead_s = ahead_s if abs(ahead_s) > SAME_TIME_S else 0.0

    def _stranger(self, what: str) -> ConnectionFailed:
        return ConnectionFailed(f"{self.address} answers {what}{DOUBT}")

    def _reason(self, status: int, content: bytes) -> str:
        mine = fingerprint(public_line(self.key.public_key()))
        return f"{self.address} refuses this robot (key {mine}): {answers.detail(status, content)}"
