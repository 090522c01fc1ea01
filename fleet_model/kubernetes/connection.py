"""How a cluster's API is reached: address, trust, credential, patience."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fleet_model.errors import RefusedError


class Credential(Protocol):
    """What says who is asking."""

    def headers(self) -> Mapping[str, str]:
        """Return the header fields of the next request; raises RefusedError."""
        ...

    def renew(self) -> bool:
        """Return whether there is another credential, after one was not accepted."""
        ...


class NoCredential:
    """A certificate in the TLS context says it, or nothing does."""

    def headers(self) -> Mapping[str, str]:
        """Return none."""
        return {}

    def renew(self) -> bool:
        """Return that there is no other."""
        return False


class TokenFileCredential:
    """A token in a file, which others replace while it is used."""

    def __init__(self, file: Path) -> None:
        self._file, self._token = file, ""

    def headers(self) -> Mapping[str, str]:
        """Return what the file has now; raises RefusedError if it cannot be read."""
        try:
            self._token = self._file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise RefusedError(f"{self._file}: the token cannot be read") from None
        return bearer(self._token, str(self._file))

    def renew(self) -> bool:
        """Return whether the file has another token by now."""
        before = self._token
        self.headers()
        return self._token != before


def bearer(token: str, subject: str) -> Mapping[str, str]:
    """Return a token's header field; raises RefusedError, which does not show it."""
    if not token.isascii() or not token.isprintable() or not token:
        raise RefusedError(f"{subject}: is no token")
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one cluster may take. Many robots are off, or behind a bad link."""

    connect_s: float = 3.0  # and for the first word
    silence_s: float = 15.0  # without a byte
    answer_s: float = 30.0  # for one answer as a whole, however slowly it trickles
    retries: int = 2  # of what fails at once; silence is not tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One cluster."""

    name: str  # for messages: the kubeconfig's context
    server: str  # URL
    tls: ssl.SSLContext | None
    credential: Credential = field(default_factory=NoCredential)
    tls_name: str = ""  # of the certificate, if it is not the host of `server`
    proxy: str | None = None
    trust_env: bool = False  # HTTPS_PROXY and NO_PROXY count
    patience: Patience = Patience()
