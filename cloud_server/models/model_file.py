"""Take one version out of a server directory as a single file."""

import json
import os
import shutil
from pathlib import Path

from cloud_server.models.export import FileJob, Progress, run_export
from cloud_server.models.own_weights import LABELS, read_named
from cloud_server.models.release_log import ReleaseLog
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.weights import write_weights

_SUFFIXES = {"merged": ".zip", "peft": ".zip"}  # of a kind that is not called as its file ends


def export_model(
    server_dir: ServerDirectory, version: int | None, kind: str, file: Path, progress: Progress
) -> tuple[int, float | None]:
    """Write a version; return it and how far its outputs are from the model's, if it was run.

    Args:
        server_dir: with the lineage that is meant.
        version: of a checkpoint that is kept; None takes the newest.
        kind: "safetensors", or a kind that the backend knows.
        file: a new one; it is there only if it is right.
        progress: is told of each step.

    Raises:
        SettingsError: the file is there already or its name ends otherwise, or a library for the
            kind is not installed.
        CheckpointError: there is no such version, or it is damaged.
        ExportError: the file would not compute what the model computes.
    """
    _require_new(file, kind)
    checkpoints = Checkpoints(server_dir.checkpoints)
    kept = checkpoints.saved()
    version = kept[-1] if version is None and kept else version
    if version is None or version not in kept:
        raise CheckpointError(
            f"version {version} is not kept; there are: {', '.join(map(str, kept)) or 'none'}"
        )
    _require_trained(server_dir, version)
    checkpoints.load(version)  # whole?
    if kind == "safetensors":
        named = read_named(checkpoints.path(version))
        assert named is not None
        write_weights(file, named.tensors, {LABELS: json.dumps(named.labels)})
        return version, None
    aside = file.absolute().with_name(f".{file.name}.new")
    shutil.rmtree(aside, ignore_errors=True)  # of an export that was killed
    job = FileJob(
        model=server_dir.model_of(version),
        weights=checkpoints.path(version),
        kind=kind,
        file=aside / file.name,
    )
    try:
        result = run_export(job, progress)
        job.file.replace(file)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return version, result.metrics["error"]


def _require_trained(server_dir: ServerDirectory, version: int) -> None:
    release = ReleaseLog(server_dir.releases).by_version().get(version)
    if release is not None and release.imported:
        raise CheckpointError(
            f"version {version} is {release.imported}, which was imported: whoever made that file "
            "has it; name a version that this fleet has trained"
        )


def _require_new(file: Path, kind: str) -> None:
    """Find before the work what would fail after it."""
    suffix = _SUFFIXES.get(kind, f".{kind}")
    if file.suffix != suffix:
        raise SettingsError(f"--out {file}: expected a name that ends in {suffix}")
    if file.exists() or file.is_symlink():
        raise SettingsError(f"--out {file}: is there already; name a new file")
    if not os.access(file.absolute().parent, os.W_OK):
        raise SettingsError(f"--out {file}: its folder is not there, or cannot be written")
