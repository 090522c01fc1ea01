"""The token of a kit, by which a new robot admits itself: kept until the server knows the robot."""

import logging
import re
import socket
from pathlib import Path

from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import MAX_TOKEN, NAME_HEADER, TOKEN_HEADER

FILE = "token"  # in a kit, and beside robot.key
log = logging.getLogger(__name__)


class JoinToken:
    """A file of two lines, token and name, mode 0600."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def take(self, kit: Path, name: str) -> bool:
        """Copy the token of a kit, if it has one; return whether.

        Args:
            kit: folder.
            name: for the robot; "" takes the name of this machine.

        Raises:
            SettingsError: the kit's token cannot be read.
        """
        try:
            token = (kit / FILE).read_text().strip()
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise SettingsError(f"{kit / FILE}: cannot be read ({reason})") from None
        if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
            raise SettingsError(
                f"--name {name}: expected letters, digits, '.', '_' and '-', at most 63"
            )
        write_durably(self._path, f"{token}\n{name or machine_name()}\n", mode=0o600)
        return True

    def headers(self) -> dict[str, str]:
        """Return what admits this robot; nothing once it is known."""
        try:
            token, name = self._path.read_text().split()
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            log.warning("%s is no token of a kit; copy it again, or remove it", self._path.name)
            return {}
        return {TOKEN_HEADER: token[:MAX_TOKEN], NAME_HEADER: name}

    def used(self) -> None:
        """Remove the token: the server knows this robot, and nobody needs it any more."""
        self._path.unlink(missing_ok=True)


def has_token(folder: Path) -> bool:
    """Say whether a robot has a token that it has not used."""
    return (folder / FILE).exists()


def machine_name() -> str:
    """Return this machine's host name as the name of a robot may be."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:63].lstrip("_.-") or "robot"
