"""Checkpoints on disk: one folder a closed round, complete or not there."""

import json
import logging
import os
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloud_server.state.round_record import RoundRecord, parse_record
from fleet_model.bundle import sha256_of, sha256_of_file
from fleet_model.durable import rename_durably, write_durably
from fleet_model.errors import CheckpointError

if TYPE_CHECKING:
    from fleet_model.types import Checkpoint

log = logging.getLogger(__name__)

WEIGHTS, SERVER_STATE = "weights.safetensors", "server_state.safetensors"
ABOUT, RECORD = "checkpoint.json", "record.json"
MODEL = "model"  # folder of the trainer files that init makes


class _About(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: int
    seed: int
    sha256: dict[str, str]  # file name -> digest: a flipped bit is found before it is published
    # Folder of its trainer files: that of the checkpoint before it, unless its labels are others.
    model: str = Field(default=MODEL, pattern=rf"^{MODEL}(-[0-9]{{6,}})?$")


def since(model: str) -> int:
    """Return the first version that has the trainer files of this folder."""
    return int(model.removeprefix(MODEL).lstrip("-") or 0)


class Checkpoints:
    """<root>/000005/{weights,server_state}.safetensors, checkpoint.json and record.json.

    The record is what the round that made the checkpoint leaves in the history; versions that no
    round made have none.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._told: set[int] = set()  # damaged versions that the log has been told of

    def save(
        self, checkpoint: "Checkpoint", record: RoundRecord | None = None, model: str = ""
    ) -> None:
        """Write a checkpoint; after a power cut it is there as a whole or not at all.

        Args:
            checkpoint: what is saved.
            record: of the round that made it, if one did.
            model: folder of its trainer files; "": that of the newest checkpoint.
        """
        from fleet_model.weights import write_weights  # NumPy: a history is read without

        final = self._folder(checkpoint.version)
        for leftover in self._root.glob(".*.new"):  # of a process that was killed here
            shutil.rmtree(leftover, ignore_errors=True)
        aside = self._root / f".{final.name}.new"
        aside.mkdir(parents=True)
        digests = {}
        for name, weights in (
            (WEIGHTS, checkpoint.weights),
            (SERVER_STATE, checkpoint.server_state),
        ):
            write_weights(aside / name, weights)
            digests[name] = sha256_of_file(aside / name)
        if record is not None:
            content = json.dumps(record.as_json(), allow_nan=False).encode()
            write_durably(aside / RECORD, content)
            digests[RECORD] = sha256_of(content)
        about = _About(
            version=checkpoint.version,
            seed=checkpoint.seed,
            sha256=digests,
            model=model or self._newest_model(),
        )
        write_durably(aside / ABOUT, about.model_dump_json(indent=1, exclude_defaults=True))
        if final.exists():  # the same version once more
            self._remove(final)
        rename_durably(aside, final)

    def copy(self, version: int, number: int) -> "Checkpoint":
        """Save a version's weights, state and labels once more, as the newest one.

        Raises:
            CheckpointError: the version is damaged or gone.
        """
        again = replace(self.load(version), version=number)
        self.save(again, model=self.model(version))
        return again

    def versions(self) -> list[int]:
        """Return the versions on disk, oldest first; the log tells of damaged ones, left out."""
        return [version for version in self.saved() if self._is_whole(version)]

    def saved(self) -> list[int]:
        """Return what has a folder, oldest first, whole or damaged: no file is read."""
        if not self._root.exists():
            return []
        with os.scandir(self._root) as entries:  # Path.iterdir takes 10 ms for 3,000 folders
            names = [entry.name for entry in entries]
        return sorted(int(name) for name in names if name.isdecimal() and name.isascii())

    def newest(self) -> int | None:
        """Return the highest version that was ever saved and not removed, whole or damaged."""
        return max(self.saved(), default=None)

    def model(self, version: int) -> str:
        """Return the folder of a version's trainer files, which lies beside the checkpoints'.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        return self._about(version).model

    def models(self) -> set[str]:
        """Return the folders that checkpoints need."""
        return {MODEL, *(self._about(v).model for v in self.saved() if self._is_whole(v))}

    def records(self, after: int = -1) -> list[RoundRecord]:
        """Return the records of versions above `after`, oldest first; damaged ones are left out.

        They are a shorter history than history.jsonl once old checkpoints are pruned, never torn.
        Reading 3,000 records of 50 robots takes seconds: ask for what is needed.
        """
        versions = [v for v in self.saved() if v > after and self._is_whole(v)]
        return [record for v in versions if (record := self._record(v)) is not None]

    def record(self, version: int) -> RoundRecord | None:
        """Return what the round that made a version left; None if none did, or it is damaged."""
        return self._record(version) if self._is_whole(version) else None

    def prune(self, keep: int, also: Collection[int] = ()) -> list[int]:
        """Delete all but the newest `keep` versions and those in `also`; return what is gone.

        Folders that cannot be read do not count, and stay for someone to look at. Only those that
        may be deleted are read, so the cost does not grow with the number of `also`.
        """
        saved = self.saved()
        while saved and keep:
            keep -= self._is_whole(saved.pop())
        gone = [v for v in saved if v not in also and self._is_whole(v)]
        for version in gone:
            self._remove(self._folder(version))
        for leftover in self._root.glob(".*.old"):  # also of a process that was killed here
            shutil.rmtree(leftover, ignore_errors=True)
        return gone

    def path(self, version: int) -> Path:
        """Return the weights file of a version."""
        return self._folder(version) / WEIGHTS

    def latest(self) -> "Checkpoint":
        """Read the newest checkpoint; raises CheckpointError if there is none or it is damaged.

        It was whole when it got its name. To go on from an older one would give its version, which
        robots may have, to other weights: only a person may do that, by removing the folder.
        """
        newest = self.newest()
        if newest is None:
            raise CheckpointError(
                f"{self._root}: no checkpoint; restore it, or see `cloud-server repair DIR`"
            )
        return self.load(newest)

    def load(self, version: int) -> "Checkpoint":
        """Read one checkpoint; raises CheckpointError that names the damaged file."""
        from fleet_model.types import Checkpoint
        from fleet_model.weights import read_weights

        folder = self._folder(version)
        about = self._about(version)
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

    def _newest_model(self) -> str:
        whole = (v for v in reversed(self.saved()) if self._is_whole(v))
        return next(map(self.model, whole), MODEL)

    def _about(self, version: int) -> _About:
        folder = self._folder(version)
        try:
            about = _About.model_validate_json((folder / ABOUT).read_bytes())
            if about.version != version:
                raise ValueError(f"it is of version {about.version}")
        except (OSError, ValueError):
            raise CheckpointError(
                f"checkpoint {version}: checkpoint.json is missing or damaged; remove the folder "
                f"{folder.name} to go on from the checkpoint before it"
            ) from None
        return about

    def _folder(self, version: int) -> Path:
        return self._root / f"{version:06d}"

    def _remove(self, folder: Path) -> None:
        """Delete a checkpoint, by another name first: half deleted it must not look like one."""
        old = self._root / f".{folder.name}.old"
        shutil.rmtree(old, ignore_errors=True)  # of a process that was killed here
        rename_durably(folder, old)
        shutil.rmtree(old, ignore_errors=True)

    def _is_whole(self, version: int) -> bool:
        folder = self._folder(version)
        try:
            about = _About.model_validate_json((folder / ABOUT).read_bytes())
            problem = "" if about.version == version else f"is of {about.version}"
        except (OSError, ValidationError):
            problem = "is missing or damaged"
        if problem and version not in self._told:
            log.warning("checkpoint %s is left out: its %s %s", folder.name, ABOUT, problem)
            self._told.add(version)
        return not problem

    def _record(self, version: int) -> RoundRecord | None:
        folder = self._folder(version)
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
        return sha256_of_file(file)
    except OSError:
        return "missing or unreadable"
