"""Checkpoints on disk: one folder a closed round, complete or not there."""

import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fleet_model.bundle import sha256_of
from fleet_model.durable import fsync_directory, write_durably
from fleet_model.errors import CheckpointError
from fleet_model.types import Checkpoint
from fleet_model.weights import read_weights, write_weights

WEIGHTS, SERVER_STATE = "weights.safetensors", "server_state.safetensors"


class _About(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: int
    seed: int
    sha256: dict[str, str]  # file name -> digest: a flipped bit is found before it is published


class Checkpoints:
    """<root>/000005/{weights,server_state}.safetensors and checkpoint.json."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def save(self, checkpoint: Checkpoint) -> None:
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
        about = _About(version=checkpoint.version, seed=checkpoint.seed, sha256=digests)
        write_durably(aside / "checkpoint.json", about.model_dump_json(indent=1))
        shutil.rmtree(final, ignore_errors=True)  # only a run that lost its latest comes here
        aside.rename(final)
        fsync_directory(self._root)

    def versions(self) -> list[int]:
        """Return the versions on disk, oldest first."""
        return sorted(int(p.name) for p in self._root.glob("[0-9]*") if p.name.isdigit())

    def path(self, version: int) -> Path:
        """Return the weights file of a version."""
        return self._root / f"{version:06d}" / WEIGHTS

    def latest(self) -> Checkpoint:
        """Read the newest checkpoint; raises CheckpointError if there is none."""
        versions = self.versions()
        if not versions:
            raise CheckpointError(f"{self._root}: no checkpoint; run `cloud-server init` again")
        return self.load(versions[-1])

    def load(self, version: int) -> Checkpoint:
        """Read one checkpoint; raises CheckpointError that names the damaged file."""
        folder = self._root / f"{version:06d}"
        try:
            about = _About.model_validate_json((folder / "checkpoint.json").read_bytes())
        except (FileNotFoundError, ValidationError):
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


def _digest(file: Path) -> str:
    try:
        return sha256_of(file.read_bytes())
    except FileNotFoundError:
        return "missing"
