"""Everything an operator may set on the server: server.toml, then FLEETLEARN_* variables."""

import json
import os
from collections.abc import Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cloud_server.state.learning_settings import (
    AggregationSettings,
    CheckSettings,
    Names,
    PrivacySettings,
    SiteSettings,
    StartSettings,
    TrainingSettings,
    split_names,
)
from fleet_model.compression.codec import TOPK, Codec
from fleet_model.errors import SettingsError
from fleet_model.protocol.routes import store_address
from fleet_model.settings import (
    Expected,
    Former,
    Section,
    initial_toml,
    override,
    read_toml,
    validate,
)
from fleet_model.types import FLOAT32

ENVIRONMENT = "FLEETLEARN_"  # FLEETLEARN_TRAINING__LEARNING_RATE=0.05 overrides [training]


def _no_port(name: str) -> str:
    if ":" in name:
        try:
            IPv6Address(name)
        except ValueError:
            raise ValueError("not an IPv6 address") from None
    return name


# What a certificate can hold and a URL can name.
HostName = Annotated[
    str,
    Field(max_length=253, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:.]+)$"),
    AfterValidator(_no_port),
    Expected("a host name or an IP address, without a port"),
]
HostNames = Annotated[tuple[HostName, ...], BeforeValidator(split_names)]

Address = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    Expected("host:port, e.g. robots.example:9443"),
]
Channel = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9-]{0,30}$"),
    Expected("lower-case letters, digits and -, at most 31, a letter first"),
]


class NetworkSettings(Section):
    """Where robots and operators reach the server."""

    host: HostName = Field(
        default="127.0.0.1", description='Address to listen on; "0.0.0.0" for all interfaces.'
    )
    port: int = Field(
        default=8443, ge=1, le=65535, description="One HTTPS port for robots and operators."
    )
    names: HostNames = Field(
        default=("localhost", "127.0.0.1"),
        description="Names in the certificate; after a change: cloud-server renew-certificate DIR.",
    )
    moves_to: Address | None = Field(
        default=None,
        description="Where the server will be: robots learn it while this address still answers, "
        "and go there when only that one does.",
        examples=["robots.example:9443"],
    )
    models: Annotated[
        str,
        AfterValidator(store_address),
        Expected("https://host/folder, or a bucket as s3://bucket/folder"),
    ] = Field(
        default="",
        description="Where robots of new kits fetch models, if not here; `cloud-server models "
        "sync` brings them there.",
    )


class RoundSettings(Section):
    """Who takes part in a round and when it closes."""

    aggregator: Annotated[str, Former()] = ""  # now [aggregation] rule
    mode: Literal["sync", "buffered"] = Field(
        default="sync",
        description="sync: a round asks its robots once. buffered: a round closes with every "
        "`quorum` good updates, and idle robots are asked all the time (arXiv:2106.06639).",
    )
    robots: Names = Field(
        default=(),
        description="Only these robots; none: all that are approved, online and not busy.",
    )
    sites: Names = Field(default=(), description="Only robots of these sites; none: of all.")
    labels: Names = Field(default=(), description="Only robots that have all these labels.")
    query: str = Field(
        default="",
        description='Over what robots report, e.g. "battery >= 30 and free_disk_mb > 500".',
    )
    target: int = Field(
        default=0, ge=0, description="How many robots are asked, chosen at random; 0: all."
    )
    quorum: int = Field(
        default=2,
        ge=1,
        description="A round waits for this many robots; with fewer good updates it fails.",
    )
    deadline_s: float = Field(
        default=600.0, gt=0, description="After so long a round closes with the updates it has."
    )
    wait_s: float = Field(
        default=300.0, ge=0, description="How long a round waits for the quorum to come online."
    )
    max_staleness: int = Field(
        default=20,
        ge=0,
        description="buffered: updates that are more versions old than this are dropped.",
    )
    keep_checkpoints: int = Field(
        default=20,
        ge=2,
        description="How many of the newest are kept; those of published versions stay, too.",
    )
    compression: Literal["none", "fp16", "int8", "topk"] = Field(
        default="none",
        description="How robots send updates. fp16: half the bytes. int8: a quarter. topk: the "
        "largest numbers only. What is left out is sent with the next update.",
    )
    topk_share: float = Field(
        default=0.05, gt=0, le=1, description="topk: the share of a tensor's numbers that is sent."
    )

    @property
    def codec(self) -> Codec:
        """Return what robots are asked to send updates in."""
        name = FLOAT32 if self.compression == "none" else self.compression
        return Codec(name, self.topk_share if name == TOPK else 0.0)

    @model_validator(mode="after")
    def _can_close(self) -> "RoundSettings":
        if self.mode == "sync" and 0 < self.target < self.quorum:
            raise ValueError(
                f"rounds.target is {self.target}, expected 0 or at least rounds.quorum "
                f"({self.quorum}): a round cannot get more good updates than it asks robots"
            )
        return self


class LimitSettings(Section):
    """What one address may ask of the port."""

    max_connections: int = Field(default=1024, ge=8, description="Open connections in all.")
    max_connections_per_address: int = Field(
        default=256, ge=4, description="Open connections of one address; a site's robots share one."
    )
    requests_per_s: float = Field(default=200.0, gt=0, description="Requests of one address.")
    refusals_per_s: float = Field(
        default=1.0,
        gt=0,
        description="Refused requests of one address; above it, it gets status 429 for a while.",
    )
    max_body_mb: float = Field(
        default=32.0, ge=6, description="Megabytes of one request; Flower cuts tensors at 5 MB."
    )
    slow_s: float = Field(
        default=15.0, gt=0, description="A request head that takes longer is cut off."
    )
    hold_s: float = Field(
        default=25.0,
        ge=0,
        le=55,
        description="How long an idle robot's request waits for news; 0: robots ask every few s.",
    )


