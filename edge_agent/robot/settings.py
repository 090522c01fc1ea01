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


def _no_path(value: Any) -> Any:
    return None if value == "" else value


Address = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    AfterValidator(_address),
]
# An environment variable holds a list as PATH does: /bags/monday:/bags/tuesday
Paths = Annotated[tuple[Path, ...], BeforeValidator(_paths)]
OptionalPath = Annotated[Path | None, BeforeValidator(_no_path)]  # "" is none: TOML has no null


class ServerLink(Section):
    """Where the server is and how it is trusted."""

    address: Address  # host:port
    ca: Path = Path("ca.crt")  # relative paths are taken from agent.toml's folder
    key: Path = Path("robot.key")
    channel: str = Field(default="stable", pattern=r"^[a-z][a-z0-9-]{0,30}$")
    superlink: Address | None = None  # where rounds are asked for, if the server has one apart


class ExampleSettings(Section):
    """Where labelled examples come from."""

    # Bags and data sets (folders by label, YOLO, COCO, TFDS), read where they lie; with no path and
    # no spool, this robot never trains.
    paths: Paths = ()
    topic: str = ""  # camera topic of bags; empty: the only one there is
    label_topic: str = "/camera/label"  # of bags; or a CSV file or data set that has the labels
    tolerance_s: float = Field(default=0.1, gt=0)  # between a label and its frame
    held_out: float = Field(default=0.2, ge=0, le=0.5)  # share kept for measuring
    spool: OptionalPath = None  # new bags in here are taken into the store, and left as they are

    @property
    def wanted(self) -> bool:
        """Whether there is anything to learn from."""
        return bool(self.paths or self.spool)


class StoreSettings(Section):
    """The robot's own store of examples, filled from the spool folder; its place is the state."""

    max_mb: float = Field(default=2000, gt=0)  # of pictures; the commonest label's oldest go first
    max_age_days: float = Field(default=90, gt=0)  # since they came into the store
    rate_hz: float = Field(default=5, gt=0)  # of a bag's frames, at most so many a second
    min_sharpness: float = Field(
        default=20, ge=0
    )  # variance of the Laplacian; 0 keeps blurred ones
    settle_s: float = Field(
        default=5, gt=0
    )  # a bag is complete when it has not changed for so long


class TrainSettings(Section):
    """How this robot trains."""

    enabled: bool = True  # false: it only follows published models
    trainer: str = "litert"  # "keras" needs `pip install fleetlearn[keras]`
    threads: int = Field(default=2, ge=1)
    idle_s: float = Field(default=120.0, gt=0)  # the training process ends after so long


class EngineSettings(Section):
    """What runs the published model."""

    precision: Literal["fp32", "int8"] = "fp32"


class ReportSettings(Section):
    """What the robot tells about itself beside battery, disk and model."""

    # The operator's own facts, which `rounds.query` may ask for: {"docked": true, "floor": 2}.
    # Read at each look at the server; no file is no facts.
    facts: Path = Path("facts.json")


class PollSettings(Section):
    """How often the server is asked; an idle robot costs about 1 kB a poll."""

    idle_s: float = Field(default=2.0, gt=0)  # for work and for new models
    busy_s: float = Field(default=0.1, gt=0)  # after a message; then longer and longer, to idle_s


class AgentSettings(Section):
    """One robot's agent.toml."""

    server: ServerLink
    state: Path = Path("state")  # models, status; the agent writes nowhere else
    examples: ExampleSettings = ExampleSettings()
    store: StoreSettings = StoreSettings()
    training: TrainSettings = TrainSettings()
    engine: EngineSettings = EngineSettings()
    report: ReportSettings = ReportSettings()
    poll: PollSettings = PollSettings()


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> AgentSettings:
    """Read agent.toml and the environment over it; relative paths become absolute.

    Raises:
        SettingsError: missing file, wrong TOML, unknown or wrong key, named in full.
    """
    values = read_toml(path, hint="; `edge-agent enroll` makes one")
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT):
            _put(values, name.removeprefix(ENVIRONMENT).lower().split("__"), value, name)
    try:
        settings = AgentSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_reason(error, path, environment)) from None
    return _absolute(settings, path.absolute().parent)


