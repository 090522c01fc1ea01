"""This robot's control variate c_i of SCAFFOLD, and what becomes of it in a round.

The file keeps two: the one that the last reply was made from, and the one that it led to. Which of
them counts is for the next request to say, by its tags (fleet_model/protocol/control.py). So it may
be written before the reply is sent: a reply that is lost, late or refused leads nowhere. A robot
that was away, or was killed, goes on from the one that the server still has.
"""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_agent.robot.kept_tensors import keep, read_kept
from fleet_model.adapters.spec import sent_back
from fleet_model.errors import CheckpointError, TrainingError
from fleet_model.protocol.control import (
    BEGAN,
    CONTROL,
    DIGITS,
    FOLDED,
    MADE,
    TAGS,
    Control,
    after_training,
    correction,
    held,
    reply_groups,
)
from fleet_model.types import TRAIN, Tensor, Update, Weights
from fleet_model.weights import join_groups, require_same_tensors, split_groups

if TYPE_CHECKING:
    from fleet_model.protocol.wire import RobotRequest

FILE = "control.safetensors"  # in the state directory
BEFORE, AFTER = "before", "after"  # of the last reply
CORRECTED = "control_corrected"  # metric: 1 where the gradients were corrected
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ControlRound:
    """One training under SCAFFOLD."""

    file: Path
    request: "RobotRequest"
    own: Control | None  # c_i; None: this robot has none that the server has
    correction: Weights | None  # c - c_i; None: nothing is corrected

    def finish(self, update: Update) -> Update:
        """Return the reply with what the server needs; c_i after this training is on disk.

        Raises:
            TrainingError: c_i is not finite.
        """
        config = self.request.config
        with np.errstate(over="ignore", invalid="ignore"):  # not finite is an error of its own
            tensors = after_training(self.correction, update.weights, config, update.num_steps)
        sender = "the control variate of this robot after training"
        require_same_tensors(update.weights, tensors, sender=sender, error=TrainingError)
        made = Control(secrets.randbelow(2 ** (2 * DIGITS) - 1) + 1, tensors)
        told = reply_groups(self.own, made)
        try:
            _write(self.file, self.request.trainer, self.own, made)
        except OSError as error:
            log.warning(
                "%s cannot be written (%s): this robot keeps the control variate that it had",
                self.file, error.strerror,
            )  # fmt: skip
            none = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
            told = {CONTROL: none, TAGS: {**told[TAGS], MADE: told[TAGS][BEGAN]}}
        metrics = {**update.metrics, CORRECTED: float(self.correction is not None)}
        return replace(update, metrics=metrics, groups={**update.groups, **told})


def begin_control(state: Path, request: "RobotRequest") -> ControlRound | None:
    """Return this robot's part in a round of SCAFFOLD; None if the request is of no such round.

    Args:
        state: the state directory.
        request: of the server.

    Raises:
        TrainingError: the request lacks what such a round needs, or it is of other tensors.
    """
    if request.kind != TRAIN or not request.config.control_variates:
        return None
    mean, tags = request.groups.get(CONTROL), request.groups.get(TAGS, {}).get(FOLDED)
    if mean is None or tags is None or tags.ndim != 2 or tags.shape[1] != 2:
        raise TrainingError("the server asks for control variates, and sends none")
    weights, sender = sent_back(request.checkpoint.weights), "the server's control variate"
    require_same_tensors(weights, mean, sender=sender, error=TrainingError)
    file = state / FILE
    own = _chosen(_read(file, request.trainer, weights), tags)
    return ControlRound(
        file=file,
        request=request,
        own=own,
        # The first training of a robot is not corrected: c alone would be a second gradient.
        correction=None if own is None else correction(own.tensors, mean),
    )


def _chosen(known: Mapping[str, Control], tags: Tensor) -> Control | None:
    own = held((known[name] for name in (AFTER, BEFORE) if name in known), tags)
    if own is None and known:
        log.warning("the server goes on from no control variate of this robot: it begins anew")
    elif own is not None and own is known.get(BEFORE):
        log.info("the server did not count what this robot trained last")
    return own


def _read(file: Path, trainer: str, like: Weights) -> Mapping[str, Control]:
    """Return what is kept, by BEFORE and AFTER; what does not fit is left out with a word."""
    known: dict[str, Control] = {}
    try:
        if (kept := read_kept(file)) is None:
            return {}
        texts, tensors = kept
        if texts.get("trainer") != trainer:
            raise CheckpointError("they are of another model")
        for name, own in split_groups(tensors, (BEFORE, AFTER))[1].items():
            if (number := texts.get(name, "")).isdecimal():
                require_same_tensors(like, own, sender=name, error=CheckpointError)
                known[name] = Control(int(number), own)
    except KeyError:
        log.warning("the control variates of this robot are dropped: their file is damaged")
        return {}
    except CheckpointError as error:
        log.warning("the control variates of this robot are dropped: %s", error)
        return {}
    return known


def _write(file: Path, trainer: str, before: Control | None, after: Control) -> None:
    """Keep both in one step; raises OSError."""
    both = {AFTER: after} if before is None else {BEFORE: before, AFTER: after}
    tensors = join_groups({}, {name: own.tensors for name, own in both.items()})
    keep(file, tensors, {"trainer": trainer, **{name: str(o.number) for name, o in both.items()}})
