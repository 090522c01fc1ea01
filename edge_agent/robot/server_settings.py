"""Where a robot's server is, how it is trusted, and where its models come from."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from fleet_model.protocol.routes import store_address
from fleet_model.settings import Expected, Options, Section


def _address(text: str) -> str:
    if not 0 < int(text.rpartition(":")[2]) < 65536:
        raise ValueError("expected a port from 1 to 65535")
    return text


def _no_path(value: Any) -> Any:
    return None if value == "" else value


Address = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    AfterValidator(_address),
    Expected("host:port, e.g. robots.example:8443 or [fe80::1]:8443"),
]
Channel = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9-]{0,30}$"),
    Expected("lower-case letters, digits and -, at most 31, a letter first"),
]
StoreAddress = Annotated[
    str,
    AfterValidator(store_address),
    Expected("https://host/folder, or a bucket as s3://bucket/folder"),
]
OptionalPath = Annotated[Path | None, BeforeValidator(_no_path)]  # "" is none: TOML has no null


class ServerLink(Section):
    """Where the server is and how it is trusted."""

    address: Address = Field(description="Where the server listens.")
    ca: Path = Field(
        default=Path("ca.crt"), description="The server's own authority, from the kit."
    )
    root: Path = Field(
        default=Path("root.json"),
        description="The keys that sign models, from the kit; without it, those that the server "
        "shows first.",
    )
    key: Path = Field(
        default=Path("robot.key"),
        description="This robot's private key; it never leaves this machine.",
    )
    channel: Channel = Field(
        default="stable", description="The published models that this robot runs."
    )
    models: StoreAddress = Field(
        default="",
        description="Where models and their signatures are fetched, if not from the server: a "
        "plain file server (https://models.example/fleet) or a bucket (s3://bucket/fleet, needs "
        "pip install 'fleetlearn[bucket]').",
    )
    models_ca: OptionalPath = Field(
        default=None,
        description="The authority of that file server's certificate; without it those of this "
        "system count.",
        examples=["models-ca.crt"],
    )
    models_options: Options = Field(
        default={},
        description="Of that bucket, as fsspec has them, e.g. {anon = true} or {endpoint_url = "
        '"https://s3.example"}. Keys and passwords belong in its own variables.',
    )
    superlink: Address | None = Field(
        default=None,
        description="Where rounds are asked for, if the server has a SuperLink apart.",
        examples=["localhost:9092"],
    )
