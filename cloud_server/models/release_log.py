"""What became of every version, in releases.jsonl: who published it, or why nobody did.

A line is durable before a channel offers its version, so of what robots run there is always one.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cloud_server.state.history_file import Line, all_lines, append_line, newest_lines
from cloud_server.state.words import few

ReleaseKind = Literal[
    "published",  # robots get it
    "withheld",  # the gate holds it back; a command publishes it all the same
    "rolled_back",  # robots get the weights of an older version again, under this number
    "rollout",  # robots get it in groups, one after the other: a step of that
    "returned",  # not published: what the next run begins with, under a number of its own
]
BY_PUBLISH, BY_ROLLBACK, BY_RESTORE = "models publish", "models rollback", "restore"
BY_PROMOTE, BY_ABORT, BY_IMPORT = "models promote", "rollout abort", "import-engine"
IMPORTED = "imported"  # kind of a reason: robots run a model of another tool, and keep it


class Told(BaseModel):
    """A reason or a warning of the gate."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: str
    words: str


class SiteMeasures(BaseModel):
    """What the gate says of the model that a version has for one site."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    examples: int = 0  # held-out ones of its robots that count
    before: dict[str, float] = {}  # means of what its robots ran; empty: not measured
    after: dict[str, float] = {}
    reasons: tuple[Told, ...] = ()  # why its robots should not get it
    warnings: tuple[Told, ...] = ()

    @property
    def words(self) -> str:
        """Return the reasons as one sentence."""
        return "; ".join(one.words for one in self.reasons)


class Release(BaseModel):
    """One line."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    version: int
    kind: ReleaseKind
    at: float  # Unix time
    by: str  # "run ID", or the command
    of: int | None = None  # the version that first had these weights, if another one
    examples: int = 0  # held-out ones that count, of the measures
    before: dict[str, float] = {}  # means of what robots ran; empty: not measured
    after: dict[str, float] = {}  # of this version, by the same robots
    reasons: tuple[Told, ...] = ()  # withheld: why
    warnings: tuple[Told, ...] = ()
    sites: dict[str, SiteMeasures] = {}  # of the models of sites; none: not measured
    step: str = ""  # of a rollout: what was done, and why
    imported: str = ""  # file of another tool that robots run as this version

    @property
    def published(self) -> bool:
        """Return whether robots get it, or got it."""
        return self.kind in ("published", "rolled_back")

    @property
    def root(self) -> int:
        """Return the version that first had these weights."""
        return self.version if self.of is None else self.of

    @property
    def left_behind(self) -> bool:
        """Return whether rounds go on from what robots run, and not from this version.

        What is withheld only because robots run an imported model is as good as it was.
        """
        others = any(one.kind != IMPORTED for one in self.reasons)
        return self.kind == "withheld" and (others or not self.reasons)

    def sentences(self) -> list[str]:
        """Return what an operator is to know; commands have DIR, see `with_directory`."""
        told = [f"WARNING: version {self.version}: {one.words}" for one in self.warnings]
        if self.kind == "withheld":
            why = "; ".join(one.words for one in self.reasons)
            end = "" if why.endswith("?") else "."
            told.append(
                f"version {self.version} is NOT PUBLISHED, robots keep the one that they run: {why}"
                f"{end} To publish it all the same: `cloud-server models publish DIR "
                f"{self.version}`"
            )
        elif self.kind == "rolled_back":
            told.append(
                f"robots get version {self.of} again, as version {self.version} (by "
                f"`cloud-server {self.by}`)"
            )
        if self.imported and self.published:
            told.append(
                f"version {self.version} is {self.imported}, which was imported: robots run it, "
                "and nobody trains it. Rounds go on with the fleet's own model, and what they make "
                "reaches robots by `cloud-server models publish DIR VERSION`"
            )
        held = [
            f"version {self.version}: the model of site {site} is held back from it: {one.words}"
            for site, one in self.sites.items()
            if one.reasons
        ]
        return [*told, *few(held)]


class ReleaseLog:
    """The file of one lineage; it is small: a line for every run."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> list[Release]:
        """Return every line, oldest first; one that a power cut has torn is left out."""
        return list(_read(all_lines(self._file)))

    def newest(self) -> Release | None:
        """Return the last line that is no step of a rollout; the file is read from its end."""
        lines = _read(newest_lines(self._file))
        return next((one for one in lines if one.kind != "rollout"), None)

    def by_version(self) -> Mapping[int, Release]:
        """Return version -> what was told last of it, steps of a rollout apart."""
        return {one.version: one for one in self.all() if one.kind != "rollout"}

    def root_of(self, version: int) -> int:
        """Return the version that first had these weights; of one that it does not know, itself."""
        known = self.by_version().get(version)
        return version if known is None else known.root

    def add(self, version: int, kind: ReleaseKind, by: str, **about: Any) -> Release:
        """Tell what has become of a version; told again, as after a crash, it is one line."""
        release = Release(version=version, kind=kind, by=by, at=time.time(), **about)
        last = self.by_version().get(version)
        if last is None or (last.kind, last.by) != (kind, by):
            append_line(self._file, json.dumps(release.model_dump(exclude_defaults=True)).encode())
        return release

    def add_step(self, version: int, words: str) -> None:
        """Tell of a step of a rollout; told again, as after a crash, it is one line."""
        step = Release(version=version, kind="rollout", by="rollout", at=time.time(), step=words)
        last = next(_read(newest_lines(self._file)), None)
        if last is None or (last.kind, last.step) != ("rollout", words):
            append_line(self._file, json.dumps(step.model_dump(exclude_defaults=True)).encode())


def _read(lines: Iterable[Line]) -> Iterator[Release]:
    for line in lines:
        with suppress(ValidationError):
            yield Release.model_validate_json(line.content)
