"""What a kubeconfig's user proves itself with."""

import base64
import json
import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet_model.errors import RefusedError, SettingsError
from fleet_model.kubernetes.connection import bearer

COMMAND_S = 60.0  # a login may ask another server


class TokenCredential:
    """A token that stays the same."""

    def __init__(self, token: str) -> None:
        self._headers = bearer(token, "the kubeconfig's token")

    def headers(self) -> Mapping[str, str]:
        """Return the token's header field."""
        return self._headers

    def renew(self) -> bool:
        """Return that there is no other."""
        return False


class BasicCredential:
    """A name and a password."""

    def __init__(self, name: str, password: str) -> None:
        pair = base64.b64encode(f"{name}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {pair}"}

    def headers(self) -> Mapping[str, str]:
        """Return name and password."""
        return self._headers

    def renew(self) -> bool:
        """Return that there are no others."""
        return False


class _Variable(BaseModel):
    name: str
    value: str


class ExecCommand(BaseModel):
    """`exec` of a kubeconfig's user: a command that prints a credential."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    api_version: Literal[
        "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"
    ] = Field(alias="apiVersion")
    command: str
    args: tuple[str, ...] | None = None
    env: tuple[_Variable, ...] | None = None
    install_hint: str = Field(default="", alias="installHint")
    interactive_mode: str = Field(default="", alias="interactiveMode")


class ExecCredential:
    """What such a command prints; it is run once, and again when it was not accepted."""

    def __init__(self, command: ExecCommand, folder: Path, subject: str) -> None:
        """Run nothing yet.

        Args:
            command: as the kubeconfig has it.
            folder: of the kubeconfig: where a command with a slash in its name is.
            subject: the user, for messages.
        """
        self._command, self._folder, self._subject = command, folder, subject
        self._status: Mapping[str, Any] | None = None
        self._running = threading.Lock()

    def headers(self) -> Mapping[str, str]:
        """Return the token's header field; none where the command gives a certificate."""
        token = str(self._known().get("token") or "")
        return bearer(token, self._subject) if token else {}

    def certificate(self) -> tuple[bytes, bytes] | None:
        """Return certificate and key, if the command gives them."""
        status = self._known()
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        return (str(certificate).encode(), str(key).encode()) if certificate and key else None

    def renew(self) -> bool:
        """Run the command again; a new certificate counts from the next connection only."""
        before = self.headers()
        self._status = None
        return self.headers() != before

    def _known(self) -> Mapping[str, Any]:
        with self._running:
            if self._status is None:
                self._status = self._run()
            return self._status

    def _run(self) -> Mapping[str, Any]:
        command = self._command
        if command.interactive_mode == "Always":
            raise SettingsError(f"{self._subject}: its command asks a person; log in before")
        name = command.command
        program = str(self._folder / name) if "/" in name else name
        info = {"kind": "ExecCredential", "apiVersion": command.api_version}
        environment = {
            **os.environ,
            "KUBERNETES_EXEC_INFO": json.dumps({**info, "spec": {"interactive": False}}),
            **{one.name: one.value for one in command.env or ()},
        }
        try:
            done = subprocess.run(
                [program, *(command.args or ())], env=environment, stdin=subprocess.DEVNULL,
                capture_output=True, timeout=COMMAND_S, check=False,
            )  # fmt: skip
        except OSError as error:
            hint = f"; {command.install_hint.strip()}" if command.install_hint else ""
            raise SettingsError(f"{self._subject}: {name}: {error.strerror}{hint}") from None
        except subprocess.TimeoutExpired:
            raise RefusedError(
                f"{self._subject}: {name} gives no credential in {COMMAND_S:g} s"
            ) from None
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip()[-300:]
            raise RefusedError(f"{self._subject}: {name} ends with {done.returncode}: {words}")
        try:
            status = dict(json.loads(done.stdout)["status"])
        except (ValueError, KeyError, TypeError, RecursionError):  # its words may be a secret
            raise RefusedError(f"{self._subject}: {name} prints no ExecCredential") from None
        return status
