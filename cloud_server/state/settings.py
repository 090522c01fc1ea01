"""Everything an operator may set on the server: server.toml, then FLEETLEARN_* variables."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

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
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]  # "": nobody is named


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


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


class RoundSettings(Section):
    """Who takes part in a round and when it closes."""

    aggregator: str = ""  # of files of earlier releases: now [aggregation] rule
    mode: Literal["sync", "buffered"] = "sync"  # buffered: FedBuff (arXiv:2106.06639)
    robots: Names = ()  # names; none: every robot that is approved, online and not busy
    sites: Names = ()
    labels: Names = ()  # a robot needs all of them
    query: str = ""  # over what robots report: "battery >= 30 and free_disk_mb > 500"
    target: int = Field(default=0, ge=0)  # ask so many of them, chosen at random; 0: all
    quorum: int = Field(default=2, ge=1)  # wait for so many; fewer good updates fail the round
    deadline_s: float = Field(default=600.0, gt=0)  # a round closes with what it has by then
    wait_s: float = Field(default=300.0, ge=0)  # for the quorum to come online
    max_staleness: int = Field(default=20, ge=0)  # buffered: an older update is dropped
    keep_checkpoints: int = Field(default=20, ge=2)  # the newest; those of kept versions stay, too


def _table(value: Any) -> Any:
    """Return the table that a variable of the environment holds as text: {memory_mb = 8}."""
    if not isinstance(value, str):
        return value
    try:
        return tomllib.loads(f"options = {value}")["options"]
    except tomllib.TOMLDecodeError:
        raise ValueError("expected a table as in the file: {name = value}") from None


class AggregationSettings(Section):
    """How the updates of a round become the next checkpoint."""

    rule: str = "fedavg"  # a name from AGGREGATORS or "module:Class"
    # What its constructor takes. A variable of the environment holds them as the file does.
    options: Annotated[dict[str, Any], BeforeValidator(_table)] = {}


class CheckSettings(Section):
    """What an update must hold to be folded in."""

    max_examples_per_robot: int = Field(default=10_000, ge=1)  # a larger count weighs no more
    max_update_mb: float = Field(default=512.0, gt=0)
    max_norm_ratio: float = Field(default=10.0, ge=0)  # to the running median; 0: any length
    suspend_after: int = Field(default=3, ge=0)  # refused updates in a row; 0: never


class LimitSettings(Section):
    """What one address may ask of the port."""

    max_connections: int = Field(default=1024, ge=8)
    max_connections_per_address: int = Field(default=256, ge=4)  # a site's robots share one
    requests_per_s: float = Field(default=200.0, gt=0)  # of one address
    refusals_per_s: float = Field(default=1.0, gt=0)  # then it is answered 429 for a while
    max_body_mb: float = Field(default=32.0, ge=6)  # of one request; Flower cuts tensors at 5 MB
    slow_s: float = Field(default=15.0, gt=0)  # a head that takes longer is cut off


class LogSettings(Section):
    """How the server tells what it does: on stderr, and in files for TensorBoard."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning"] = "info"
    tensorboard: bool = False  # event files in DIR/tensorboard; needs the extra `tensorboard`


class PublishSettings(Section):
    """Where finished models go."""

    channel: str = Field(default="stable", pattern=r"^[a-z][a-z0-9-]{0,30}$")
    calibration: Path | None = None  # folder of your own photos for int8; None = shipped ones
    # The newest versions; what is pinned, offered by a channel or installed on a robot stays, too.
    keep_versions: int = Field(default=20, ge=2)


class ServerSettings(Section):
    """One server directory's server.toml."""

    network: NetworkSettings = NetworkSettings()
    training: TrainingSettings = TrainingSettings()
    rounds: RoundSettings = RoundSettings()
    aggregation: AggregationSettings = AggregationSettings()
    checks: CheckSettings = CheckSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    publish: PublishSettings = PublishSettings()

    @property
    def moved(self) -> str:
        """Return what the operator is to change in server.toml because a setting has moved."""
        if not self.rounds.aggregator:
            return ""
        rule = json.dumps(self.rounds.aggregator)
        return (
            f"rounds.aggregator has moved; remove it and write under [aggregation]: rule = {rule}"
        )


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
    _move_aggregator(values, path)
    try:
        return ServerSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in first["loc"]]
        variable = ENVIRONMENT + "__".join(keys[:2]).upper()
        where = variable if variable in environment else f"{path}: {'.'.join(keys)}"
        raise SettingsError(f"{where}: {first['msg']} (got {first['input']!r})") from None


def _move_aggregator(values: dict[str, Any], path: Path) -> None:
    """Read rounds.aggregator of earlier releases as aggregation.rule."""
    rounds, aggregation = values.get("rounds"), values.setdefault("aggregation", {})
    old = rounds.get("aggregator") if isinstance(rounds, dict) else None
    if old and isinstance(aggregation, dict) and aggregation.setdefault("rule", old) != old:
        raise SettingsError(
            f"{path}: rounds.aggregator is {old!r} and aggregation.rule is "
            f"{aggregation['rule']!r}; remove rounds.aggregator, it has moved to aggregation.rule"
        )


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
    rounds, aggregation, publish = RoundSettings(), AggregationSettings(), PublishSettings()
    checks, limits, log = CheckSettings(), LimitSettings(), LogSettings()
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
mode = "{rounds.mode}"             # or "buffered": a round closes with every `quorum` updates
robots = []               # only these names; empty: all that are approved, online and not busy
sites = []                # only these sites
labels = []               # only robots with all these labels
query = ""                # over what robots report, e.g. "battery >= 30 and free_disk_mb > 500"
target = {rounds.target}                # ask so many of them, chosen at random; 0: all
quorum = {rounds.quorum}                # a round waits for so many robots and good updates
deadline_s = {rounds.deadline_s}        # then it closes with the updates it has
wait_s = {rounds.wait_s}            # how long it waits for the quorum to come online
max_staleness = {rounds.max_staleness}        # buffered: updates from more versions ago are dropped
keep_checkpoints = {rounds.keep_checkpoints}     # the newest; those of published versions stay, too

[aggregation]             # how the updates of a round become the next model
rule = "{aggregation.rule}"           # or "median"; your own class as "module:Class"
options = {{}}              # of the rule, e.g. {{memory_mb = 32}} of "median"

[checks]                  # an update that fails one is refused, and the robot is told
max_examples_per_robot = {checks.max_examples_per_robot}  # a larger count weighs no more than this
max_update_mb = {checks.max_update_mb}
max_norm_ratio = {checks.max_norm_ratio}     # length against the running median; 0: any length
suspend_after = {checks.suspend_after}         # refused updates in a row; 0: never

[limits]                  # of the port
max_connections = {limits.max_connections}
max_connections_per_address = {limits.max_connections_per_address}  # robots of a site may share one
requests_per_s = {limits.requests_per_s}    # of one address
refusals_per_s = {limits.refusals_per_s}      # of one address; then it is answered 429 for a while
max_body_mb = {limits.max_body_mb}        # of one request
slow_s = {limits.slow_s}             # a request head that takes longer is cut off

[log]
format = "{log.format}"           # or "json", a line an event
level = "{log.level}"            # debug, info, warning
tensorboard = {json.dumps(log.tensorboard)}  # event files in DIR/tensorboard; extra `tensorboard`

[publish]
channel = "{publish.channel}"        # robots follow this channel
keep_versions = {publish.keep_versions}        # the newest; pinned and installed ones stay, too
{own or '# calibration = "/photos"'}  # own images for int8: cloud-server init --calibration
"""
