"""Prove to the server which robot asks: a signature with the robot's own key on every request.

The key is the one that Flower knows the robot by (NIST P-384, OpenSSH format). The signature covers
the server's name, method, path with query, and time, so that it cannot be used for another request
or at another server; TLS keeps it from being read. Robots whose clock is off learn by how much
instead of a bare 401.

A server's name is its certificate authority's key, which the robot has from its kit: a server with
another authority cannot pass for it. Agents before this form sign without the name. Newer ones send
both signatures, because an older server reads the older one; see docs/decisions/0013.
"""

import base64
import binascii
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_model.durable import write_durably
from fleet_model.errors import RefusedError, SettingsError

KEY_HEADER, TIME_HEADER, SIGNATURE_HEADER = "x-robot-key", "x-robot-time", "x-robot-signature"
SERVER_HEADER, NAMED_SIGNATURE_HEADER = "x-robot-server", "x-robot-server-signature"
# Of a robot that is not admitted yet, once: a token of its kit, and the name that it would like.
TOKEN_HEADER, NAME_HEADER, MAX_TOKEN = "x-robot-token", "x-robot-name", 200
# Flower refuses signatures from more than 5 s ahead (SYSTEM_TIME_TOLERANCE, flwr 1.41): be no
# laxer, or a robot would pass here and fail there without a reason.
MAX_AHEAD_S, MAX_BEHIND_S = 5.0, 300.0


def make_key(path: Path) -> str:
    """Write a new private key (mode 0600) and its public half beside it; return the public line."""
    private = ec.generate_private_key(ec.SECP384R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,  # what `flower-supernode` reads, too
        serialization.NoEncryption(),
    )
    line = public_line(private.public_key())
    # The key last: where there is one, its public half is there, too.
    write_durably(path.with_suffix(".pub"), line + "\n")
    write_durably(path, pem, mode=0o600)
    return line


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key; raises SettingsError that says how to make one."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: no such key; run `edge-agent enroll` first, which keeps an agent.toml"
        ) from None
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: encrypted
        raise SettingsError(f"{path}: not a readable OpenSSH private key ({error})") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SettingsError(f"{path}: expected an ecdsa-sha2-nistp384 key; run `edge-agent enroll`")
    return key


def public_line(key: ec.EllipticCurvePublicKey) -> str:
    """Return the public key as one OpenSSH line: "ecdsa-sha2-nistp384 AAAA..."."""
    return key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()


def parse_public(line: str) -> ec.EllipticCurvePublicKey:
    """Read an OpenSSH public line, with or without a comment; raises SettingsError."""
    try:
        key = serialization.load_ssh_public_key(" ".join(line.split()[:2]).encode())
    except (ValueError, NotImplementedError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"not an OpenSSH public key ({error}); give the line that `edge-agent enroll` prints"
        ) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SettingsError(
            "expected an ECDSA key (ecdsa-sha2-nistp384), as `edge-agent enroll` makes"
        )
    return key


@lru_cache(maxsize=4096)  # of a fleet's keys, asked for with every look at it
def fingerprint(line: str) -> str:
    """Return the key's SHA256 fingerprint as `ssh-keygen -l` prints it."""
    blob = base64.b64decode(line.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Proof:
    """What a request has proven."""

    line: str  # the public line of the key that signed it
    names_server: bool  # False: an older agent's, which another server could repeat


def server_name(ca_pem: bytes) -> str:
    """Return the name of the server whose authority this is: 64 hexadecimal digits.

    Of several certificates (an authority that is being replaced) all make the name together. A new
    certificate of the same key changes nothing.

    Raises:
        ValueError: the bytes hold no certificate in PEM form.
    """
    keys = (one.public_key() for one in x509.load_pem_x509_certificates(ca_pem))
    der, info = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    digests = sorted({hashlib.sha256(key.public_bytes(der, info)).digest() for key in keys})
    return hashlib.sha256(b"".join(digests)).hexdigest()


def sign(
    key: ec.EllipticCurvePrivateKey, method: str, path: str, now: datetime, server: str = ""
) -> Mapping[str, str]:
    """Return the headers that prove who asks for `method` `path` (with query) at `now` (UTC).

    Args:
        key: the robot's.
        method: of the request.
        path: with query, as it is sent.
        now: the robot's time.
        server: what `server_name` returns; "" signs as agents did that named no server.
    """
    stamp = now.isoformat()
    headers = {
        KEY_HEADER: public_line(key.public_key()).split()[1],
        TIME_HEADER: stamp,
        SIGNATURE_HEADER: _signature(key, _signed(method, path, stamp)),
    }
    if server:
        headers[SERVER_HEADER] = server
        headers[NAMED_SIGNATURE_HEADER] = _signature(key, _signed(method, path, stamp, server))
    return headers


def check(
    headers: Mapping[str, str], method: str, path: str, now: datetime, servers: Collection[str] = ()
) -> Proof:
    """Return who signed this request, and whether for one of `servers`, the names of this server.

    Raises:
        RefusedError: no proof, a wrong signature, another server's name, or a clock that is off,
            with the reason.
    """
    try:
        key = parse_public("ecdsa-sha2-nistp384 " + headers[KEY_HEADER])
        stamp, server = headers[TIME_HEADER], headers.get(SERVER_HEADER, "")
        signature = base64.b64decode(
            headers[NAMED_SIGNATURE_HEADER if server else SIGNATURE_HEADER]
        )
        age_s = (now - datetime.fromisoformat(stamp)).total_seconds()
        key.verify(signature, _signed(method, path, stamp, server), ec.ECDSA(hashes.SHA256()))
    except KeyError:
        raise RefusedError("this path is for enrolled robots: the request proves no key") from None
    except (SettingsError, ValueError, TypeError, binascii.Error, InvalidSignature):
        raise RefusedError("the request's signature does not fit its key") from None
    if server and server not in servers:
        raise RefusedError(
            "the request was signed for another server; copy kit/ca.crt of this server to the robot"
        )
    if not -MAX_AHEAD_S < age_s < MAX_BEHIND_S:
        way = "behind" if age_s > 0 else "ahead"
        raise RefusedError(
            f"the robot's clock is {abs(age_s):.0f} s {way} of the server's; set it (NTP, chrony)"
        )
    # The line is written again: a stranger's header must not end up in a log or a shell.
    return Proof(public_line(key), names_server=bool(server))


def utc_now() -> datetime:
    """Return the time that proofs carry."""
    return datetime.now(timezone.utc)


def _signature(key: ec.EllipticCurvePrivateKey, signed: bytes) -> str:
    return base64.b64encode(key.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()


def _signed(method: str, path: str, stamp: str, server: str = "") -> bytes:
    """Return the signed text; the first line distinguishes the two forms."""
    form = f"fleetlearn 2\n{server}" if server else "fleetlearn"
    return f"{form}\n{method.upper()}\n{path}\n{stamp}".encode()
