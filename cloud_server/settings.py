"""Everything an operator may set on the server: server.toml, then FLEETLEARN_* variables."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fleet_model.errors import SettingsError
from fleet_model.types import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVIRONMENT = "FLEETLEARN_"  # FLEETLEARN_TRAINING__LEARNING_RATE=0.05 overrides [training]
_DEFAULT = TrainConfig()


class Section(BaseModel):
    """Reject unknown keys, so that a typing error is found at start."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


# What a certificate can hold and a URL can name: a host name or an IP address.
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")]


class NetworkSettings(Section):
    """Where robots reach the server."""

    host: HostName = "127.0.0.1"  # address to listen on
    port: int = Field(default=8443, ge=1, le=65535)
    # In the certificate. An environment variable holds them with commas between.
    names: Annotated[tuple[HostName, ...], BeforeValidator(_split)] = ("localhost", "127.0.0.1")


class TrainingSettings(Section):
    """What robots are asked to do in one round; see fleet_model.types.TrainConfig."""

    epochs: int = Field(default=_DEFAULT.epochs, ge=1)
    batch_size: int = Field(default=_DEFAULT.batch_size, ge=1)
    learning_rate: float = Field(default=_DEFAULT.learning_rate, gt=0)
    momentum: float = Field(default=_DEFAULT.momentum, ge=0, lt=1)
    proximal_mu: float = Field(default=_DEFAULT.proximal_mu, ge=0)
    clip_norm: float = Field(default=_DEFAULT.clip_norm, ge=0)


class RoundSettings(Section):
    """Who takes part in a round and when it closes."""

    aggregator: str = "fedavg"  # a name from AGGREGATORS or "module:Class"
    min_robots: int = Field(default=2, ge=1)  # wait for so many; fewer updates fail the round
    deadline_s: float = Field(default=600.0, gt=0)  # a round closes with what it has by then
    wait_s: float = Field(default=300.0, ge=0)  # for min_robots to come online


class PublishSettings(Section):
    """Where finished models go."""

    channel: str = Field(default="stable", pattern=r"^[a-z][a-z0-9-]{0,30}$")
    calibration: Path | None = None  # folder of your own photos for int8; None = shipped ones


class ServerSettings(Section):
    """One server directory's server.toml."""

    network: NetworkSettings = NetworkSettings()
    training: TrainingSettings = TrainingSettings()
    rounds: RoundSettings = RoundSettings()
    publish: PublishSettings = PublishSettings()


def url_host(name: str) -> str:
    """Return a host name or address as it stands in a URL: IPv6 addresses in brackets."""
    return f"[{name}]" if ":" in name else name


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> ServerSettings:
    """Read server.toml and the environment over it.

    Raises:
        SettingsError: missing file, wrong TOML, unknown or wrong key, named in full.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: no such file; is this a server directory? `cloud-server init` makes one"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{path}: not readable TOML ({error})") from None
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT):
            _put(values, name.removeprefix(ENVIRONMENT).lower().split("__"), value, name)
    try:
        return ServerSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in first["loc"]]
        variable = ENVIRONMENT + "__".join(keys[:2]).upper()
        where = variable if variable in environment else f"{path}: {'.'.join(keys)}"
        raise SettingsError(f"{where}: {first['msg']} (got {first['input']!r})") from None


def _put(values: dict[str, Any], keys: list[str], value: str, name: str) -> None:
    if len(keys) != 2 or not isinstance(values.setdefault(keys[0], {}), dict):
        raise SettingsError(f"{name}: expected {ENVIRONMENT}SECTION__KEY")
    values[keys[0]][keys[1]] = value


def initial_toml(
    network: NetworkSettings, training: TrainingSettings, calibration: Path | None = None
) -> str:
    """Return the commented server.toml that `init` writes."""
    own = "" if calibration is None else f"calibration = {json.dumps(str(calibration))}"
    names = ", ".join(json.dumps(name) for name in network.names)
    rounds, publish = RoundSettings(), PublishSettings()
    return f"""\
# Settings of this server. Unknown keys are refused at start.
# Every key can be overridden by an environment variable, e.g. {ENVIRONMENT}TRAINING__EPOCHS=3

[network]
host = {json.dumps(network.host)}        # address to listen on; "0.0.0.0" for all interfaces
port = {network.port}               # one HTTPS port for robots and operators
names = [{names}]  # in the certificate; after a change: cloud-server renew-certificate

[training]                # what every robot is asked to do in one round
epochs = {training.epochs}                # passes over its local examples
batch_size = {training.batch_size}
learning_rate = {training.learning_rate}
momentum = {training.momentum}
proximal_mu = {training.proximal_mu}         # FedProx: above 0 keeps very different robots together
clip_norm = {training.clip_norm}           # above 0 bounds the length of a gradient

[rounds]
aggregator = "{rounds.aggregator}"
min_robots = {rounds.min_robots}            # a round waits for so many robots and updates
deadline_s = {rounds.deadline_s}        # then it closes with the updates it has
wait_s = {rounds.wait_s}            # how long it waits for min_robots to come online

[publish]
channel = "{publish.channel}"        # robots follow this channel
{own or '# calibration = "/photos"'}  # own images for int8: cloud-server init --calibration
"""
