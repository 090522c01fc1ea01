"""Give a trained fleet more labels, or other names for them; see docs/decisions on labels.

The new trainer files lie beside the old ones. The checkpoint that names them is what makes the
change: before it is there nothing has happened, after it robots can train, published or not. The
same command again does what was left.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloud_server.models.adapters import plan_of
from cloud_server.models.backend import NOTE
from cloud_server.models.export import InitJob, Progress, run_export
from cloud_server.models.publish import exported, imported_file, leave_withheld, prune
from cloud_server.runs.run_store import require_no_run
from cloud_server.signing.signing import offer, require_may_offer
from cloud_server.state.checkpoints import MODEL, Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.kit import faults_of_kit, write_kit
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import PublishSettings, load_settings
from fleet_model.adapters.spec import adapted_in
from fleet_model.bundle import TRAINER, TrainerSpec, parse_trainer
from fleet_model.durable import making_folder
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.signatures import WEIGHTS
from fleet_model.types import Checkpoint
from fleet_model.weights import read_weights
from fleet_model.workload import rebuild, with_classes


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a lineage, in the order of their rows."""

    names: tuple[str, ...]
    former: Mapping[str, str] = field(default_factory=dict)  # as in recordings -> name

    def with_added(self, new: Sequence[str]) -> "Labels":
        """Return them with others behind; raises SettingsError for one that is there."""
        for name in new:
            if name in self.names:
                raise SettingsError(f"label {name!r} is there already: {', '.join(self.names)}")
        former = {old: name for old, name in self.former.items() if old not in new}
        return Labels((*self.names, *new), former)

    def renamed(self, old: str, new: str) -> "Labels":
        """Return them with another name in the place of `old`; recordings may keep the old one.

        Raises:
            SettingsError: there is no `old`, or a `new` already.
        """
        if old not in self.names:
            raise SettingsError(f"there is no label {old!r}; there are: {', '.join(self.names)}")
        if new in self.names:
            raise SettingsError(f"label {new!r} is there already: two labels cannot become one")
        former = {word: new if name == old else name for word, name in self.former.items()}
        former[old] = new
        former.pop(new, None)
        return Labels(tuple(new if name == old else name for name in self.names), former)


