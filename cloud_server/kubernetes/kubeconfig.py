"""A kubeconfig: which clusters there are, and how each is reached.

Read as kubectl reads it, without the official client: that is 126 MB for this file's sake.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloud_server.kubernetes.credentials import (
    BasicCredential,
    ExecCommand,
    ExecCredential,
    TokenCredential,
)
from fleet_model.errors import SettingsError
from fleet_model.kubernetes.connection import (
    Connection,
    Credential,
    NoCredential,
    Patience,
    TokenFileCredential,
)
from fleet_model.settings import explain

M = TypeVar("M", bound=BaseModel)
VARIABLE, USUAL = "KUBECONFIG", Path("~/.kube/config")


class _Part(BaseModel):
    """What matters of one part; kubectl and its plug-ins keep more in there."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Cluster(_Part):
    server: str = Field(pattern=r"^https?://")
    ca: str = Field(default="", alias="certificate-authority")
    ca_data: str = Field(default="", alias="certificate-authority-data")
    insecure: bool = Field(default=False, alias="insecure-skip-tls-verify")
    tls_name: str = Field(default="", alias="tls-server-name")
    proxy: str = Field(default="", alias="proxy-url")


class _User(_Part):
    token: str = ""
    token_file: str = Field(default="", alias="tokenFile")
    certificate: str = Field(default="", alias="client-certificate")
    certificate_data: str = Field(default="", alias="client-certificate-data")
    key: str = Field(default="", alias="client-key")
    key_data: str = Field(default="", alias="client-key-data")
    username: str = ""
    password: str = ""
    exec: ExecCommand | None = None
    auth_provider: Any = Field(default=None, alias="auth-provider")


class _Context(_Part):
    cluster: str
    user: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class _Named:
    """A part with the file that it is from: relative paths start there."""

    part: Mapping[str, Any]
    file: Path


class KubeConfig:
    """The contexts of one or more files; where two have the same name, the first counts."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the files.

        Raises:
            SettingsError: one is not there or is no kubeconfig.
        """
        self.files = files
        self._parts: dict[str, dict[str, _Named]] = {"context": {}, "cluster": {}, "user": {}}
        for file in files:
            content = _read(file)
            for kind, known in self._parts.items():
                for name, part in _named(content, kind, file).items():
                    known.setdefault(name, _Named(part, file))

    @property
    def contexts(self) -> list[str]:
        """Return the names of all contexts."""
        return sorted(self._parts["context"])

    def namespace(self, context: str) -> str:
        """Return where a context's objects lie that name no namespace; "" if it says nothing."""
        return self._validated("context", context, _Context, f"context {context}").namespace

    def connection(self, context: str, patience: Patience) -> Connection:
        """Return how the cluster of a context is reached.

        Raises:
            SettingsError: a part is missing or wrong, a file of keys cannot be read.
            RefusedError: the command that gives the credential fails.
        """
        chosen = self._validated("context", context, _Context, f"context {context}")
        cluster = self._validated("cluster", chosen.cluster, _Cluster, f"context {context}")
        user, user_file = _User(), self._parts["context"][context].file
        if chosen.user:
            user = self._validated("user", chosen.user, _User, f"context {context}")
            user_file = self._parts["user"][chosen.user].file
        credential = _credential(user, user_file, f"{user_file}: user {chosen.user}")
        where = self._parts["cluster"][chosen.cluster].file
        return Connection(
            name=context,
            server=cluster.server,
            tls=_tls(cluster, where, user, user_file, credential),
            credential=credential,
            tls_name=cluster.tls_name,
            proxy=cluster.proxy or None,
            trust_env=True,
            patience=patience,
        )

    def _validated(self, kind: str, name: str, model: type[M], asked_by: str) -> M:
        named = self._parts[kind].get(name)
        if named is None:
            raise SettingsError(f"{self.files[0]}: {asked_by}: there is no {kind} {name!r}")
        try:
            return model.model_validate(named.part)
        except ValidationError as error:
            keys, words = explain(error, model, show=kind != "user")  # of a user it is a secret
            where = ".".join(keys)
            raise SettingsError(f"{named.file}: {kind} {name}: {where}: {words}") from None


