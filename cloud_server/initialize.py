"""Make a server directory: secrets, settings, first checkpoint, version 0, robot kit."""

import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cloud_server.models.adapters import AdapterPlan
from cloud_server.models.export import BundleJob, InitJob, Progress, run_export
from cloud_server.models.hub import is_hub_name
from cloud_server.models.own_weights import model_of, require_kind
from cloud_server.models.publish import bundle_job, offer_bundle, publish
from cloud_server.state.certificates import make_secrets, make_server_certificate
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory, vacant
from cloud_server.state.kit import write_kit
from cloud_server.state.learning_settings import TrainingSettings
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import (
    NetworkSettings,
    PublishSettings,
    ServerSettings,
    load_settings,
    server_toml,
)
from fleet_model.bundle import Manifest, WorkloadSpec
from fleet_model.durable import making_folder
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.protocol.proof import utc_now
from fleet_model.settings import explain
from fleet_model.signatures import WEIGHTS
from fleet_model.types import Checkpoint
from fleet_model.weights import read_weights
from fleet_model.workload import build_workload, files_of, known_workloads

LOOPBACK = ("localhost", "127.0.0.1", "::1")  # the operator's own commands come this way


@dataclass(frozen=True, slots=True, kw_only=True)
class InitPlan:
    """What the operator asked `cloud-server init` for."""

    workload: str
    config: dict[str, Any]  # keyword arguments of the workload
    trainable: str
    host: str
    port: int
    names: Sequence[str]  # extra names in the certificate; robots connect to the first one
    checkpoint: Path | None
    calibration: Path | None = None  # own pictures for int8; None = the shipped ones
    adapter: AdapterPlan | None = None  # None: the trained tensors travel as they are


def initialize(root: Path, plan: InitPlan, progress: Progress) -> Manifest:
    """Make `root` in one step: it is built aside and renamed, so a failed init leaves nothing.

    Raises:
        SettingsError: `root` has content already, or the plan is wrong.
        CheckpointError: the given checkpoint does not fit the workload.
        ExportError: the model cannot be exported.
    """
    root = vacant(root)
    network = _network(plan)
    _require_checkpoint(plan)
    aside = root.with_name(f".{root.name}.init")
    with making_folder(root, aside):
        return _fill(ServerDirectory(aside), plan, network, progress)


def add_channel(root: Path, channel: str, plan: InitPlan, progress: Progress) -> Manifest:
    """Make what is trained for another channel of a server directory, and publish its version 0.

    The folder gets its name when it is complete. If only the publishing failed, it is done again.
    The server may run: robots that follow the channel get the model at their next look.

    Raises:
        SettingsError: no server directory, a name that is taken, or the plan is wrong.
        CheckpointError, ExportError: as initialize.
    """
    server_dir = ServerDirectory(root.absolute())
    server_dir.require()
    settings = load_settings(server_dir.settings)
    _require_channel(server_dir, settings, channel)
    _require_checkpoint(plan)
    own = replace(server_dir, lineage=channel)
    if not own.home.exists():
        aside = replace(server_dir, lineage=f".{channel}.init")
        with making_folder(own.home, aside.home):
            _make_model(aside, plan, _training_settings(plan), progress)
    progress("version 0")
    publishing = settings.publish.model_copy(
        update={"channel": channel, "calibration": plan.calibration}
    )
    return publish(own, publishing, Checkpoints(own.checkpoints).latest(), progress)


def _require_checkpoint(plan: InitPlan) -> None:
    """Refuse a file that no model can start from, before a framework is loaded for it."""
    files: Sequence[str] = ()
    if plan.workload in known_workloads():
        files = files_of(build_workload(_spec(plan)))
    if files:
        _require_folder(plan, files)
    elif plan.checkpoint is not None:
        require_kind(plan.checkpoint)


def _require_folder(plan: InitPlan, files: Sequence[str]) -> None:
    """Refuse what a workload that needs files cannot start from."""
    folder, needed = plan.checkpoint, f"a folder with {', '.join(files)} beside the weights"
    if folder is None:
        raise SettingsError(f"workload {plan.workload!r} starts from {needed}: --checkpoint FOLDER")
    if is_hub_name(folder) or (folder.exists() and model_of(folder) is not None):
        return
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise CheckpointError(f"{folder}: holds no {missing[0]}; expected {needed}")


