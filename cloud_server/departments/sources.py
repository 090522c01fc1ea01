"""Which adapter each department should have now: by rounds in a folder, or by versions in a store.

A look reads names and times alone; `bring` copies an adapter's two files out, whole or not at all.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cloud_server.departments.verified import FILES
from cloud_server.robots.register import NAME, Register
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import TRAINER, FileEntry, TrainerSpec, parse_manifest, parse_trainer
from fleet_model.errors import BundleError, SettingsError
from fleet_model.protocol.routes import channel_and_site

WORKLOAD = "causal-lm"
WHOLE = "fleet"  # who is of no department: what the channel offers
_ROUND = re.compile(r"round-(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Offered:
    """The adapter that a department should have."""

    what: str  # for people: "round 3", "version 7"
    stamp: tuple[object, ...]  # another one: it is to be brought again
    bring: Callable[[Path], None]  # into a folder; BundleError: it cannot be


class Source(Protocol):
    """Implementations: a folder of rounds, a store of versions."""

    def look(self) -> Mapping[str, Offered]:
        """Return department -> what it should have; raises BundleError if that cannot be told."""
        ...


class FolderSource:
    """DEPARTMENT/, or round-000003/DEPARTMENT/, of which a department's newest counts."""

    def __init__(self, root: Path) -> None:
        self._root = root
        if not root.is_dir():
            raise SettingsError(f"--adapters {root}: no such folder")

    def look(self) -> Mapping[str, Offered]:
        """Look at the folder; see Source."""
        found: dict[str, Offered] = {}
        rounds = sorted(
            (int(match[1]), folder)
            for folder in _folders(self._root)
            if (match := _ROUND.fullmatch(folder.name))
        )
        for number, folder in rounds or [(-1, self._root)]:
            what = "as it lies there" if number < 0 else f"round {number}"
            for one in _folders(folder):
                if re.fullmatch(NAME, one.name):
                    found[one.name] = _in_folder(what, one)
        return found


class StoreSource:
    """What robots get: sites their own version, where one is assigned, else the channel's.

    Departments are the sites in the register and those with a version of their own. WHOLE is the
    channel's own.
    """

    def __init__(
        self, server_dir: ServerDirectory, channel: str, base: Mapping[str, FileEntry]
    ) -> None:
        """Look at nothing yet.

        Args:
            server_dir: of the fleet.
            channel: whose versions count.
            base: the files of the base that adapters are to be of, by name.
        """
        self._register, self._channel, self._base = Register(server_dir.robots), channel, base
        self._store = DirectoryStore(server_dir.store)

    def look(self) -> Mapping[str, Offered]:
        """Look at channels and register; see Source."""
        offers = self._store.offers()
        if self._channel not in offers:
            raise BundleError(f"channel {self._channel} offers nothing yet")
        sites = {robot.site for robot in self._register.robots()}
        versions = dict.fromkeys({WHOLE, *sites}, offers[self._channel])
        for name, offer in offers.items():
            channel, site = channel_and_site(name)
            if site and channel == self._channel:
                versions[site] = offer
        return {name: self._of(*versions[name]) for name in sorted(versions)}

    def _of(self, version: int, lineage: str) -> Offered:
        def bring(into: Path) -> None:
            files = parse_manifest(self._store.require(version, lineage)).files
            for name in FILES:
                if name not in files:
                    raise BundleError(f"version {version} has no {name}: it is no adapter")
            for name, entry in self._base.items():
                if name in files and files[name].sha256 != entry.sha256:
                    raise BundleError(f"version {version} is of another base: {name} differs")
            for name in FILES:
                self._store.fetch(files[name].sha256, files[name].size_bytes, into / name)

        return Offered(f"version {version}", (version, lineage), bring)


def source_of(
    server_dir: ServerDirectory, channel: str, folder: Path | None, base: Mapping[str, FileEntry]
) -> Source:
    """Return where adapters come from: `folder`, else a rehearsal's, else what is published.

    Args:
        server_dir: of the fleet.
        channel: whose versions count.
        folder: of adapters; None: as above.
        base: see StoreSource.

    Raises:
        SettingsError: the folder is not there.
    """
    if folder is None and server_dir.rehearsed.is_dir():
        folder = server_dir.rehearsed
    if folder is not None:
        return FolderSource(folder)
    return StoreSource(server_dir, channel, base)


def trainer_of(server_dir: ServerDirectory) -> TrainerSpec:
    """Return how a fleet of a language model trains; raises SettingsError if it is another."""
    try:
        spec = parse_trainer((server_dir.model / TRAINER).read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{server_dir.model / TRAINER}: cannot be read ({error.strerror})"
        ) from None
    if spec.workload.name != WORKLOAD or spec.adapter is None:
        raise SettingsError(
            f"{server_dir.root}: trains {spec.workload.name}; departments are answered by adapters "
            f"of {WORKLOAD} alone"
        )
    return spec


def _folders(root: Path) -> Iterator[Path]:
    for one in root.iterdir():
        if one.is_dir() and not one.name.startswith("."):
            yield one


def _in_folder(what: str, folder: Path) -> Offered:
    def bring(into: Path) -> None:
        for name in FILES:
            try:
                shutil.copyfile(folder / name, into / name)
            except OSError as error:
                raise BundleError(f"{folder.name}/{name}: {error.strerror or error}") from None

    return Offered(what, (what, *(_stamp(folder / name) for name in FILES)), bring)


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, -1, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
