"""Everything an operator may set on a robot: agent.toml, then EDGE_AGENT_* variables."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from edge_agent.data.frames.source import is_live
from edge_agent.robot.model_settings import EngineSettings, InstallSettings, PersonalSettings
from edge_agent.robot.serve_settings import ServeSettings
from edge_agent.robot.server_settings import OptionalPath, ServerLink
from edge_agent.robot.train_when import TrainWhen
from fleet_model.settings import (
    Options,
    Section,
    Words,
    initial_toml,
    override,
    read_toml,
    validate,
)

FRAMES, TEXTS = "frames", "texts"  # the sources of examples that are built in
ENVIRONMENT = "EDGE_AGENT_"  # EDGE_AGENT_TRAINING__TRAINER=keras overrides [training]


def _paths(value: Any) -> Any:
    return [path for path in value.split(os.pathsep) if path] if isinstance(value, str) else value


# An environment variable holds a list as PATH does: /bags/monday:/bags/tuesday
Paths = Annotated[tuple[Path, ...], BeforeValidator(_paths)]


class ExampleSettings(Section):
    """Where labelled frames or texts come from; they never leave this robot."""

    source: str = Field(
        default=FRAMES,
        description='"frames"; "texts" in tables; or a source of your own: the name of an '
        'installed one or "module:factory". Of this section it is given only `options`.',
    )
    options: Options = Field(
        default={},
        description='Options of your own source, e.g. {folder = "/data"}; of "texts", where '
        'columns are not found: {text = "body", label = "queue"}, and encoding.',
    )
    paths: Paths = Field(
        default=(),
        description="Bags and data sets (folders named by label, YOLO, COCO, TFDS), or tables of "
        "texts, read where they are; with no path and no spool this robot never trains.",
    )
    topic: str = Field(
        default="", description="Camera topic of bags; empty: the only one in the bag."
    )
    label_topic: str = Field(
        default="/camera/label",
        description="Topic of bags with the labels, or a CSV file or a data set that has them.",
    )
    aliases: Words = Field(
        default={},
        description='Other words for labels in these recordings, e.g. {Brick = "brick"}.',
    )
    tolerance_s: float = Field(
        default=0.1, gt=0, description="Between a label and its frame, at most."
    )
    held_out: float = Field(
        default=0.2, ge=0, le=0.5, description="Share kept for measuring, never trained on."
    )
    pseudo_labels: bool = Field(
        default=False,
        description="Frames without a label teach, too, where the model is surely right by this "
        "robot's held-out frames.",
    )
    pseudo_precision: float = Field(
        default=0.95,
        ge=0.5,
        le=1,
        description="Share of so sure answers that must be right on the held-out frames.",
    )
    pseudo_weight: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Of a pseudo-label or a teacher's label, beside 1 of a label.",
    )
    pseudo_most: int = Field(
        default=500, ge=1, description="Frames without a label that a round looks at."
    )
    spool: OptionalPath = Field(
        default=None,
        description="Folder: new bags in it are copied into the robot's store of examples.",
        examples=["spool"],
    )

    @property
    def wanted(self) -> bool:
        """Whether there is anything to learn from."""
        return bool(self.paths or self.spool) or self.source not in (FRAMES, TEXTS)


class StoreSettings(Section):
    """The robot's own store of examples, filled from the spool folder; it is in state/examples."""

    max_mb: float = Field(
        default=2000,
        gt=0,
        description="Of pictures; above it the oldest of the most common label are deleted.",
    )
    max_age_days: float = Field(
        default=90, gt=0, description="Older examples are deleted, counted from when they came."
    )
    rate_hz: float = Field(
        default=5, gt=0, description="At most so many frames of each second of a bag."
    )
    min_sharpness: float = Field(
        default=20,
        ge=0,
        description="Variance of the Laplacian; blurred frames are left out, 0 keeps them.",
    )
    settle_s: float = Field(
        default=5, gt=0, description="A bag is complete when it has not changed for so long."
    )


