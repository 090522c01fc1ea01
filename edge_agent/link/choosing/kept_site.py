"""The site by which this robot chooses models: the one that it was told first.

A site can have a model of its own, and the server says at which site a robot is. So somebody who
controls the server could move a robot to a model that was signed for others, by words alone. A
robot keeps the first site; a person changes it, by `edge-agent site` or by enrolling again.
"""

import logging
import re
from pathlib import Path

from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError, StorageError
from fleet_model.protocol.routes import SITE

FILE = "site"
log = logging.getLogger(__name__)


class KeptSite:
    """A file beside what this robot trusts; also read while another process changes it."""

    def __init__(self, folder: Path) -> None:
        """Read nothing yet."""
        self._file = folder / FILE
        self._first = self._last = ""  # that this process was told; of a disk that keeps nothing

    def get(self) -> str:
        """Return the site; "" if none was told yet."""
        try:
            site = self._file.read_text().strip()
        except (OSError, ValueError):
            return self._first
        return site if re.fullmatch(SITE, site) else self._first

    def told(self, site: str) -> None:
        """Keep what the server says, if it is the first; where the disk cannot, in memory."""
        self._last = site
        if self.get() or not re.fullmatch(SITE, site):
            return
        self._first = site
        try:
            self._write(site)
        except StorageError as error:
            log.warning("%s", error)

    def begin_again(self) -> None:
        """Keep what the server said last: this robot is enrolled anew; raises StorageError."""
        try:
            self._file.unlink(missing_ok=True)  # durable with what the caller writes next
        except OSError as error:
            raise _not_kept(error) from None
        self._first = ""
        self.told(self._last)

    def change(self, site: str) -> None:
        """Keep another one, by a person's hand; raises SettingsError if that is no site."""
        if not re.fullmatch(SITE, site):
            raise SettingsError(
                f"site {ascii(site)[:70]}: expected letters, digits, '.', '_' and '-', at most 63, "
                "a letter or digit first, as `cloud-server robots list` shows it on the server"
            )
        self._write(site)

    def _write(self, site: str) -> None:
        try:
            write_durably(self._file, f"{site}\n")
        except OSError as error:
            raise _not_kept(error) from None


def _not_kept(error: OSError) -> StorageError:
    return StorageError(
        f"the site of this robot cannot be kept ({error.strerror or 'unknown reason'}): make room "
        "on the disk of the agent's state, and let the agent's user write there. The active model "
        "stays"
    )