class LogSettings(Section):
    """What the server logs."""

    format: Literal["text", "json"] = Field(
        default="text", description="On stderr, one line per event."
    )
    level: Literal["debug", "info", "warning"] = Field(
        default="info", description="The least important events that are logged."
    )
    tensorboard: bool = Field(
        default=False,
        description="Event files in DIR/tensorboard; needs pip install 'fleetlearn[tensorboard]'.",
    )


class PublishSettings(Section):
    """Where finished models go."""

    channel: Channel = Field(
        default="stable", description="What this server trains is published on it."
    )
    calibration: Path | None = Field(
        default=None,
        description="Folder of your own pictures for int8; without it, pictures that are shipped.",
        examples=["/photos"],
    )
    keep_versions: int = Field(
        default=20,
        ge=2,
        description="How many of the newest are kept; versions that are pinned, offered by a "
        "channel or installed on a robot stay, too.",
    )


class GateSettings(Section):
    """When robots get what a run has made; else `cloud-server models publish` gives it to them."""

    publish: Literal["checked", "always"] = Field(
        default="checked", description="checked: robots measure it first. always: unmeasured."
    )
    min_held_out: int = Field(
        default=100, ge=1, description="Fewer examples that count say little."
    )
    max_fall: float = Field(
        default=0.02, ge=0, le=1, description="How much worse it may be, of all held-out examples."
    )
    max_loss: float = Field(
        default=0.1, ge=0, le=1, description="The same of one site, and of one robot in ten."
    )


class ConsoleSettings(Section):
    """The fleet in a browser."""

    enabled: bool = Field(
        default=True,
        description="Nothing of it is answered before `cloud-server web DIR` has made a link.",
    )
    data_sets: Path | None = Field(
        default=None,
        description="A folder of data sets, with which versions can be compared. Whoever has a "
        "session may see what is in it.",
    )


class ServerSettings(Section):
    """One server directory's server.toml."""

    network: NetworkSettings = NetworkSettings()
    training: TrainingSettings = TrainingSettings()
    start: StartSettings = StartSettings()
    rounds: RoundSettings = RoundSettings()
    aggregation: AggregationSettings = AggregationSettings()
    sites: SiteSettings = SiteSettings()
    privacy: PrivacySettings = PrivacySettings()
    checks: CheckSettings = CheckSettings()
    limits: LimitSettings = LimitSettings()
    console: ConsoleSettings = ConsoleSettings()
    log: LogSettings = LogSettings()
    publish: PublishSettings = PublishSettings()
    gate: GateSettings = GateSettings()

    @property
    def moved(self) -> str:
        """Return what the operator is to change in server.toml because a setting has moved."""
        if not self.rounds.aggregator:
            return ""
        rule = json.dumps(self.rounds.aggregator)
        return (
            f"rounds.aggregator has moved; remove it and write under [aggregation]: rule = {rule}"
        )


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> ServerSettings:
    """Read server.toml and the environment over it.

    Raises:
        SettingsError: missing file, wrong TOML, unknown or wrong key, named in full.
    """
    values = read_toml(path, hint="; is this a server directory? `cloud-server init` makes one")
    override(values, ServerSettings, environment, ENVIRONMENT)
    _move_aggregator(values, path)
    return validate(values, ServerSettings, path, environment, ENVIRONMENT)


def _move_aggregator(values: dict[str, Any], path: Path) -> None:
    """Read rounds.aggregator of earlier releases as aggregation.rule."""
    rounds, aggregation = values.get("rounds"), values.setdefault("aggregation", {})
    old = rounds.get("aggregator") if isinstance(rounds, dict) else None
    if old and isinstance(aggregation, dict) and aggregation.setdefault("rule", old) != old:
        raise SettingsError(
            f"{path}: rounds.aggregator is {old!r} and aggregation.rule is "
            f"{aggregation['rule']!r}; remove rounds.aggregator, it has moved to aggregation.rule"
        )


def server_toml(
    network: NetworkSettings, training: TrainingSettings, calibration: Path | None = None
) -> str:
    """Return the commented server.toml that `init` writes."""
    settings = ServerSettings(
        network=network, training=training, publish=PublishSettings(calibration=calibration)
    )
    return initial_toml(
        settings,
        "Settings of this server. Unknown keys are refused at start.\n"
        f"A variable of the environment overrides a key, e.g. {ENVIRONMENT}TRAINING__EPOCHS=3",
    )


def relay_toml(network: NetworkSettings, publishing: PublishSettings) -> str:
    """Return the commented server.toml of a site relay: one robot of the building is enough."""
    rounds = RoundSettings(quorum=1)
    return initial_toml(
        ServerSettings(network=network, publish=publishing, rounds=rounds),
        "Settings of this relay towards the robots of its building. [training], [aggregation] and "
        "[gate] are the fleet server's, and not used here.\n"
        f"A variable of the environment overrides a key, e.g. {ENVIRONMENT}LOG__LEVEL=debug",
    )


def url_host(name: str) -> str:
    """Return a host name or address as it stands in a URL: IPv6 addresses in brackets."""
    return f"[{name}]" if ":" in name else name
