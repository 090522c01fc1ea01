"""The profiles that robots have told, by the version of the model that made their means.

    <lineage>/profiles/<version>/<robot>.safetensors   as they travelled

Means of two versions cannot be compared: each version has its own folder.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from fleet_model.durable import make_directory
from fleet_model.errors import CheckpointError, StorageError, UpdateError
from fleet_model.profiles.profile import Profile, unpack_profile
from fleet_model.types import Weights
from fleet_model.weights import read_weights, write_weights

SUFFIX = ".safetensors"
KEPT_VERSIONS = 10


class ProfileStore:
    """One lineage's."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def save(self, robot: str, version: int, tensors: Weights) -> None:
        """Replace what a robot has told of a version; raises StorageError."""
        file = self._file(robot, version)
        try:
            make_directory(file.parent)
            write_weights(file, tensors)
        except OSError as error:
            raise StorageError(
                f"{self._root}: the profile of {robot} cannot be kept ({error.strerror}); give the "
                "disk room, then `cloud-server runs resume DIR`"
            ) from None

    def versions(self) -> Sequence[int]:
        """Return the versions that there are profiles of, the oldest first."""
        return sorted(int(one.name) for one in self._root.glob("*") if one.name.isdecimal())

    def of(self, version: int) -> Mapping[str, Profile]:
        """Return robot -> its profile of a version; raises CheckpointError for a damaged file."""
        found = {}
        for file in sorted((self._root / str(version)).glob(f"*{SUFFIX}")):
            try:
                found[unquote(file.stem)] = unpack_profile(read_weights(file))
            except UpdateError as error:
                raise CheckpointError(
                    f"profiles/{version}/{file.name} is damaged ({error}); remove it, and ask anew"
                ) from None
        return found

    def forget(self, robot: str) -> None:
        """Remove what a robot has told."""
        for version in self.versions():
            self._file(robot, version).unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove what was told of versions before the newest KEPT_VERSIONS."""
        for version in self.versions()[:-KEPT_VERSIONS]:
            shutil.rmtree(self._root / str(version), ignore_errors=True)

    def _file(self, robot: str, version: int) -> Path:
        return self._root / str(version) / f"{quote(robot, safe='')}{SUFFIX}"
