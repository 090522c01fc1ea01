"""Published versions side by side: which there are, and the comparisons that are open."""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cloud_server.console.compare.contenders import FEWEST, MOST, Contender
from cloud_server.console.compare.lineup import Lineup
from cloud_server.console.compare.view import size_words
from cloud_server.state.model_store import DirectoryStore
from fleet_model.errors import SettingsError

MOST_OPEN = 6  # comparisons; of more the one that was longest not looked at is closed


class Choice(NamedTuple):
    """One engine of one published version."""

    version: int
    lineage: str
    precision: str

    @property
    def field(self) -> str:
        """Return its name in a form."""
        return f"{self.version} {self.precision} {self.lineage}".strip()

    @property
    def name(self) -> str:
        """Return what it is called on pages."""
        return f"{self.lineage} {self.version} {self.precision}".strip()


class Row(NamedTuple):
    """One published version in the list to choose from."""

    version: int
    lineage: str
    workload: str
    made: str  # UTC, to the minute
    choices: Sequence[tuple[Choice, str]]  # with the size of its engine


class Versions:
    """The comparisons of one server; thread-safe."""

    def __init__(self, store: DirectoryStore) -> None:
        """Open nothing."""
        self._store, self._lock = store, threading.Lock()
        self._open: OrderedDict[str, Lineup] = OrderedDict()

    def rows(self) -> list[Row]:
        """Return what can be chosen, the newest first."""
        found = []
        for lineage in self._store.lineages():
            for one in self._store.versions(lineage):
                choices = [
                    (
                        Choice(one.version, lineage, precision),
                        size_words(sum(one.files[name].size_bytes for name in set(stages))),
                    )
                    for precision, stages in sorted(one.engines.items())
                ]
                made = one.created_at[:16].replace("T", " ")
                found.append(Row(one.version, lineage, one.workload.name, made, choices))
        return sorted(found, key=lambda row: (row.made, row.version), reverse=True)

    def open(self, fields: Mapping[str, str]) -> str:
        """Return the key of the comparison of what was chosen; it goes on if it is open.

        Args:
            fields: of the form; each chosen engine by its `field`.

        Raises:
            SettingsError: too few or too many, of other kinds, or no versions.
            BundleError: a version is gone, or damaged.
        """
        known = {choice.field: choice for row in self.rows() for choice, _ in row.choices}
        chosen = [choice for field, choice in known.items() if field in fields]
        if not FEWEST <= len(chosen) <= MOST:
            raise SettingsError(f"{len(chosen)} models are chosen; choose {FEWEST} to {MOST}")
        # The oldest first: what the others are compared with.
        chosen = chosen[::-1]
        key = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16]
        if self.get(key) is None:
            lineup = Lineup([self._contender(one) for one in chosen])
            with self._lock:
                closed = [self._open.pop(key, None)]
                self._open[key] = lineup
                while len(self._open) > MOST_OPEN:
                    closed.append(self._open.popitem(last=False)[1])
            for one in closed:
                if one is not None:
                    one.close()
        return key

    def get(self, key: str) -> Lineup | None:
        """Return an open comparison; None where it was closed."""
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
            return self._open.get(key)

    def opened(self) -> list[tuple[str, str]]:
        """Return key and models of what is open, the latest first."""
        with self._lock:
            return [
                (key, " and ".join(model["name"] for model in lineup.models))
                for key, lineup in reversed(self._open.items())
            ]

    def _contender(self, one: Choice) -> Contender:
        manifest = self._store.require(one.version, one.lineage).decode()
        objects = str((self._store.root / "objects").resolve())
        return Contender(one.name, objects, one.precision, manifest)
