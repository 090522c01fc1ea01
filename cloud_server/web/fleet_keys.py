"""Who signs a request to Flower's fleet API, told from its headers alone.

Flower reads and parses the whole body before it looks at the signature, and logs every request that
it refuses. Here a stranger is refused before a byte of the body is read.
"""

import base64
import binascii
import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_model.errors import RefusedError, SettingsError
from fleet_model.protocol.proof import SERVER_HEADER, check, parse_public, utc_now

KEY, SIGNATURE, TIME = b"flwr-public-key", b"flwr-signature", b"flwr-timestamp"
log = logging.getLogger(__name__)


class Keyed(Protocol):
    """A robot of the register."""

    @property
    def key(self) -> str:
        """Return its OpenSSH public line."""

    @property
    def name(self) -> str:
        """Return its name."""

    @property
    def state(self) -> str:
        """Return "approved", or another word if it may not train."""

    @property
    def reason(self) -> str:
        """Return why it is not approved."""


class Keys(Protocol):
    """The register of robots."""

    def robots(self) -> Iterable[Keyed]:
        """Return all; raises SettingsError if the file is damaged."""


@lru_cache(maxsize=16384)
def header_of(line: str) -> bytes:
    """Return what Flower 1.41 puts into the key header for an OpenSSH public line."""
    pem = parse_public(line).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(pem)


class FleetKeys:
    """Knows the key headers of the robots: who is suspended or revoked is so at once."""

    def __init__(self, register: Keys) -> None:
        self._register = register
        self._seen: object = None
        self._known: Mapping[bytes, Keyed] = {}

    def require_known(self, headers: Mapping[bytes, bytes]) -> Keyed:
        """Return the robot that a request claims to be from; RefusedError unless it may train.

        The claim is no proof: Flower checks the signature over the time of every request.
        """
        robot = self._robots().get(headers.get(KEY, b""))
        if robot is None:
            raise RefusedError("this path is for enrolled robots: the request proves no known key")
        if robot.state != "approved":
            why = f": {robot.reason}" if robot.reason else ""
            raise RefusedError(f"robot {robot.name} is {robot.state}{why}")
        return robot

    def require_signature(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise RefusedError unless the key has signed the time, as Flower will demand.

        Takes 0.7 ms; so only requests that are about to cost more are asked.
        """
        key = parse_public(self.require_known(headers).key)
        try:
            signature = base64.b64decode(headers.get(SIGNATURE, b""), validate=True)
            key.verify(signature, headers.get(TIME, b""), ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, binascii.Error, ValueError):
            raise RefusedError("the request's signature does not fit its key") from None

    def require_proof(self, headers: Mapping[bytes, bytes], method: str, path: str) -> None:
        """Raise RefusedError unless an approved robot has signed a request of our own.

        For which server it was signed is checked where it is answered.
        """
        texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        proof = check(texts, method, path, utc_now(), {texts.get(SERVER_HEADER, "")})
        self.require_known({KEY: header_of(proof.line)})

    def _robots(self) -> Mapping[bytes, Keyed]:
        try:
            robots = self._register.robots()
        except SettingsError as error:  # the operator's commands show it; robots go on
            log.debug("the register cannot be read: %s", error)
            return self._known
        if robots is not self._seen:
            self._known = {header_of(robot.key): robot for robot in robots}
            self._seen = robots
        return self._known
