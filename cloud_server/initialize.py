"""Make a server directory: secrets, settings, first checkpoint, version 0, robot kit."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud_server.certificates import make_secrets
from cloud_server.checkpoints import Checkpoints
from cloud_server.directory import ServerDirectory
from cloud_server.export import InitJob, Progress, run_export
from cloud_server.publish import publish
from cloud_server.settings import (
    NetworkSettings,
    PublishSettings,
    TrainingSettings,
    initial_toml,
)
from fleet_model.bundle import Manifest, WorkloadSpec
from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError
from fleet_model.proof import utc_now
from fleet_model.types import Checkpoint
from fleet_model.weights import read_weights

LOOPBACK = ("localhost", "127.0.0.1")  # the operator's own commands come this way


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the operator asked `cloud-server init` for."""

    workload: str
    config: dict[str, Any]  # keyword arguments of the workload
    trainable: str
    host: str
    port: int
    address: str  # what robots connect to, host:port
    names: Sequence[str]  # extra names in the certificate
    checkpoint: Path | None
    training: TrainingSettings


def initialize(root: Path, plan: Plan, progress: Progress) -> Manifest:
    """Make `root` in one step: it is built aside and renamed, so a failed init leaves nothing.

    Raises:
        SettingsError: `root` has content already, or the plan is wrong.
        CheckpointError: the given checkpoint does not fit the workload.
        ExportError: the model cannot be exported.
    """
    if root.exists() and any(root.iterdir()):
        raise SettingsError(f"{root}: exists and is not empty; choose another directory")
    aside = root.with_name(f".{root.name}.init")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        manifest = _fill(ServerDirectory(aside), plan, progress)
        aside.rename(root)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return manifest


def _fill(place: ServerDirectory, plan: Plan, progress: Progress) -> Manifest:
    network = NetworkSettings(
        host=plan.host, port=plan.port, names=tuple(dict.fromkeys((*plan.names, *LOOPBACK)))
    )
    progress("certificates and keys")
    make_secrets(place, network.names, utc_now())
    progress("loading TensorFlow in a child process")
    job = InitJob(
        workload=WorkloadSpec(name=plan.workload, config=plan.config),
        trainable=plan.trainable,
        batch_size=plan.training.batch_size,
        directory=place.model,
        checkpoint=plan.checkpoint,
    )
    place.model.mkdir()
    run_export(job, progress)
    first = Checkpoint(version=0, weights=read_weights(place.model / "weights.safetensors"))
    place.checkpoints.mkdir()
    Checkpoints(place.checkpoints).save(first)
    progress("version 0")
    settings = PublishSettings()
    manifest = publish(place, settings, first, progress)
    _write_kit(place, plan.address, settings.channel)
    write_durably(place.settings, initial_toml(network, plan.training))
    return manifest


def _write_kit(place: ServerDirectory, address: str, channel: str) -> None:
    """Write what a robot needs to enroll; nothing in it is secret."""
    ca = (place.certificates / "ca.crt").read_bytes()
    write_durably(place.kit / "ca.crt", ca)
    kit = f'# fleetlearn robot kit: nothing here is secret\naddress = "{address}"\n'
    write_durably(place.kit / "kit.toml", kit + f'channel = "{channel}"\n')
