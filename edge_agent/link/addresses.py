"""Where the server is: as agent.toml says, or where the server itself has announced to move.

An announcement comes over TLS from the server of this robot's kit, and at the new address only that
server is trusted again. A robot goes where it gets an answer, and back if it gets none there.
"""

import json
import logging
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edge_agent.robot.server_settings import Address
from fleet_model.durable import write_durably

FILE = "server-address.json"  # in the state directory
log = logging.getLogger(__name__)


class Addresses:
    """The address in use and another one, durable until agent.toml names another server."""

    def __init__(self, given: str, state: Path) -> None:
        """Read what an earlier process has kept; `given` is the address in agent.toml."""
        self._file = state / FILE
        self._given = self.current = given
        self.other = ""  # "": none is known
        try:
            kept = json.loads(self._file.read_text())
            if kept["given"] == given:
                self.current, self.other = str(kept["current"]), str(kept["other"])
        except (OSError, ValueError, TypeError, LookupError):  # never written, or damaged
            return

    def announce(self, address: str) -> bool:
        """Keep where the server says that it moves to; return whether that is news."""
        if not address or address in (self.current, self.other):
            return False
        try:
            TypeAdapter(Address).validate_python(address)
        except ValidationError:
            log.warning("the server announces %.80r, which is no address", address)
            return False
        log.info("the server announces that it moves to %s", address)
        self.other = address
        self._save()
        return True

    def turn(self) -> None:
        """Use the other one from now on."""
        self.current, self.other = self.other, self.current
        self._save()

    def _save(self) -> None:
        kept = {"given": self._given, "current": self.current, "other": self.other}
        try:
            write_durably(self._file, json.dumps(kept))
        except OSError as error:  # a restart asks at the old address, which may announce it again
            log.warning("%s cannot be written: %s", self._file.name, error.strerror)
