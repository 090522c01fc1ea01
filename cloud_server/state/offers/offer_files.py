"""Which version a channel offers, and which one it offers to the robots of one site.

  channels/stable.json                 {"version": 5}, and "lineage": "detector" unless the first
  channels/stable/sites/hall-1.json    the same for robots of site hall-1 on this channel

A file's name below channels/, without its end, is the name of the offer; see
fleet_model/protocol/routes.py.
"""

import json
from contextlib import suppress
from pathlib import Path

from fleet_model.durable import remove_asides, remove_durably, write_durably
from fleet_model.errors import BundleError

END = ".json"


class OfferFiles:
    """Reads and writes them; DirectoryStore has the lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> dict[str, tuple[int, str]]:
        """Return name -> (version, lineage), channels first; raises BundleError if one is damaged.

        The channels stand before the sites.
        """
        files = [file for file in self._folder.rglob(f"*{END}") if file.name[0] != "."]
        named = {str(file.relative_to(self._folder)).removesuffix(END): file for file in files}
        found = dict[str, tuple[int, str]]()
        for name in sorted(named, key=lambda name: ("/" in name, name)):
            with suppress(FileNotFoundError):  # just withdrawn
                found[name] = self.read(name)
        return found

    def read(self, name: str) -> tuple[int, str]:
        """Return the version and its lineage.

        Raises:
            FileNotFoundError: nothing is offered under that name.
            BundleError: the file is damaged.
        """
        file = self._file(name)
        content = file.read_text()
        try:
            fields = json.loads(content)
            return int(fields["version"]), str(fields.get("lineage", ""))
        except (ValueError, TypeError, KeyError):
            again = (
                "the next run that publishes writes it again"
                if "/" not in name
                else "its robots then get what the channel offers"
            )
            raise BundleError(
                f"{file}: damaged; restore it from a backup, or remove it: {again}"
            ) from None

    def write(self, name: str, version: int, lineage: str) -> None:
        """Offer a version under a name."""
        fields = {"version": version, **({"lineage": lineage} if lineage else {})}
        write_durably(self._file(name), json.dumps(fields))

    def remove(self, name: str) -> None:
        """Offer nothing under a name any more; raises FileNotFoundError if nothing is."""
        remove_durably(self._file(name))

    def tidy(self) -> None:
        """Remove what killed processes have left aside."""
        for folder in (self._folder, *(one for one in self._folder.rglob("*") if one.is_dir())):
            remove_asides(folder)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}{END}"
