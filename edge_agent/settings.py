"""Everything an operator may set on a robot: agent.toml, then EDGE_AGENT_* variables."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fleet_model.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVIRONMENT = "EDGE_AGENT_"  # EDGE_AGENT_TRAINING__TRAINER=keras overrides [training]


class Section(BaseModel):
    """Reject unknown keys, so that a typing error is found at start."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _address(text: str) -> str:
    if not 0 < int(text.rpartition(":")[2]) < 65536:
        raise ValueError("port out of range")
    return text


def _paths(value: Any) -> Any:
    return [path for path in value.split(os.pathsep) if path] if isinstance(value, str) else value


Address = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    AfterValidator(_address),
]
# An environment variable holds a list as PATH does: /bags/monday:/bags/tuesday
Paths = Annotated[tuple[Path, ...], BeforeValidator(_paths)]


class ServerLink(Section):
    """Where the server is and how it is trusted."""

    address: Address  # host:port
    ca: Path = Path("ca.crt")  # relative paths are taken from agent.toml's folder
    key: Path = Path("robot.key")
    channel: str = Field(default="stable", pattern=r"^[a-z][a-z0-9-]{0,30}$")


class ExampleSettings(Section):
    """Where labelled examples come from."""

    paths: Paths = ()  # bags or folders; none: this robot never trains
    topic: str = ""  # camera topic; empty: the only one there is
    label_topic: str = "/camera/label"
    tolerance_s: float = Field(default=0.1, gt=0)  # between a label and its frame
    held_out: float = Field(default=0.2, ge=0, le=0.5)  # share kept for measuring


class TrainSettings(Section):
    """How this robot trains."""

    enabled: bool = True  # false: it only follows published models
    trainer: str = "litert"  # "keras" needs `pip install fleetlearn[keras]`
    threads: int = Field(default=2, ge=1)
    idle_s: float = Field(default=120.0, gt=0)  # the training process ends after so long


class EngineSettings(Section):
    """What runs the published model."""

    precision: Literal["fp32", "int8"] = "fp32"


class PollSettings(Section):
    """How often the server is asked; an idle robot costs about 1 kB a poll."""

    idle_s: float = Field(default=2.0, gt=0)  # for work and for new models
    busy_s: float = Field(default=0.1, gt=0)  # while a run goes on


class AgentSettings(Section):
    """One robot's agent.toml."""

    server: ServerLink
    state: Path = Path("state")  # models, status; the agent writes nowhere else
    examples: ExampleSettings = ExampleSettings()
    training: TrainSettings = TrainSettings()
    engine: EngineSettings = EngineSettings()
    poll: PollSettings = PollSettings()


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> AgentSettings:
    """Read agent.toml and the environment over it; relative paths become absolute.

    Raises:
        SettingsError: missing file, wrong TOML, unknown or wrong key, named in full.
    """
    values = read_toml(path)
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT):
            _put(values, name.removeprefix(ENVIRONMENT).lower().split("__"), value, name)
    try:
        settings = AgentSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_reason(error, path, environment)) from None
    return _absolute(settings, path.absolute().parent)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raises SettingsError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; `edge-agent enroll` makes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{path}: not readable TOML ({error})") from None


def _absolute(settings: AgentSettings, folder: Path) -> AgentSettings:
    """Take relative paths from the folder of agent.toml, wherever the service was started."""
    server, examples = settings.server, settings.examples
    return settings.model_copy(
        update={
            "state": folder / settings.state,
            "server": server.model_copy(
                update={"ca": folder / server.ca, "key": folder / server.key}
            ),
            "examples": examples.model_copy(
                update={"paths": tuple(folder / path for path in examples.paths)}
            ),
        }
    )


def _reason(error: ValidationError, path: Path, environment: Mapping[str, str]) -> str:
    """Say where the first wrong value stands: in the file, or in a variable over it."""
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    name = ENVIRONMENT + "__".join(keys[:2]).upper()
    variables = [v for v in environment if v == name or v.startswith(f"{name}__")]
    where = variables[0] if variables else f"{path}: {'.'.join(keys)}"
    got = "" if first["type"] == "missing" else f" (got {first['input']!r})"
    return f"{where}: {first['msg']}{got}"


def _put(values: dict[str, Any], keys: list[str], value: str, name: str) -> None:
    if len(keys) == 1:
        values[keys[0]] = value
    elif len(keys) == 2 and isinstance(values.setdefault(keys[0], {}), dict):
        values[keys[0]][keys[1]] = value
    else:
        raise SettingsError(f"{name}: expected {ENVIRONMENT}SECTION__KEY")


def initial_toml(address: str, channel: str, examples: ExampleSettings, *, train: bool) -> str:
    """Return the commented agent.toml that `enroll` writes."""
    paths = ", ".join(_toml(str(path)) for path in examples.paths)
    training, engine, poll = TrainSettings(), EngineSettings(), PollSettings()
    return f"""\
# Settings of this robot's agent. Unknown keys are refused at start; relative paths are taken from
# this file's folder. An environment variable overrides a key: {ENVIRONMENT}TRAINING__TRAINER=keras

state = "state"                # models and status; the agent writes nowhere else

[server]
address = {_toml(address)}
ca = "ca.crt"                  # the server's own authority, from the kit
key = "robot.key"              # this robot's private key: it never leaves this machine
channel = {_toml(channel)}

[examples]                     # labelled frames; they never leave this robot
paths = [{paths}]
topic = {_toml(examples.topic)}                     # camera topic; empty: the only one in the bag
label_topic = {_toml(examples.label_topic)}
tolerance_s = {examples.tolerance_s}              # between a label and its frame
held_out = {examples.held_out}                 # share kept for measuring, never trained on

[training]
enabled = {str(train).lower()}                 # false: only follow published models
trainer = "{training.trainer}"             # "keras" needs TensorFlow: pip install fleetlearn[keras]
threads = {training.threads}
idle_s = {training.idle_s}                 # the training process ends after so long without work

[engine]
precision = "{engine.precision}"             # or "int8"

[poll]
idle_s = {poll.idle_s}                   # ask the server for work and models so often
busy_s = {poll.busy_s}                   # while a run goes on
"""


def _toml(text: str) -> str:
    """Return a TOML string: JSON's, but for one character that TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
