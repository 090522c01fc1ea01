"""Who may use the page: whoever has the token, from this machine's own names, from the page itself.

The token is in the address that is printed. The first answer puts it into a cookie that scripts do
not see and that no other site's page sends along; the page then takes it out of the address bar.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from edge_agent.serving.http import names_this_machine

Headers = Mapping[bytes, bytes]
_TOKEN_BYTES = 32
_OWN = (b"same-origin", b"none")  # none: typed by a person, or opened from a terminal
# Nothing from elsewhere, no code in the page's markup; frames of the robot are no business of
# another page.
PROTECTION = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class RefusedRequestError(Exception):
    """A request that gets no answer; the text says why."""


@dataclass(frozen=True)
class Access:
    """The secret of one process."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(_TOKEN_BYTES), repr=False)
    # A browser has one jar for all ports of a host: two robots' pages must not share a name.
    cookie: str = field(default_factory=lambda: f"label-{secrets.token_hex(4)}")

    @property
    def set_cookie(self) -> tuple[bytes, bytes]:
        """Return the header that gives a browser the token."""
        value = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
        return b"set-cookie", value.encode()

    def require(self, method: str, headers: Headers, query: bytes) -> bool:
        """Refuse a request that is not of the page, or of who has the printed address.

        Returns:
            Whether the token was in the address.

        Raises:
            RefusedRequestError: it is refused.
        """
        if not names_this_machine(headers):
            raise RefusedRequestError("only requests to localhost are answered")
        origin = headers.get(b"origin")
        if origin is not None and origin != b"http://" + headers.get(b"host", b""):
            raise RefusedRequestError("a page of another origin may not ask here")
        if method not in ("GET", "HEAD") and origin is None:
            raise RefusedRequestError("only the page itself may answer: there is no Origin")
        given = parse_qs(query.decode("latin-1")).get("token", [""])[0]
        if given and self._is_token(given):
            return True
        if headers.get(b"sec-fetch-site", b"none") not in _OWN:
            raise RefusedRequestError("a page of another site may not ask here")
        if not self._is_token(self._cookie_of(headers)):
            raise RefusedRequestError(
                "open the address that `edge-agent label` has printed, with its token"
            )
        return False

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _cookie_of(self, headers: Headers) -> str:
        for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.cookie:
                return value
        return ""
