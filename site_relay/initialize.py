"""Make a relay's directory: what a server has, but a model; and what a robot has, but examples."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from cloud_server.initialize import with_loopback
from cloud_server.state.certificates import make_secrets
from cloud_server.state.directory import ServerDirectory, vacant
from cloud_server.state.kit import write_kit_with
from cloud_server.state.settings import NetworkSettings, PublishSettings, ServerSettings, relay_toml
from edge_agent.cli.enroll import enroll
from edge_agent.robot.settings import ExampleSettings, load_settings
from fleet_model.durable import making_folder
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import utc_now
from fleet_model.settings import explain, read_toml


def initialize(root: Path, kit: Path, *, names: Sequence[str], host: str, port: int) -> str:
    """Make `root` in one step; return the public key by which the fleet's server is to admit it.

    Args:
        root: the directory; it must be empty or not there.
        kit: of the fleet's server.
        names: that robots of the building connect to, the first one in their kit.
        host: address to listen on.
        port: to listen on.

    Raises:
        SettingsError: `root` has content already, no kit, or a wrong name or address.
    """
    root = vacant(root)
    try:
        network = NetworkSettings(host=host, port=port, names=with_loopback(names))
    except ValidationError as error:
        keys, words = explain(error, NetworkSettings)
        raise SettingsError(f"{'.'.join(keys)}: {words}; see `site-relay init --help`") from None
    kit = kit.parent if kit.name == "kit.toml" else kit
    aside = ServerDirectory(root.with_name(f".{root.name}.init"))
    with making_folder(root, aside.root):
        make_secrets(aside, network.names, utc_now())
        (aside.store / "objects").mkdir(parents=True)
        line = enroll(kit, aside.upstream, ExampleSettings(), train=True)
        publishing = PublishSettings(
            channel=load_settings(aside.upstream / "agent.toml").server.channel
        )
        aside.settings.write_text(relay_toml(network, publishing))
        values = read_toml(kit / "kit.toml")
        labels, boxes = values.get("labels", []), values.get("boxes") is True
        settings = ServerSettings(network=network, publish=publishing)
        write_kit_with(aside, settings, labels, boxes=boxes)
    return line
