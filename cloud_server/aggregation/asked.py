"""What a rule wants to travel beside the weights: further tensors, both ways."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cloud_server.aggregation.aggregator import Aggregator
from fleet_model.types import Weights

if TYPE_CHECKING:  # loads Flower
    from fleet_model.protocol.wire import RobotRequest


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Asked:
    """What `asks(checkpoint)` of a rule returns."""

    groups: Mapping[str, Weights] = field(default_factory=dict)  # sent with the checkpoint
    # That each update must have: tensors of these names and shapes. A rule reads them by
    # Contributions.update(one).groups; those of an update that was cut are not cut.
    reply_groups: Mapping[str, Weights] = field(default_factory=dict)
    # Of TrainConfig: an agent that does not know one refuses the request, and says so.
    options: Mapping[str, int] = field(default_factory=dict)


def asking(request: "RobotRequest", rule: Aggregator) -> "RobotRequest":
    """Return a request to train with what the rule asks for; most rules ask for nothing."""
    asks = getattr(rule, "asks", None)
    if asks is None:
        return request
    asked: Asked = asks(request.checkpoint)
    return replace(
        request,
        groups={**request.groups, **asked.groups},
        reply_groups=asked.reply_groups,
        config=replace(request.config, **asked.options),
    )
