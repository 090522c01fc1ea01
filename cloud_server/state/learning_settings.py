"""What an operator may set of learning: how robots train, and what counts of their updates."""

from pydantic import Field

from fleet_model.settings import Options, Section
from fleet_model.types import TrainConfig

_DEFAULT = TrainConfig()


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


class AggregationSettings(Section):
    """How the updates of a round become the next model."""

    rule: str = Field(
        default="fedavg",
        description='A name of docs/aggregation.md, or your own class as "module:Class".',
    )
    options: Options = Field(
        default={}, description='Options of the rule, e.g. {memory_mb = 32} of "median".'
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
