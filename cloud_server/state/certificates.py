"""The server's own certificate authority: made at init, trusted by robots through the kit."""

import ipaddress
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_server.state.directory import ServerDirectory
from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import server_name

log = logging.getLogger(__name__)
CA_DAYS, SERVER_DAYS = 3650, 825  # 825 days is the longest that common clients accept


def make_secrets(server_dir: ServerDirectory, names: Sequence[str], now: datetime) -> None:
    """Write CA, server certificate for `names` and the admin token; keys are mode 0600.

    Not durable as a whole: `init` syncs all that it has made.
    """
    server_dir.secrets.mkdir(parents=True, exist_ok=True)
    server_dir.secrets.chmod(0o700)
    ca_key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleetlearn server CA")])
    ca = (
        _builder(subject, subject, ca_key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .sign(ca_key, hashes.SHA384())
    )
    _write_key(server_dir.secrets / "ca.key", ca_key)
    server_dir.certificates.mkdir(parents=True, exist_ok=True)
    (server_dir.certificates / "ca.crt").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    make_server_certificate(server_dir, names, now)
    _write_secret(server_dir.admin_token, secrets.token_urlsafe(32).encode() + b"\n")


def make_server_certificate(
    server_dir: ServerDirectory, names: Sequence[str], now: datetime
) -> None:
    """Write a new server key and certificate, signed by the CA of this directory."""
    try:
        ca = x509.load_pem_x509_certificate((server_dir.certificates / "ca.crt").read_bytes())
        ca_key = serialization.load_pem_private_key(
            (server_dir.secrets / "ca.key").read_bytes(), password=None
        )
    except FileNotFoundError as error:
        raise SettingsError(f"{error.filename}: missing; was `cloud-server init` run?") from None
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise SettingsError("secrets/ca.key: expected the elliptic-curve key that init wrote")
    key = ec.generate_private_key(ec.SECP384R1())
    # Clients look at the alternative names only; a common name has room for 64 characters.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleetlearn server")])
    certificate = (
        _builder(subject, ca.subject, key.public_key(), now, SERVER_DAYS)
        .add_extension(  # Python 3.13 refuses certificates without it
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA384())
    )
    _write_key(server_dir.secrets / "server.key", key)
    write_durably(
        server_dir.certificates / "server.crt", certificate.public_bytes(serialization.Encoding.PEM)
    )


@dataclass(frozen=True, slots=True)
class Certificates:
    """What stands in the certificates of a directory."""

    server_until: datetime  # UTC
    ca_until: datetime
    names: tuple[str, ...]
    fits: bool  # the server's key is of its certificate, which this authority has signed


def read_certificates(server_dir: ServerDirectory) -> Certificates:
    """Read what `make_secrets` wrote; raises SettingsError that names the damaged file."""
    ca, server = (_read(server_dir.certificates / name) for name in ("ca.crt", "server.crt"))
    key_file = server_dir.secrets / "server.key"
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        server.verify_directly_issued_by(ca)
        fits = key.public_key() == server.public_key()
    except (InvalidSignature, ValueError, TypeError):
        fits = False
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return Certificates(
        server_until=server.not_valid_after_utc,
        ca_until=ca.not_valid_after_utc,
        names=tuple(str(one.value) for one in names),
        fits=fits,
    )


def server_names(server_dir: ServerDirectory) -> frozenset[str]:
    """Return the names that robots' proofs may give this server: of the kit, and of its own."""
    names = set()
    for path in (server_dir.kit / "ca.crt", server_dir.certificates / "ca.crt"):
        try:
            names.add(server_name(path.read_bytes()))
        except (OSError, ValueError) as error:  # robots that name the other one still get in
            log.warning("%s: not a readable certificate (%s)", path, error)
    return frozenset(names)


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: not a readable certificate ({error})") from None


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # robots' clocks may be a little behind
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write_secret(path, pem)


def _write_secret(path: Path, content: bytes) -> None:
    write_durably(path, content, mode=0o600)
