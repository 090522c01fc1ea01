"""The tensors that this robot trains and keeps, where its server shares only the others.

  state/personal/<key>.safetensors   the key is of the frozen trunk and of what is trained behind it

They lie outside the models: every version runs with them, as long as trunk and shapes stay, and
with adapters also what they add to. A file is replaced in one step, so after any end of the agent
it is that of one whole round.
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent.models.deploy import Models
from edge_agent.robot.kept_tensors import keep, read_kept
from fleet_model.bundle import Manifest, TrainerSpec, sha256_of_file
from fleet_model.durable import fsync_directory, link_or_copy, remove_asides, remove_durably
from fleet_model.errors import BundleError, CheckpointError, TrainingError
from fleet_model.personal.tensors import OWN, OWN_END, SPEC, trainer_files, trainer_of
from fleet_model.signatures import TRAINER_GRAPH, WEIGHTS
from fleet_model.store import ModelStore
from fleet_model.types import Checkpoint, Update, Weights
from fleet_model.weights import add
from fleet_model.workload import config_without_classes, rebuild

FOLDER = "personal"  # in the state directory
log = logging.getLogger(__name__)


def key_of(spec: TrainerSpec) -> str:
    """Return what names the trunk, and W0 of adapters: tensors of others mean nothing here."""
    files = {n: entry.sha256 for n, entry in spec.files.items() if n != TRAINER_GRAPH}
    config = config_without_classes(rebuild(spec.workload))
    parts: list[Any] = [spec.workload.name, config, spec.trainable, files]
    if spec.adapter is not None:  # a B that was trained at another scale is another matrix
        parts.append(spec.adapter.scale)
    owner = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def with_own(
    folder: Path, spec: TrainerSpec, names: Iterable[str], start: Checkpoint
) -> Checkpoint:
    """Return a checkpoint with this robot's own tensors in place of those that it came with.

    What does not fit is dropped with a word in the log: the robot starts again from the checkpoint.

    Args:
        folder: of the own tensors.
        spec: of the trainer.
        names: of the tensors that are the robot's own.
        start: as the server sent it.

    Raises:
        TrainingError: the trainer has no such tensor.
    """
    wanted = set(names)
    if unknown := sorted(wanted - start.weights.keys()):
        raise TrainingError(
            f"the server lets robots keep {unknown[0][:100]}, which is not trained here: see "
            "aggregation.personal in its server.toml"
        )
    own = _fitting(_kept(folder, key_of(spec)), {name: start.weights[name] for name in wanted})
    return replace(start, weights={**start.weights, **own}) if own else start


def keep_own(
    folder: Path, spec: TrainerSpec, names: Iterable[str], start: Checkpoint, update: Update
) -> Update:
    """Keep what was trained of the robot's own, and return the update without it.

    Raises:
        OSError: the disk cannot be written; then nothing must be sent.
    """
    mine = set(names)
    trained = {name: w for name, w in update.weights.items() if name in mine}
    own = add({name: start.weights[name] for name in trained}, trained)
    keep(folder / f"{key_of(spec)}{OWN_END}", own)
    shared = {name: w for name, w in update.weights.items() if name not in mine}
    return replace(update, weights=shared)


def drop_own(folder: Path, why: str, but: str = "") -> None:
    """Remove the own tensors, but for those with the key `but`, with a word in the log."""
    if not folder.is_dir():
        return
    remove_asides(folder)
    for file in folder.glob(f"*{OWN_END}"):
        if file.stem != but:
            remove_durably(file)
            log.warning("this robot's own tensors are dropped: %s", why)


def put_beside(
    models: Models, store: ModelStore, name: str, manifest: Manifest, folder: Path
) -> tuple[str, str]:
    """Put what runs a version with this robot's own tensors into the folder of the version.

    Args:
        models: where it is installed.
        store: where missing files come from.
        name: of the version's folder.
        manifest: of the version.
        folder: of the own tensors.

    Returns:
        The name of the file with the own tensors, "" if there are none or they cannot run; and why
        they cannot, "" if they can or there are none.

    Raises:
        ConnectionFailed, StorageError: as Models.stage.
    """
    own = next(iter(sorted(folder.glob(f"*{OWN_END}"))), None)
    if own is None:
        return "", ""
    bundle = models.folder(name)
    try:
        models.add_files(name, {SPEC: manifest.trainer}, store)
        spec = trainer_of(bundle, manifest)
        if key_of(spec) != own.stem:
            return "", "own tensors are of another trunk, or of other adapters"
        if WEIGHTS not in manifest.files:
            return "", "the version was published without its weights, by an older server"
        files = {**trainer_files(spec), WEIGHTS: manifest.files[WEIGHTS]}
        models.add_files(name, files, store)
    except BundleError as error:
        return "", f"own tensors cannot run: {error}"
    with models.disk():
        beside = bundle / f"{OWN}{sha256_of_file(own)[:16]}{OWN_END}"
        if not beside.exists():
            # The file of the state folder is replaced, never changed: it may have both names.
            link_or_copy(own, beside)
        fsync_directory(bundle)  # before a choice names what is in it
    return beside.name, ""


def forget_beside(bundle: Path, keep: str) -> None:
    """Remove what lies beside a bundle of own tensors, but for the file that is in use."""
    for file in bundle.glob(f"{OWN}*{OWN_END}"):
        if file.name != keep:
            file.unlink(missing_ok=True)


def _kept(folder: Path, key: str) -> Weights:
    drop_own(folder, "the trunk, or what adapters add to, is another one now", but=key)
    try:
        kept = read_kept(folder / f"{key}{OWN_END}")
        return {} if kept is None else kept[1]
    except CheckpointError as error:
        log.warning("this robot's own tensors are dropped: %s", error)
        return {}


def _fitting(own: Weights, start: Weights) -> Weights:
    fitting = {n: w for n, w in own.items() if n in start and w.shape == start[n].shape}
    if gone := sorted(own.keys() - fitting.keys()):
        told = ", ".join(gone)
        log.warning("own %s is dropped: it has another shape now, or robots share it", told)
    return fitting
