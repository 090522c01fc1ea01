"""What a coded update loses is sent with the next one: error feedback (Seide 2014, 1901.09847).

A robot adds what it owes to its update, sends that in the codec that the server asks for, and owes
the rest: `sent + rest = update + owed`. Whether it owes the rest, or still what it owed before, is
known only when the server has folded the update in: a reply may be lost or refused, its round may
fail. So both are kept in one file, written before the reply is sent, and the server is asked before
the next training which update of this robot has counted last.

Killed at any moment, the robot is asked again or not; asked again, it trains again from what it
owed before, and makes the same bytes.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from edge_agent.robot.kept_tensors import keep, read_kept
from fleet_model.adapters.spec import sent_back
from fleet_model.compression.codec import CODED, Codec, parse_codec
from fleet_model.compression.coding import decode, encode
from fleet_model.durable import telling_of_the_disk
from fleet_model.errors import CheckpointError, UpdateError
from fleet_model.types import FLOAT32, TRAIN, Update, Weights
from fleet_model.weights import add, difference, join_groups, l2_norm, split_groups

if TYPE_CHECKING:
    from fleet_model.protocol.wire import RobotRequest

FILE = "residual.safetensors"
UNSENT = "unsent_share"  # metric: length of what is owed after an update, against the update
_REST = "rest"  # the group of what is owed if the last update has counted
Counted: TypeAlias = tuple[str, int]  # run, version of the checkpoint that it became part of
log = logging.getLogger(__name__)


class Residual:
    """One robot's debt to the run that it takes part in."""

    def __init__(self, state: Path, counted: Callable[[], Counted]) -> None:
        """Read nothing yet.

        Args:
            state: the agent's folder.
            counted: asks the server which update of this robot was folded in last; is called only
                where the answer matters. Raises as HttpsStore.whoami.
        """
        self._file, self._counted = state / FILE, counted

    def before(self, request: "RobotRequest") -> Weights:
        """Return what this robot owes when it begins to train; none if it owes nothing.

        What it owes to another run or another model is dropped: those numbers mean nothing here.

        Raises:
            ConnectionFailed, RefusedError: the server does not say which update has counted.
            StorageError: the file cannot be removed.
        """
        if request.kind != TRAIN:
            return {}
        try:
            kept = read_kept(self._file)
            if kept is None:
                return {}
            about, tensors = kept
            owed, groups = split_groups(tensors, (_REST,))
            rest, sent_from = groups[_REST], int(about["version"])
            why = _strange(request, about["run"], about["trainer"], owed)
        except (CheckpointError, LookupError, ValueError):
            why = "its file is damaged"
        if why:
            log.warning("what earlier updates have left out is not sent any more: %s", why)
            self._forget()
            return {}
        run, version = self._counted()
        return rest if run == request.run and version > sent_from else owed

    def send(self, request: "RobotRequest", before: Weights, update: Update) -> Update:
        """Return the update as it travels, when what it leaves out is safe on disk.

        Args:
            request: what the update answers.
            before: of this request.
            update: as trained.

        Raises:
            StorageError: the disk does not take it.
        """
        codec = _asked(request)
        if request.kind != TRAIN or (str(codec) == FLOAT32 and not before):
            return update
        owed = before or {name: np.zeros_like(w) for name, w in update.weights.items()}
        with np.errstate(over="ignore"):
            whole = add(update.weights, owed)
        if not all(np.isfinite(tensor).all() for tensor in whole.values()):
            log.warning("what earlier updates have left out is too large, and not sent any more")
            owed = {name: np.zeros_like(w) for name, w in owed.items()}
            whole = update.weights
        coded = encode(whole, codec)
        rest = difference(whole, decode(coded, whole, codec))
        self._keep(request, owed, rest)
        share = l2_norm(rest) / (l2_norm(whole) or 1.0)
        metrics = {**update.metrics, UNSENT: share}
        if str(codec) == FLOAT32:
            return replace(update, weights=whole, metrics=metrics)
        return replace(update, weights={CODED: coded}, codec=str(codec), metrics=metrics)

    def _keep(self, request: "RobotRequest", owed: Weights, rest: Weights) -> None:
        about = {
            "run": request.run,
            "trainer": request.trainer,
            "version": str(request.checkpoint.version),
        }
        with telling_of_the_disk(f"{self._file}: cannot be written", "give the disk room"):
            keep(self._file, join_groups(owed, {_REST: rest}), about)

    def _forget(self) -> None:
        with telling_of_the_disk(f"{self._file}: cannot be removed", "remove it"):
            self._file.unlink()  # should a power cut bring it back, it is dropped again


def _asked(request: "RobotRequest") -> Codec:
    """Return the codec that the server asks for; one that is too new is answered in float32."""
    try:
        return parse_codec(request.reply_codec)
    except UpdateError as error:
        log.warning("%s: this agent answers in %s; update it", error, FLOAT32)
        return parse_codec(FLOAT32)


def _strange(request: "RobotRequest", run: str, trainer: str, owed: Weights) -> str:
    """Return why what is owed does not belong to what is asked; "" if it does."""
    if run != request.run:
        return f"they were of run {run}"
    kept = request.personal  # no update has these
    back = sent_back(request.checkpoint.weights)
    model = {name: w for name, w in back.items() if name not in kept}
    shapes = {name: tensor.shape for name, tensor in owed.items()}
    if trainer != request.trainer or shapes != {name: w.shape for name, w in model.items()}:
        return "the model is another one"
    return ""
