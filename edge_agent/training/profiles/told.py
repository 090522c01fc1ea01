"""What this machine has told in profiles, from the first on: which records of which groups."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.training.profiles.groups import Key, Names
from fleet_model.durable import write_durably
from fleet_model.errors import TrainingError

TOLD = "profile.json"  # in the folder of what was told before


@dataclass(slots=True)
class Told:
    """A list of changes, so that the file grows with the records and not with the profiles."""

    changes: list[tuple[str, str, list[str], list[str]]] = field(default_factory=list)
    last: dict[Key, Names] = field(default_factory=dict)
    ever: set[Names] = field(default_factory=set)

    def add(self, groups: Mapping[Key, Names]) -> None:
        """Add what is told now."""
        for key, names in sorted(groups.items()):
            before = self.last.get(key, frozenset())
            if names != before:
                self._change(*key, sorted(names - before), sorted(before - names))

    def save(self, folder: Path) -> None:
        """Keep it, before anything is sent; raises TrainingError if the disk does not take it."""
        try:
            write_durably(folder / TOLD, json.dumps(self.changes))
        except OSError as error:
            raise TrainingError(
                f"no profile is told, for what was told cannot be kept ({error.strerror}); check "
                "the disk of the state directory"
            ) from None

    def _change(self, source: str, topic: str, came: list[str], went: list[str]) -> None:
        names = self.last.get((source, topic), frozenset()).union(came).difference(went)
        self.changes.append((source, topic, came, went))
        self.last[source, topic] = names
        self.ever.add(names)

    @classmethod
    def read(cls, folder: Path) -> "Told":
        """Return what a folder keeps; raises TrainingError for a damaged file."""
        told = cls()
        try:
            for source, topic, came, went in json.loads((folder / TOLD).read_text("utf-8")):
                told._change(source, topic, came, went)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError):
            raise TrainingError(
                f"{TOLD} in the state directory is damaged, so it is not known what was told "
                "before; remove it, and a profile is told anew"
            ) from None
        return told
