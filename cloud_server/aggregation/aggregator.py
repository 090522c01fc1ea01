"""The one interface every aggregation rule has."""

from typing import Protocol

from fleet_model.types import Checkpoint, Update

AGGREGATORS = {
    "fedavg": "cloud_server.aggregation.fedavg:FedAvg",
}


class Aggregator(Protocol):
    """Turn a checkpoint and the updates of one round into the next checkpoint.

    Called `begin`, `add` once per update in an order that does not depend on arrival, `finish`.
    """

    def begin(self, checkpoint: Checkpoint) -> None:
        """Start a round from `checkpoint`, which is never changed."""
        ...

    def add(self, update: Update) -> None:
        """Take one checked update."""
        ...

    def finish(self) -> Checkpoint:
        """Return the next checkpoint: version + 1."""
        ...