def read_toml(path: Path, *, hint: str = "") -> dict[str, Any]:
    """Read a TOML file; raises SettingsError, with the hint if there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file{hint}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{path}: not readable TOML ({error})") from None


def _absolute(settings: AgentSettings, folder: Path) -> AgentSettings:
    """Take relative paths from the folder of agent.toml, wherever the service was started."""
    server, examples = settings.server, settings.examples
    return settings.model_copy(
        update={
            "state": folder / settings.state,
            "report": settings.report.model_copy(update={"facts": folder / settings.report.facts}),
            "server": server.model_copy(
                update={"ca": folder / server.ca, "key": folder / server.key}
            ),
            "examples": examples.model_copy(
                update={
                    "paths": tuple(folder / path for path in examples.paths),
                    "spool": examples.spool and folder / examples.spool,
                    "label_topic": _topic_or_path(examples.label_topic, folder),
                }
            ),
        }
    )


def _topic_or_path(label_topic: str, folder: Path) -> str:
    """Return a file of labels as an absolute path; whatever is no file is a topic."""
    named = bool(label_topic.strip("./")) and (folder / label_topic).exists()
    return str(folder / label_topic) if named else label_topic


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
    store, training, poll = StoreSettings(), TrainSettings(), PollSettings()
    engine, report = EngineSettings(), ReportSettings()
    spool = "" if examples.spool is None else str(examples.spool)
    return f"""\
# Settings of this robot's agent. Unknown keys are refused at start; relative paths are taken from
# this file's folder. An environment variable overrides a key: {ENVIRONMENT}TRAINING__TRAINER=keras

state = "state"                # models, store, status; the agent writes nowhere else

[server]
address = {_toml(address)}
ca = "ca.crt"                  # the server's own authority, from the kit
key = "robot.key"              # this robot's private key: it never leaves this machine
channel = {_toml(channel)}

[examples]                     # labelled frames; they never leave this robot
# Bags and data sets (folders named by label, YOLO, COCO, TFDS): they are read where they lie.
paths = [{paths}]
topic = {_toml(examples.topic)}                     # camera topic; empty: the only one in the bag
label_topic = {_toml(examples.label_topic)}  # or a CSV file or data set with the labels
tolerance_s = {examples.tolerance_s}              # between a label and its frame
held_out = {examples.held_out}                 # share kept for measuring, never trained on
spool = {_toml(spool)}                     # folder: new bags in it are taken into the store

[store]                        # examples from the spool, in state/examples
max_mb = {store.max_mb}                  # beyond it the oldest of the commonest label go
max_age_days = {store.max_age_days}              # in the store
rate_hz = {store.rate_hz}                    # at most so many frames of a second of a bag
min_sharpness = {store.min_sharpness}             # blurred frames are left out; 0 takes all
settle_s = {store.settle_s}                   # a bag is complete when it is unchanged for so long

[training]
enabled = {str(train).lower()}                 # false: only follow published models
trainer = "{training.trainer}"             # "keras" needs TensorFlow: pip install fleetlearn[keras]
threads = {training.threads}
idle_s = {training.idle_s}                 # the training process ends after so long without work

[engine]
precision = "{engine.precision}"             # or "int8"

[report]
facts = {_toml(str(report.facts))}           # your own facts for the server: {{"docked": true}}

[poll]
idle_s = {poll.idle_s}                   # ask the server for work and models so often
busy_s = {poll.busy_s}                   # after a message; then longer and longer, up to idle_s
"""


def _toml(text: str) -> str:
    """Return a TOML string: JSON's, but for one character that TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