def _require_channel(server_dir: ServerDirectory, settings: ServerSettings, channel: str) -> None:
    """Refuse a channel that has a model already, or no name of one."""
    try:
        PublishSettings(channel=channel)
    except ValidationError as error:
        raise SettingsError(f"--channel {channel}: {explain(error, PublishSettings)[1]}") from None
    taken = DirectoryStore(server_dir.store).channels().keys()
    if channel in taken or (
        channel == settings.publish.channel and not server_dir.of(channel).lineage
    ):
        raise SettingsError(
            f"--channel {channel}: {server_dir.root} trains and publishes for it already; choose "
            "another name"
        )


def renew_certificate(server_dir: ServerDirectory) -> Sequence[str]:
    """Make a new server key and certificate for network.names; robots trust it as the old one.

    Returns:
        The names in it.
    """
    server_dir.require()
    names = with_loopback(load_settings(server_dir.settings).network.names)
    make_server_certificate(server_dir, names, utc_now())
    return names


def _network(plan: InitPlan) -> NetworkSettings:
    try:
        settings = NetworkSettings(host=plan.host, port=plan.port, names=with_loopback(plan.names))
    except ValidationError as error:
        keys, words = explain(error, NetworkSettings)
        raise SettingsError(f"{'.'.join(keys)}: {words}; see `init --help`") from None
    try:
        socket.getaddrinfo(plan.host, plan.port)
    except (OSError, UnicodeError):
        raise SettingsError(
            f"--host {plan.host}: no address is known here for this name; give an address of this "
            "machine, or 0.0.0.0 for all of them. The name that robots use is --name"
        ) from None
    return settings


def with_loopback(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a certificate: the operator's own commands come by the loopback."""
    return tuple(dict.fromkeys((*names, *LOOPBACK)))


def _fill(
    server_dir: ServerDirectory, plan: InitPlan, network: NetworkSettings, progress: Progress
) -> Manifest:
    training = _training_settings(plan)  # first: a wrong workload ends here, within a second
    progress("certificates and keys")
    make_secrets(server_dir, network.names, utc_now())
    settings = PublishSettings(calibration=plan.calibration)
    model = server_dir.model
    with bundle_job(server_dir, settings, model, model / WEIGHTS, version=0) as job:
        _make_model(server_dir, plan, training, progress, job)
        manifest = offer_bundle(server_dir, settings, model, job.directory)
    toml = server_toml(network, training, plan.calibration)
    server_dir.settings.write_bytes(toml.encode())
    write_kit(server_dir, ServerSettings(network=network, publish=settings))
    return manifest


def _spec(plan: InitPlan) -> WorkloadSpec:
    return WorkloadSpec(name=plan.workload, config=plan.config)


def _make_model(
    server_dir: ServerDirectory,
    plan: InitPlan,
    training: TrainingSettings,
    progress: Progress,
    bundle: BundleJob | None = None,
) -> None:
    """Make the trainer files and the first checkpoint of a lineage, and what `bundle` asks for."""
    progress("loading the framework of the workload in a child process")
    job = InitJob(
        workload=_spec(plan),
        trainable=plan.trainable,
        batch_size=training.batch_size,
        directory=server_dir.model,
        checkpoint=plan.checkpoint,
        calibration=plan.calibration,
        adapter=plan.adapter,
        bundle=bundle,
    )
    server_dir.model.mkdir()
    run_export(job, progress)
    first = Checkpoint(version=0, weights=read_weights(server_dir.model / WEIGHTS))
    server_dir.checkpoints.mkdir()
    Checkpoints(server_dir.checkpoints).save(first)


def _training_settings(plan: InitPlan) -> TrainingSettings:
    workload = build_workload(_spec(plan))
    values = asdict(workload.training)
    if plan.adapter is not None:
        values["learning_rate"] = getattr(workload, "adapter_rate", values["learning_rate"])
    return TrainingSettings(**{name: values[name] for name in TrainingSettings.model_fields})
