"""What an operator may set of learning: how robots train, and what counts of their updates."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fleet_model.settings import Options, Section
from fleet_model.types import TrainConfig

_DEFAULT = TrainConfig()


def split_names(value: Any) -> Any:
    """Return the parts of a variable of the environment, with commas between; a list as it is."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]  # "": nobody is named


# A variable of the environment holds a list with commas between.
Names = Annotated[tuple[str, ...], BeforeValidator(split_names)]


class TrainingSettings(Section):
    """What every robot is asked to do in one round."""

    epochs: int = Field(
        default=_DEFAULT.epochs, ge=1, description="Passes over the robot's training examples."
    )
    batch_size: int = Field(default=_DEFAULT.batch_size, ge=1, description="Examples of one step.")
    learning_rate: float = Field(
        default=_DEFAULT.learning_rate, gt=0, description="Step size of the gradient descent."
    )
    momentum: float = Field(
        default=_DEFAULT.momentum,
        ge=0,
        lt=1,
        description="Share of the last step that is added to the next (heavy ball).",
    )
    adaptive: float = Field(
        default=_DEFAULT.adaptive,
        ge=0,
        lt=1,
        description="0.999: steps of Adam (arXiv:1412.6980), as encoders of texts need them; "
        "momentum is its other beta, and learning_rate about 0.0003. 0: heavy ball.",
    )
    proximal_mu: float = Field(
        default=_DEFAULT.proximal_mu,
        ge=0,
        description="FedProx (arXiv:1812.06127): above 0 keeps very different robots together.",
    )
    clip_norm: float = Field(
        default=_DEFAULT.clip_norm,
        ge=0,
        description="Gradients longer than this (L2) are scaled down; 0: never.",
    )
    logit_adjustment: float = Field(
        default=_DEFAULT.logit_adjustment,
        ge=0,
        description="1: a robot's model need not learn how often each class is seen there, so that "
        "robots that see different classes agree (arXiv:2007.07314). 0: off.",
    )


class StartSettings(Section):
    """What a new fleet's first run begins with."""

    closed_form: Literal["off", "ridge", "lda", "ncm"] = Field(
        default="off",
        description="The first round asks robots for sums of features and makes the head of them; "
        "gradient rounds go on from it: see docs/closed-form.md. It needs a frozen trunk.",
    )
    directions: int = Field(
        default=16,
        ge=0,
        le=64,
        description="Directions of the scatter that a robot sends, 2.6 kB each; 0: all of it, "
        "exactly, 6.6 MB.",
    )


class AggregationSettings(Section):
    """How the updates of a round become the next model."""

    rule: str = Field(
        default="fedavg",
        description='A name of docs/aggregation.md, or your own class as "module:Class".',
    )
    options: Options = Field(
        default={}, description='Options of the rule, e.g. {memory_mb = 32} of "median".'
    )
    personal: Names = Field(
        default=(),
        description="Trained tensors that stay on each robot, by name; * is any text. The rule "
        "sees the others. Robots need an agent that knows it.",
        examples=[("head/bias",)],
    )


class SiteSettings(Section):
    """A model for each site, where robots of different sites cannot agree on one."""

    enabled: bool = Field(
        default=False,
        description="Robots of each site train a model of their own; sites that learn alike are "
        "found in every round, and learn from each other.",
    )
    cluster_mixing: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="How far a site's model moves towards its cluster's in every round.",
    )
    global_mix: float = Field(
        default=0.2, ge=0, le=1, description="How far it then moves towards the whole fleet's."
    )
    choose: Literal["elbow", "silhouette"] = Field(
        default="elbow", description="What decides how many clusters there are."
    )
    on: str = Field(
        default="*",
        min_length=1,
        description='Tensors that sites are compared by, as a pattern, e.g. "head/*".',
    )
    num_clusters: int = Field(
        default=1,
        ge=1,
        le=5,
        description="So many clusters of robots inside a site at most, each with a model of its "
        "own; 1: none. Needs four robots of the site that answer in a round.",
    )


class PrivacySettings(Section):
    """Noise that hides what any one robot has taught; see docs/security.md."""

    mode: Literal["off", "central", "local"] = Field(
        default="off",
        description="central: the server clips each update and adds noise to their sum. local: "
        "each robot does so before it sends. Needs pip install 'fleetlearn[privacy]'.",
    )
    clip: float = Field(
        default=1.0, gt=0, description="Length (L2) of an update that counts; longer ones are cut."
    )
    noise_multiplier: float = Field(
        default=1.0, gt=0, description="Deviation of the noise, in units of `clip`."
    )
    delta: float = Field(
        default=1e-5,
        gt=0,
        lt=1,
        description="For which epsilon is told: well below 1 / number of robots.",
    )


class CheckSettings(Section):
    """What of an update counts, and what is refused: its robot is told of both."""

    max_examples_per_robot: int = Field(
        default=10_000, ge=1, description="More examples than this weigh no more; no refusal."
    )
    max_examples_ratio: float = Field(
        default=1.0,
        ge=0,
        description="Examples of a robot that count, in training and in the measures, against the "
        "median of the round; 0: as many as it claims.",
    )
    max_update_mb: float = Field(
        default=512.0, gt=0, description="Megabytes of an update's tensors."
    )
    max_norm_ratio: float = Field(
        default=10.0,
        ge=0,
        description="Length (L2) of an update that counts, against the median of recent ones; "
        "longer ones are cut to it, no refusal. 0: any length.",
    )
    max_norm_of_model: float = Field(
        default=1.0,
        ge=0,
        description="An update is never cut to less than this part of the length of the model, "
        "however short the others are: a robot with new labels sends long ones.",
    )
    suspend_after: int = Field(
        default=3, ge=0, description="So many refusals in a row suspend the robot; 0: never."
    )
