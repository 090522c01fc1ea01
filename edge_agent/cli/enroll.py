"""Turn a robot kit into this robot's own key and settings."""

from pathlib import Path

from pydantic import ValidationError

from edge_agent.robot.join_token import JoinToken
from edge_agent.robot.server_settings import ServerLink
from edge_agent.robot.settings import ExampleSettings, agent_toml
from fleet_model.durable import make_directory, write_durably
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import make_key, public_line, read_key
from fleet_model.settings import explain, read_toml

KIT_TRAINERS = ("keras", "torch")


def enroll(
    kit: Path,
    directory: Path,
    examples: ExampleSettings,
    *,
    train: bool,
    name: str = "",
    models: str = "",
) -> str:
    """Write robot.key, ca.crt, root.json, agent.toml into `directory`; return the public key line.

    The token of a kit comes along, with a `name` for the robot (default: of this machine).
    `models` is where they are fetched, in the place of what the kit says. Running it again keeps
    the key, so that a robot the server knows stays known. Where only the key is gone, it is made
    anew, and agent.toml stays.

    Raises:
        SettingsError: the kit is not one, the directory has other settings already, or cannot be
            written.
    """
    kit = kit.parent if kit.name == "kit.toml" else kit
    if directory.exists() and not directory.is_dir():
        raise SettingsError(f"--dir {directory}: is a file, expected a folder; name another place")
    link, trainer, ca, root = _read_kit(kit)
    key, settings = directory / "robot.key", directory / "agent.toml"
    has_settings = settings.exists()
    is_lost = key.with_suffix(".pub").exists() and not key.exists()
    if has_settings and not is_lost:
        raise SettingsError(f"{directory}: has an agent.toml already; remove it to enroll again")
    try:
        make_directory(directory)
        line = public_line(read_key(key).public_key()) if key.exists() else make_key(key)
        write_durably(directory / "ca.crt", ca)
        if root is not None:
            write_durably(directory / "root.json", root)
        JoinToken(directory).take(kit, name)
        if not has_settings:  # else only the key was lost: the settings stay
            place = models or link.models
            toml = agent_toml(
                link.address, link.channel, examples, train=train, models=place, trainer=trainer
            )
            write_durably(settings, toml)
    except OSError as error:
        raise SettingsError(f"{directory}: cannot be written ({error.strerror})") from None
    return line


def _read_kit(kit: Path) -> tuple[ServerLink, str, bytes, bytes | None]:
    """Return what kit.toml says, checked, the CA certificate, and the root if there is one.

    Of what trains here a kit may name one of ours, where LiteRT cannot: never code to load.
    """
    try:
        values = read_toml(kit / "kit.toml")
        given = {name: values[name] for name in ("address", "channel", "models") if name in values}
        link = ServerLink.model_validate(given)
        root = kit / "root.json"  # kits of servers that do not sign have none
        trainer = values["trainer"] if values.get("trainer") in KIT_TRAINERS else ""
        kept = root.read_bytes() if root.exists() else None
        return link, str(trainer), (kit / "ca.crt").read_bytes(), kept
    except (OSError, SettingsError) as error:
        reason = str(error)
    except ValidationError as error:
        keys, words = explain(error, ServerLink)
        reason = f"kit.toml: {'.'.join(keys)}: {words}"
    raise SettingsError(
        f"{kit}: not a robot kit ({reason}); copy the kit folder that `cloud-server init` makes on "
        "the server (fleet/kit)"
    )