def labels_of(server_dir: ServerDirectory) -> Labels:
    """Return the labels of the newest checkpoint.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    return _labels(server_dir, Checkpoints(server_dir.checkpoints).latest().version)


def relabel(
    server_dir: ServerDirectory,
    settings: PublishSettings,
    change: Callable[[Labels], Labels],
    progress: Progress,
) -> int:
    """Make and publish a version with other labels; rows of labels that stay keep their bits.

    A new label begins as the mean of the other rows: no answer of the model changes by that. If the
    newest version is this very change, and was not published to its end, it is published now.

    Args:
        server_dir: of the lineage.
        settings: whose channel offers the version.
        change: makes the new labels of those that are there.
        progress: is given one line for each step.

    Returns:
        The version.

    Raises:
        SettingsError: a run or a rollout on the channel goes on, or these labels cannot be changed
            so, or the workload does not take them.
        CheckpointError: the newest checkpoint is damaged.
        ExportError: what was exported does not compute what the model computes.
    """
    with server_dir.locked("train"):
        require_no_run(server_dir)
        require_may_offer(server_dir, settings.channel)
        _require_trained(server_dir, settings.channel)
        leave_withheld(server_dir, settings.channel, "labels")
        newest = Checkpoints(server_dir.checkpoints).latest()
        if _is_left(server_dir, settings, newest.version, change):
            version = newest.version
            progress(
                f"{NOTE}version {version} has these labels already; channel {settings.channel} and "
                "the kit, which a command that did not end has left, get it now"
            )
        else:
            labels = change(_labels(server_dir, newest.version))
            version = _make_version(server_dir, settings, newest, labels, progress)
        offer(server_dir, settings.channel, version)
    prune(server_dir, settings)
    write_kit(server_dir, load_settings(server_dir.settings))
    return version


def _require_trained(server_dir: ServerDirectory, channel: str) -> None:
    """Raise SettingsError where robots run a model whose labels cannot be changed."""
    version, file = imported_file(server_dir, channel)
    if file:
        raise SettingsError(
            f"robots run version {version}, which is {file} and was imported: its labels are what "
            "they are. First `cloud-server models rollback DIR`; after the change import it again"
        )


def _is_left(
    server_dir: ServerDirectory,
    settings: PublishSettings,
    version: int,
    change: Callable[[Labels], Labels],
) -> bool:
    """Tell whether the newest version is this change, killed before channel and kit had it."""
    if server_dir.model_of(version) != _model(server_dir, version):
        return False
    offered = DirectoryStore(server_dir.store).offers().get(settings.channel)
    if offered == (version, server_dir.lineage) and not faults_of_kit(
        server_dir, load_settings(server_dir.settings)
    ):
        return False
    try:
        # A change makes the next version, and no round has come since: the one before is there.
        return change(_labels(server_dir, version - 1)) == _labels(server_dir, version)
    except (SettingsError, CheckpointError):
        return False


def _make_version(
    server_dir: ServerDirectory,
    settings: PublishSettings,
    before: Checkpoint,
    labels: Labels,
    progress: Progress,
) -> int:
    """Save the checkpoint with these labels; its version is in the store, on no channel."""
    version = before.version + 1
    model = _make_model(server_dir, before, labels, progress)
    weights = read_weights(model / WEIGHTS)
    with exported(server_dir, settings, model, model / WEIGHTS, version, progress) as bundle:
        DirectoryStore(server_dir.store).add(bundle, model, server_dir.lineage)
    # A rule's own tensors may have a row for each label, too: it begins anew. So do adapters: what
    # they had learned is in the tensors that they now add to.
    same = weights.keys() == before.weights.keys() and all(
        weights[name].shape == before.weights[name].shape for name in weights
    )
    same = same and not adapted_in(weights)
    after = Checkpoint(
        version=version,
        weights=weights,
        server_state=before.server_state if same else {},
        seed=before.seed,
    )
    Checkpoints(server_dir.checkpoints).save(after, model=model.name)
    return version


def _make_model(
    server_dir: ServerDirectory, before: Checkpoint, labels: Labels, progress: Progress
) -> Path:
    """Return the complete directory of the new trainer files; nothing names it yet."""
    checkpoints = Checkpoints(server_dir.checkpoints)
    old, spec = server_dir.model_of(before.version), _spec(server_dir, before.version)
    workload = with_classes(spec.workload, labels.names)
    _remove_unused(server_dir, checkpoints)
    model = _model(server_dir, before.version + 1)
    aside = model.with_name(f".{model.name}.new")
    job = InitJob(
        workload=workload,
        trainable=spec.trainable,
        batch_size=spec.batch_size,
        directory=aside,
        checkpoint=checkpoints.path(before.version),
        frozen=old,
        former=dict(labels.former),
        adapter=plan_of(spec),
    )
    with making_folder(model, aside):
        run_export(job, progress)
    return model


def _remove_unused(server_dir: ServerDirectory, checkpoints: Checkpoints) -> None:
    """Remove trainer files that no checkpoint names, or names any more."""
    used = checkpoints.models()
    for folder in server_dir.home.glob(f"{MODEL}-*"):
        if folder.name not in used:
            shutil.rmtree(folder)


def _model(server_dir: ServerDirectory, version: int) -> Path:
    """Return where the trainer files of a version lie if it was made by a change of labels."""
    return server_dir.home / f"{MODEL}-{version:06d}"


def _labels(server_dir: ServerDirectory, version: int) -> Labels:
    spec = _spec(server_dir, version)
    return Labels(rebuild(spec.workload).task.classes, spec.task.former if spec.task else {})


def _spec(server_dir: ServerDirectory, version: int) -> TrainerSpec:
    return parse_trainer((server_dir.model_of(version) / TRAINER).read_bytes())
