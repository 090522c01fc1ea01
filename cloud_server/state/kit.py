"""The robot kit: what a robot needs to enroll. Nothing in it is secret."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import NetworkSettings, ServerSettings, url_host
from fleet_model.bundle import TRAINER, TrainerSpec, parse_trainer
from fleet_model.durable import make_directory, write_durably
from fleet_model.errors import SettingsError
from fleet_model.settings import read_toml, toml_value
from fleet_model.workload import rebuild, takes_instructions

CA, KIT, ROOT = "ca.crt", "kit.toml", "root.json"


def write_kit(server_dir: ServerDirectory, settings: ServerSettings) -> None:
    """Write the kit as server.toml and the newest checkpoint have it; raises OSError."""
    own = server_dir.of(settings.publish.channel)
    labels, boxes = learned_labels(own)
    answers = takes_instructions(rebuild(_newest(own).workload))
    write_kit_with(
        server_dir, settings, labels, boxes=boxes, trainer=_trainer(own), answers=answers
    )


def write_kit_with(
    server_dir: ServerDirectory,
    settings: ServerSettings,
    labels: Sequence[str],
    *,
    boxes: bool,
    trainer: str = "",
    answers: bool = False,
) -> None:
    """Write the kit with the labels that examples, or their boxes, must have; raises OSError.

    `trainer` is what trains, where LiteRT, which robots take by themselves, cannot. `answers`:
    examples are instructions.
    """
    lines = [
        "# fleetlearn robot kit: nothing here is secret",
        f"address = {toml_value(address_of(settings.network))}",
        f"channel = {toml_value(channel_of_kit(server_dir, settings))}",
        *([f"models = {toml_value(settings.network.models)}"] if settings.network.models else []),
        *([f"labels = {toml_value(labels)}"] if labels else []),
        *(["boxes = true  # in frames have these labels"] if boxes else []),
        *(["answers = true  # to instructions are learned"] if answers else []),
        *([f"trainer = {toml_value(trainer)}  # for training.trainer"] if trainer else []),
    ]
    make_directory(server_dir.kit)
    write_durably(server_dir.kit / CA, (server_dir.certificates / CA).read_bytes())
    write_root(server_dir)
    write_durably(server_dir.kit / KIT, "\n".join([*lines, ""]))


def write_root(server_dir: ServerDirectory) -> None:
    """Give the kit the newest root of the keys that sign models, if there is a kit and a root."""
    roots = _roots(server_dir)
    if roots and server_dir.kit.is_dir() and _kit_root(server_dir) != roots[-1].read_bytes():
        write_durably(server_dir.kit / ROOT, roots[-1].read_bytes())


def address_of(network: NetworkSettings) -> str:
    """Return where robots are told to connect: the first name in the certificate."""
    return f"{url_host(network.names[0])}:{network.port}"


def _roots(server_dir: ServerDirectory) -> Sequence[Path]:
    """Return the files of all roots, oldest first; see cloud_server/signing/repository.py."""
    files = (server_dir.store / "metadata").glob("*.root.json")
    return sorted(files, key=lambda file: int(file.name.partition(".")[0]))


def channel_of_kit(server_dir: ServerDirectory, settings: ServerSettings) -> str:
    """Return what new robots follow: the channel that offline keys sign, else what runs publish."""
    signed = sorted((server_dir.store / "metadata").glob("*.targets.json"))
    protected = []
    with suppress(ValueError, LookupError, TypeError):  # damaged, or nothing is signed
        delegated = json.loads(signed[-1].read_bytes())["signed"]["delegations"]["roles"]
        protected = [str(role["name"]) for role in delegated if role["name"] != "online"]
    return (protected or [settings.publish.channel])[0]


def _kit_root(server_dir: ServerDirectory) -> bytes | None:
    try:
        return (server_dir.kit / ROOT).read_bytes()
    except FileNotFoundError:
        return None


def learned_labels(server_dir: ServerDirectory) -> tuple[Sequence[str], bool]:
    """Return the labels of the newest checkpoint, and whether boxes have them; none of a text.

    Raises CheckpointError.
    """
    task = rebuild(_newest(server_dir).workload).task
    return task.classes, task.answer == "boxes"


def _trainer(server_dir: ServerDirectory) -> str:
    """Return what must train, where LiteRT cannot; "" where it can."""
    parts = sorted(_newest(server_dir).parts)
    return "" if "litert" in parts or len(parts) != 1 else parts[0]


def _newest(server_dir: ServerDirectory) -> TrainerSpec:
    version = Checkpoints(server_dir.checkpoints).newest() or 0
    return parse_trainer((server_dir.model_of(version) / TRAINER).read_bytes())


def faults_of_kit(server_dir: ServerDirectory, settings: ServerSettings) -> list[str]:
    """Return what robots that enroll with this kit would miss; no fault is an empty list."""
    ca, kit = server_dir.kit / CA, server_dir.kit / KIT
    if not ca.exists() or ca.read_bytes() != (server_dir.certificates / CA).read_bytes():
        return ["robots enrolled with this kit trust another server"]
    try:
        values = read_toml(kit)
    except SettingsError as error:
        return [str(error)]
    faults = []
    roots, root = _roots(server_dir), _kit_root(server_dir)
    if roots and root not in [file.read_bytes() for file in roots]:
        faults.append(
            f"{ROOT} has other keys than those that sign models here: robots enrolled with this "
            "kit refuse the models"
            if root
            else f"{ROOT} is missing: robots enrolled with this kit trust what they see first"
        )
    host, _, port = str(values.get("address", "")).rpartition(":")
    network, channel = settings.network, values.get("channel")
    if port != str(network.port) or host not in map(url_host, network.names):
        faults.append(
            f"kit.toml sends robots to {values.get('address')}, server.toml listens on port "
            f"{network.port} as {network.names[0]}"
        )
    expected = channel_of_kit(server_dir, settings)
    if channel != expected:
        faults.append(f"kit.toml follows channel {channel}, robots are to follow {expected}")
    if values.get("models", "") != network.models:
        faults.append("kit.toml names another place for models than network.models")
    if server_dir.is_relay:  # its labels are those of the fleet's kit
        return faults
    labels, boxes = learned_labels(server_dir.of(settings.publish.channel))
    if "labels" in values and (values["labels"], values.get("boxes", False)) != (
        list(labels),
        boxes,
    ):
        faults.append("kit.toml lists other labels than the newest model learns")
    return faults