class TrainSettings(Section):
    """How this robot trains."""

    enabled: bool = Field(
        default=True, description="false: this robot only follows published models."
    )
    trainer: str = Field(
        default="litert",
        description='"keras" needs TensorFlow: pip install \'fleetlearn[keras]\'; "torch" needs '
        "PyTorch: 'fleetlearn[torch]'.",
    )
    threads: int = Field(default=2, ge=1, description="Processor threads of a training.")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$",
        description='Of trainer "torch": "auto" takes a GPU where there is one; "cpu", "cuda", '
        '"cuda:1".',
    )
    rows_at_once: int = Field(
        default=0,
        ge=0,
        description='Of trainer "torch": a batch is computed in parts of so many rows, for less '
        "memory; the step is that of the whole batch. 0: all at once.",
    )
    idle_s: float = Field(
        default=120.0,
        gt=0,
        description="The training process ends after so long without work.",
    )
    cache_mb: float = Field(
        default=512.0,
        ge=0,
        description="Features of frames that are kept, in memory and on disk; those that do not "
        "fit are computed in every round.",
    )
    profile: bool = Field(
        default=False,
        description="Whether this machine answers requests for a profile of its records: see "
        "docs/profiles.md.",
    )


class ReportSettings(Section):
    """What the robot reports about itself beside battery, disk and model."""

    facts: Path = Field(
        default=Path("facts.json"),
        description='Your own facts, which rounds.query may ask for: {"docked": true, "floor": 2}. '
        "Read at each poll; without a file there are none.",
    )


class PollSettings(Section):
    """How often the server is asked; an idle robot costs about 1 kB each time."""

    idle_s: float = Field(
        default=2.0,
        gt=0,
        description="Between polls for work and models, where the server holds no requests.",
    )
    busy_s: float = Field(
        default=0.1, gt=0, description="After a message; then longer and longer, up to idle_s."
    )


class AgentSettings(Section):
    """One robot's agent.toml."""

    server: ServerLink
    state: Path = Field(
        default=Path("state"),
        description="Folder for models, examples and status; the agent writes nowhere else.",
    )
    examples: ExampleSettings = ExampleSettings()
    store: StoreSettings = StoreSettings()
    training: TrainSettings = TrainSettings()
    train_when: TrainWhen = TrainWhen()
    engine: EngineSettings = EngineSettings()
    personal: PersonalSettings = PersonalSettings()
    install: InstallSettings = InstallSettings()
    serve: ServeSettings = ServeSettings()
    report: ReportSettings = ReportSettings()
    poll: PollSettings = PollSettings()


def settings_file(path: Path) -> Path:
    """Return agent.toml where a robot's folder is given."""
    return path / "agent.toml" if path.is_dir() else path


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> AgentSettings:
    """Read agent.toml and the environment over it; relative paths become absolute.

    Raises:
        SettingsError: missing file, wrong TOML, unknown or wrong key, named in full.
    """
    path = settings_file(path)
    values = read_toml(path, hint="; `edge-agent enroll` makes one")
    override(values, AgentSettings, environment, ENVIRONMENT)
    settings = validate(values, AgentSettings, path, environment, ENVIRONMENT)
    return _absolute(settings, path.absolute().parent)


def _absolute(settings: AgentSettings, folder: Path) -> AgentSettings:
    """Take relative paths from the folder of agent.toml, wherever the service was started."""
    server, examples, gate = settings.server, settings.examples, settings.train_when.file
    return settings.model_copy(
        update={
            "state": folder / settings.state,
            "train_when": settings.train_when.model_copy(update={"file": gate and folder / gate}),
            "report": settings.report.model_copy(update={"facts": folder / settings.report.facts}),
            "server": server.model_copy(
                update={
                    "ca": folder / server.ca,
                    "root": folder / server.root,
                    "key": folder / server.key,
                    "models_ca": server.models_ca and folder / server.models_ca,
                }
            ),
            "examples": examples.model_copy(
                update={
                    "paths": tuple(
                        path if is_live(path) else folder / path for path in examples.paths
                    ),
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


def agent_toml(
    address: str,
    channel: str,
    examples: ExampleSettings,
    *,
    train: bool,
    models: str = "",
    trainer: str = "",
) -> str:
    """Return the commented agent.toml that `enroll` writes; without a trainer it has the usual."""
    training = TrainSettings(enabled=train)
    settings = AgentSettings(
        server=ServerLink(address=address, channel=channel, models=models),
        examples=examples,
        training=training.model_copy(update={"trainer": trainer}) if trainer else training,
    )
    return initial_toml(
        settings,
        "Settings of this robot's agent. Unknown keys are refused at start. Relative paths are "
        "taken from this file's folder.\n"
        f"A variable of the environment overrides a key, e.g. {ENVIRONMENT}TRAINING__TRAINER=keras",
    )
