"""Publish a picked model: robots try it, and nobody trains it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cloud_server.importing import publish_engine
from cloud_server.models.imported.bundle import Content, shown, write_untrained
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import PublishSettings
from fleet_model.bundle import TRAINER, WorkloadSpec, parse_trainer
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.workload import rebuild
from fleet_model.workloads.image_classifier import ImageClassifier

_WORKLOAD, _NAME = "image-classifier", "compressed.tflite"
_TOLD = ("accuracy", "macro_f1")  # of the test pictures, into the manifest


def labels_of_fleet(server_dir: ServerDirectory) -> tuple[str, ...]:
    """Return the labels that a fleet learns.

    Raises:
        SettingsError: it learns something else than the class of a picture.
        CheckpointError: it has no checkpoint.
    """
    newest = Checkpoints(server_dir.checkpoints).newest()
    if newest is None:
        raise CheckpointError(f"{server_dir.checkpoints}: no checkpoint; `cloud-server repair DIR`")
    trainer = parse_trainer((server_dir.model_of(newest) / TRAINER).read_bytes())
    workload = rebuild(trainer.workload)
    if not isinstance(workload, ImageClassifier):
        raise SettingsError(
            f"--publish {server_dir.root}: this fleet learns {trainer.workload.name!r}; a "
            f"classifier of pictures is for one that learns {_WORKLOAD!r}"
        )
    return workload.labels


def publish_picked(
    server_dir: ServerDirectory, settings: PublishSettings, told: Mapping[str, Any], out: Path
) -> int:
    """Make the picked model the newest of the channel; return its number.

    The fleet goes on training its own model: the picked one's network may have other layers.

    Args:
        server_dir: with the lineage whose robots are to run it.
        settings: the channel.
        told: what pipeline.json says, with a model that was picked.
        out: folder of the results.

    Raises:
        SettingsError: the fleet has other labels, or the picked file is no .tflite; a run or a
            rollout on the channel goes on.
        FleetError: as `publish_engine`.
    """
    picked = next(one for one in told["models"] if one["name"] == told["picked"])
    require_labels(told["labels"], labels_of_fleet(server_dir))
    file = out / picked["file"]
    if file.suffix != ".tflite":
        raise SettingsError(f"{picked['name']} is a {file.suffix} file, and robots run .tflite")
    workload = ImageClassifier(told["labels"], image_size=told["size"])
    what = f"{picked['name']} of {told['checkpoint']} ({told['sha256'][:12]})"
    content = Content(
        file,
        _NAME,
        WorkloadSpec(name=_WORKLOAD, config=dict(workload.config)),
        workload.task,
        shown(what),
        {name: picked[name] for name in _TOLD},
    )
    write = partial(write_untrained, content)
    return publish_engine(server_dir, settings, content.told, write)


def require_labels(ours: Sequence[str], fleet: Sequence[str]) -> None:
    """Raise SettingsError unless a fleet has the same labels in the same order."""
    if tuple(ours) != tuple(fleet):
        raise SettingsError(
            f"the fleet learns {', '.join(fleet)}, and the model answers {', '.join(ours)}; they "
            "have to be the same, in the same order"
        )