def find_kubeconfig(given: Path | None, environment: Mapping[str, str] = os.environ) -> KubeConfig:
    """Return the file that the operator names, else those of KUBECONFIG, else the usual one."""
    if given is not None:
        return KubeConfig([given])
    named = [Path(one) for one in environment.get(VARIABLE, "").split(os.pathsep) if one]
    there = [one for one in named if one.exists()]  # as kubectl: some may be missing
    return KubeConfig(there or named or [USUAL.expanduser()])


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_bytes())
    except FileNotFoundError:
        raise SettingsError(f"{file}: there is no kubeconfig; name one with --kubeconfig") from None
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # its words would quote secrets
        raise SettingsError(f"{file}: is no YAML; expected a kubeconfig") from None
    if not isinstance(content, dict) or not isinstance(content.get("contexts"), list):
        raise SettingsError(f"{file}: is no kubeconfig: expected a list `contexts`")
    return content


def _named(content: Mapping[str, Any], kind: str, file: Path) -> dict[str, Mapping[str, Any]]:
    """Return name -> part of a list such as `contexts: [{name: r1, context: {...}}]`."""
    parts: dict[str, Mapping[str, Any]] = {}
    for number, one in enumerate(content.get(f"{kind}s") or (), 1):
        name = one.get("name") if isinstance(one, dict) else None
        part = one.get(kind) if isinstance(one, dict) else None
        if not isinstance(name, str) or not isinstance(part or {}, dict):
            raise SettingsError(
                f"{file}: {kind}s: number {number}: expected a name and a {kind} with keys"
            )
        parts.setdefault(name, part or {})
    return parts


def _credential(user: _User, file: Path, subject: str) -> Credential:
    if user.auth_provider is not None:
        raise SettingsError(f"{subject}: auth-provider is not supported; use a token or exec")
    if user.token_file:
        return TokenFileCredential(file.parent / user.token_file)
    if user.token:
        return TokenCredential(user.token)
    if user.username:
        return BasicCredential(user.username, user.password)
    if user.exec is not None:
        return ExecCredential(user.exec, file.parent, subject)
    return NoCredential()


def _tls(
    cluster: _Cluster, cluster_file: Path, user: _User, user_file: Path, credential: Credential
) -> ssl.SSLContext | None:
    if cluster.server.startswith("http://"):
        return None
    context = _trusting(cluster, cluster_file)
    pair = _pair(user, user_file)
    if isinstance(credential, ExecCredential):
        pair = credential.certificate() or pair
    if pair is not None:
        _load_pair(context, pair, user_file)
    return context


def _trusting(cluster: _Cluster, file: Path) -> ssl.SSLContext:
    subject = f"{file}: the authority of {cluster.server}"
    try:
        if cluster.insecure:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return context
        if cluster.ca_data:
            ca = _decoded(cluster.ca_data, subject).decode("ascii")
            return ssl.create_default_context(cadata=ca)
        return ssl.create_default_context(
            cafile=str(file.parent / cluster.ca) if cluster.ca else None
        )
    except (ssl.SSLError, UnicodeDecodeError):
        raise SettingsError(f"{subject} is no certificate in PEM") from None
    except OSError as error:
        raise SettingsError(f"{subject} cannot be read ({error.strerror})") from None


def _pair(user: _User, file: Path) -> tuple[bytes, bytes] | None:
    """Return certificate and key; None if the user has none."""

    def part(data: str, path: str, what: str) -> bytes:
        if data:
            return _decoded(data, f"{file}: {what}")
        if not path:
            return b""
        try:
            return (file.parent / path).read_bytes()
        except OSError as error:
            raise SettingsError(f"{file}: {what} {path}: {error.strerror}") from None

    certificate = part(user.certificate_data, user.certificate, "client-certificate")
    key = part(user.key_data, user.key, "client-key")
    if bool(certificate) != bool(key):
        raise SettingsError(f"{file}: client-certificate and client-key belong together")
    return (certificate, key) if certificate else None


def _load_pair(context: ssl.SSLContext, pair: tuple[bytes, bytes], file: Path) -> None:
    # OpenSSL reads a key from a file only. This one is this user's alone, and is gone at once.
    with tempfile.TemporaryDirectory(prefix="fleetlearn-") as folder:
        path = Path(folder) / "pair.pem"
        path.touch(mode=0o600)
        path.write_bytes(b"\n".join(pair))
        try:
            context.load_cert_chain(path)
        except ssl.SSLError:
            raise SettingsError(
                f"{file}: client-certificate and client-key are no pair in PEM"
            ) from None


def _decoded(text: str, subject: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SettingsError(f"{subject}: expected base64") from None
