"""SCAFFOLD's control variates of robots that live in memory (fleet_model/protocol/control.py).

A robot keeps its own on disk: edge_agent/training/own_control.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from fleet_model.protocol.control import (
    CONTROL,
    FOLDED,
    TAGS,
    Control,
    after_training,
    correction,
    held,
    reply_groups,
)
from fleet_model.types import TrainConfig, Update, Weights

Axes = Callable[[Weights], Weights]


def _as_they_are(weights: Weights) -> Weights:
    return weights


class VirtualControls:
    """What each robot keeps from round to round."""

    def __init__(self, narrow: Axes = _as_they_are, wide: Axes = _as_they_are) -> None:
        """Keep nothing yet.

        Args:
            narrow: brings tensors into the few axes in which robots learn, to keep them there.
            wide: and back, to send them.
        """
        self._narrow, self._wide = narrow, wide
        self._own: dict[int, tuple[Control, ...]] = {}  # newest first
        self._made = 0

    def train(
        self,
        robot: int,
        groups: Mapping[str, Weights],
        config: TrainConfig,
        fit: Callable[[Weights | None], Update],
    ) -> Update:
        """Return a robot's reply.

        Args:
            robot: its number.
            groups: of the request.
            config: how it trains.
            fit: trains, with what is to be added to the gradient of each step.
        """
        own = held(self._own.get(robot, ()), groups[TAGS][FOLDED])
        towards = None if own is None else correction(own.tensors, self._narrow(groups[CONTROL]))
        update = fit(towards)
        self._made += 1
        tensors = after_training(towards, self._narrow(update.weights), config, update.num_steps)
        made = Control(self._made, tensors)
        self._own[robot] = (made,) if own is None else (made, own)
        told = reply_groups(own, made)
        return replace(update, groups={**told, CONTROL: self._wide(told[CONTROL])})

    def newest(self) -> list[Weights]:
        """Return the c_i of each robot after its last training."""
        return [own[0].tensors for own in self._own.values()]
