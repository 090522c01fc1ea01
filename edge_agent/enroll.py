"""Turn a robot kit into this robot's own key and settings."""

import shutil
from pathlib import Path

from edge_agent.settings import ExampleSettings, initial_toml, read_toml
from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError
from fleet_model.proof import make_key, public_line, read_key


def enroll(kit: Path, directory: Path, examples: ExampleSettings, *, train: bool) -> str:
    """Write robot.key, ca.crt, agent.toml into `directory`; return the public key line.

    Running it again keeps the key, so that a robot the server knows stays known.

    Raises:
        SettingsError: the kit is not one, or the directory has other settings already.
    """
    try:
        values = read_toml(kit / "kit.toml")
        address, channel = str(values["address"]), str(values["channel"])
        ca = kit / "ca.crt"
        ca.stat()
    except (OSError, KeyError, SettingsError) as error:
        raise SettingsError(
            f"{kit}: not a robot kit ({error}); copy the folder DIR/kit of the server"
        ) from None
    if (directory / "agent.toml").exists():
        raise SettingsError(f"{directory}: has an agent.toml already; remove it to enroll again")
    directory.mkdir(parents=True, exist_ok=True)
    key = directory / "robot.key"
    line = public_line(read_key(key).public_key()) if key.exists() else make_key(key)
    shutil.copyfile(ca, directory / "ca.crt")
    toml = initial_toml(address, channel, examples, train=train)
    write_durably(directory / "agent.toml", toml)
    return line
