"""Checkpoints on disk: one folder a closed round, complete or not there."""

import json
import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cloud_server.state.round_record import RoundRecord, parse_record
from fleet_model.bundle import sha256_of
from fleet_model.durable import fsync_directory, write_durably
from fleet_model.errors import CheckpointError
from fleet_model.types import Checkpoint
from fleet_model.weights import read_weights, write_weights

log = logging.getLogger(__name__)

WEIGHTS, SERVER_STATE = "weights.safetensors", "server_state.safetensors"
ABOUT, RECORD = "checkpoint.json", "record.json"


class _About(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: int
    seed: int
    sha256: dict[str, str]  # file name -> digest: a flipped bit is found before it is published


class Checkpoints:
    """<root>/000005/{weights,server_state}.safetensors, checkpoint.json and record.json.

    The record is what the round that made the checkpoint leaves in the history; versions that no
    round made have none.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._told: set[str] = set()  # damaged folders that the log has been told of

    def save(self, checkpoint: Checkpoint, record: RoundRecord | None = None) -> None:
        """Write a checkpoint; after a power cut it is there as a whole or not at all."""
        final = self._root / f"{checkpoint.version:06d}"
        aside = self._root / f".{final.name}.new"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        digests = {}
        for name, weights in (
            (WEIGHTS, checkpoint.weights),
            (SERVER_STATE, checkpoint.server_state),
        ):
            write_weights(aside / name, weights)
            digests[name] = sha256_of((aside / name).read_bytes())
        if record is not None:
            content = json.dumps(record.as_json(), allow_nan=False).encode()
            write_durably(aside / RECORD, content)
            digests[RECORD] = sha256_of(content)
        about = _About(version=checkpoint.version, seed=checkpoint.seed, sha256=digests)
        write_durably(aside / ABOUT, about.model_dump_json(indent=1))
        if final.exists():  # the same version once more
            self._remove(final)
        aside.rename(final)
        fsync_directory(self._root)

    def versions(self) -> list[int]:
        """Return the versions on disk, oldest first; the log tells of damaged ones, left out."""
        return [int(folder.name) for folder in self._folders() if self._is_whole(folder)]

    def newest(self) -> int | None:
        """Return the highest version that was ever saved and not removed, whole or damaged."""
        folders = self._folders()
        return int(folders[-1].name) if folders else None

    def records(self) -> list[RoundRecord]:
        """Return the history as the checkpoints hold it, oldest first; a damaged one is left out.

        It is shorter than history.jsonl once old checkpoints are pruned, and never torn.
        """
        found = [self._record(version) for version in self.versions()]
        return [record for record in found if record is not None]

    def prune(self, keep: int, also: Collection[int] = ()) -> list[int]:
        """Delete all but the newest `keep` versions and those in `also`; return what is gone.

        Folders that cannot be read do not count, and stay for someone to look at.
        """
        gone = [v for v in self.versions()[:-keep] if v not in also]
        for version in gone:
            self._remove(self._root / f"{version:06d}")
        for leftover in self._root.glob(".*.old"):  # also of a process that was killed here
            shutil.rmtree(leftover, ignore_errors=True)
        return gone

    def path(self, version: int) -> Path:
        """Return the weights file of a version."""
        return self._root / f"{version:06d}" / WEIGHTS

    def latest(self) -> Checkpoint:
        """Read the newest checkpoint; raises CheckpointError if there is none or it is damaged.

        It was whole when it got its name. To go on from an older one would give its version, which
        robots may have, to other weights: only a person may do that, by removing the folder.
        """
        newest = self.newest()
        if newest is None:
            raise CheckpointError(f"{self._root}: no checkpoint; run `cloud-server init` again")
        return self.load(newest)

    def load(self, version: int) -> Checkpoint:
        """Read one checkpoint; raises CheckpointError that names the damaged file."""
        folder = self._root / f"{version:06d}"
        try:
            about = _About.model_validate_json((folder / ABOUT).read_bytes())
            if about.version != version:
                raise ValueError(f"it is of version {about.version}")
        except (OSError, ValueError):
            raise CheckpointError(
                f"checkpoint {version}: checkpoint.json is missing or damaged; remove the folder "
                f"{folder.name} to go on from the checkpoint before it"
            ) from None
        for name in (WEIGHTS, SERVER_STATE):
            if _digest(folder / name) != about.sha256.get(name):
                raise CheckpointError(
                    f"checkpoint {version}: {name} is missing or damaged (sha256 differs); remove "
                    f"the folder {folder.name} to go on from the checkpoint before it"
                )
        return Checkpoint(
            version=about.version,
            weights=read_weights(folder / WEIGHTS),
            server_state=read_weights(folder / SERVER_STATE),
            seed=about.seed,
        )

    def _folders(self) -> list[Path]:
        """Return what was saved, oldest first; what is being saved has another name."""
        folders = (p for p in self._root.glob("[0-9]*") if p.name.isdigit())
        return sorted(folders, key=lambda folder: int(folder.name))

    def _remove(self, folder: Path) -> None:
        """Delete a checkpoint, by another name first: half deleted it must not look like one."""
        old = self._root / f".{folder.name}.old"
        shutil.rmtree(old, ignore_errors=True)  # of a process that was killed here
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)

    def _is_whole(self, folder: Path) -> bool:
        try:
            about = _About.model_validate_json((folder / ABOUT).read_bytes())
            problem = "" if about.version == int(folder.name) else f"is of {about.version}"
        except (OSError, ValidationError):
            problem = "is missing or damaged"
        if problem and folder.name not in self._told:
            log.warning("checkpoint %s is left out: its %s %s", folder.name, ABOUT, problem)
            self._told.add(folder.name)
        return not problem

    def _record(self, version: int) -> RoundRecord | None:
        folder = self._root / f"{version:06d}"
        try:
            about = _About.model_validate_json((folder / ABOUT).read_bytes())
            if RECORD not in about.sha256:
                return None
            content = (folder / RECORD).read_bytes()
            if sha256_of(content) != about.sha256[RECORD]:
                raise ValueError("sha256 differs")
            return parse_record(content)
        except (OSError, ValueError) as error:
            log.warning("checkpoint %d: %s is left out: %s", version, RECORD, error)
            return None


def _digest(file: Path) -> str:
    try:
        return sha256_of(file.read_bytes())
    except OSError:
        return "missing or unreadable"
