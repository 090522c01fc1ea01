"""The custom resource RobotModel: which channel the agent of a robot follows, and what came of it.

deploy/kubernetes/robot-model/crd.yaml says the same to a cluster; a test holds both together.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from fleet_model.settings import Expected

GROUP, VERSION, KIND, PLURAL = "robots.fleetlearn", "v1alpha1", "RobotModel", "robotmodels"
API_VERSION = f"{GROUP}/{VERSION}"
NAMESPACE = "fleetlearn-robots"  # of deploy/kubernetes/robot
AGENT = "edge-agent"  # its DaemonSet, and the container in it
CONDITIONS = ("Applied", "Ready")

Channel = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9-]{0,30}$"),
    Expected("lower-case letters, digits and -, at most 31, a letter first"),
]
ObjectName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"),
    Expected("lower-case letters, digits and -, at most 63, a letter or digit at both ends"),
]


class _Strict(BaseModel):
    """What a person has written: unknown keys are typing errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True
    )


class Engine(_Strict):
    """What runs the model; without a value as in agent.toml ([engine])."""

    precision: Literal["fp32", "int8"] | None = None
    runtime: Literal["auto", "interpreter", "compiled"] | None = None
    accelerator: Literal["cpu", "gpu"] | None = None

    @model_validator(mode="after")
    def _require_one_that_has_it(self) -> "Engine":
        if self.runtime == "interpreter" and self.accelerator == "gpu":
            raise ValueError("spec.engine: the Interpreter runs on no GPU: leave runtime out")
        return self


class RobotModelSpec(_Strict):
    """What the operator wants."""

    channel: Channel = Field(description="Whose models the agent runs.")
    agent: ObjectName = Field(
        default=AGENT, description="DaemonSet of the agent, in the same namespace."
    )
    engine: Engine = Field(default=Engine(), description="What runs the model.")


class _Lenient(BaseModel):
    """What a controller of another version has written."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )


_Text = Annotated[str, StringConstraints(max_length=1000)]


class Condition(_Lenient):
    """As Kubernetes has it everywhere."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: _Text = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class TriedVersion(_Lenient):
    """The version that the robot tried last."""

    version: int
    state: _Text  # confirmed, probation, refused, back
    reason: _Text = ""


class VerifiedBy(_Lenient):
    """Whose signature counts for the channel, by what the robot has verified itself."""

    role: _Text  # "online" is the server's own key
    keys: list[_Text] = []
    root_version: int | None = None
    expires: _Text = ""  # of the signature over the channel


class RobotModelStatus(_Lenient):
    """What the controller has seen; without a value: not known."""

    observed_generation: int = 0
    reported_at: str = ""  # UTC; at least every few minutes while the controller lives
    robot: _Text = ""
    site: _Text = ""
    agent_state: _Text = ""
    channel: _Text = ""  # that the agent follows now
    active_version: int | None = None
    engine: _Text = ""  # what runs it, and why
    tried: TriedVersion | None = None
    not_installed: _Text = ""  # why the newest model is not the active one
    verified_by: VerifiedBy | None = None
    conditions: list[Condition] = []

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of a type; None if the controller has not said it yet."""
        return next((one for one in self.conditions if one.type == kind), None)
