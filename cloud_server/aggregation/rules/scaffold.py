"""Averaging without client drift (SCAFFOLD, Karimireddy et al. 2020, arXiv:1910.06378)."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.asked import Asked
from cloud_server.aggregation.contributions import Contribution, Contributions
from cloud_server.aggregation.mean import average
from cloud_server.aggregation.options import require_between
from cloud_server.state.words import names
from fleet_model.adapters.spec import sent_back
from fleet_model.protocol.control import (
    BEGAN,
    CONTROL,
    FOLDED,
    MADE,
    TAGS,
    group_shapes,
    no_tag,
)
from fleet_model.types import Checkpoint, Tensor, Weights
from fleet_model.weights import l2_norm

_MEAN, _TAGS, _ROBOTS, _LENGTH = (
    "scaffold/c/",
    "scaffold/tags",
    "scaffold/robots",
    "scaffold/length",
)
Tag = tuple[float, ...]
_NONE: Tag = tuple(no_tag().tolist())
log = logging.getLogger(__name__)


class Scaffold:
    """w <- w + learning_rate * mean_k s_k * d_k,  c <- mean of the c_k: Algorithm 1, option II.

    d_k is the update of robot k and s_k the discount for its age. c_k is the mean gradient of its
    last training; it corrects each of its next gradients by c - c_k, so that robots with different
    examples do not drift apart while they train. Every robot counts the same, as in the paper:
    c has no examples to weigh by.

    c is the mean over robots that have a c_k, N of them: c <- c + sum_k (c_k - c_k before) / N.
    That is the paper where all take part. A robot's first training is not corrected, and N does not
    count it before; in the paper its c_k is 0 then, so c would be a second gradient to it.
    """

    gradient_steps = True

    def __init__(self, learning_rate: float = 1.0, max_control_ratio: float = 10.0) -> None:
        """Choose the step.

        Args:
            learning_rate: of the server, above 0.
            max_control_ratio: a change of c_k is left out if it is so many times longer than the
                lower median of the round, and than that of any round before; at least 1.

        Raises:
            SettingsError: one of them is out of range.
        """
        self._rate = np.float32(require_between("learning_rate", learning_rate, 0, above=True))
        self._ratio = require_between("max_control_ratio", max_control_ratio, 1)

    def asks(self, checkpoint: Checkpoint) -> Asked:
        """Return c and the tags of what it holds; each reply has the change of its c_k."""
        held = _Held.of(checkpoint)
        tags = np.array(list(held.tags.values()), np.float32).reshape(-1, 2)
        mean = {name: c.astype(np.float32) for name, c in held.mean.items()}
        return Asked(
            groups={CONTROL: mean, TAGS: {FOLDED: tags}},
            reply_groups=group_shapes(sent_back(checkpoint.weights)),
            options={"control_variates": 1},
        )

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update and two float64 copies of the weights.

        Raises:
            RoundError: there is nothing to average.
        """
        mean = average(contributions, checkpoint.weights, lambda _: 1.0)
        change = {name: self._rate * d for name, d in mean.items()}
        del mean
        held = _Held.of(checkpoint)
        told = [one for one in (_told(contributions, who) for who in contributions) if one]
        usual = max(held.length, median_low([one.length for one in told]) if told else 0.0)
        told = _short_enough(told, self._ratio * usual)
        fit, tags, lost = _sorted_out(told, held)
        before = {name: c * len(held.tags) for name, c in held.mean.items()}
        if len(lost) > len(fit):
            log.warning(
                "most robots have lost their control variates (%s): c begins anew",
                names(sorted({one.who.robot for one in lost})),
            )
            before = {name: np.zeros(c.shape) for name, c in held.mean.items()}
            fit, tags = lost, {one.who.robot: one.made for one in lost}
        for one in fit:
            for name, tensor in contributions.update(one.who).groups[CONTROL].items():
                before[name] += tensor
        now = {name: total / max(1, len(tags)) for name, total in before.items()}
        return next_checkpoint(checkpoint, change, _Held(now, tags, usual).as_state())


@dataclass(frozen=True, eq=False, slots=True)
class _Held:
    """What c is made of."""

    mean: Weights  # c, float64: many small changes are added to it
    tags: dict[str, Tag]  # robot -> of its c_k
    length: float  # the largest lower median, of all rounds, of the lengths of changes

    @staticmethod
    def of(checkpoint: Checkpoint) -> "_Held":
        """Read it; nothing if there is none, or if it is of another model."""
        state, weights = checkpoint.server_state, sent_back(checkpoint.weights)
        mean = {name: state.get(_MEAN + name) for name in weights}
        if any(c is None or c.shape != weights[n].shape for n, c in mean.items()):
            return _Held({name: np.zeros(w.shape) for name, w in weights.items()}, {}, 0.0)
        robots = json.loads(bytes(state[_ROBOTS]))
        tags = dict(zip(robots, map(tuple, state[_TAGS].tolist()), strict=True))
        return _Held({n: c for n, c in mean.items() if c is not None}, tags, float(state[_LENGTH]))

    def as_state(self) -> Weights:
        """Return it as tensors of Checkpoint.server_state."""
        robots = json.dumps(list(self.tags)).encode()
        return {
            **{_MEAN + name: c for name, c in self.mean.items()},
            _TAGS: np.array(list(self.tags.values()), np.float32).reshape(-1, 2),
            _ROBOTS: np.frombuffer(robots, np.uint8),
            _LENGTH: np.array(self.length),
        }


@dataclass(frozen=True, eq=False, slots=True)
class _Told:
    """What a robot says of its control variate, without its tensors."""

    who: Contribution
    began: Tag
    made: Tag
    length: float  # of the change


def _told(contributions: Contributions, who: Contribution) -> _Told | None:
    groups = contributions.update(who).groups
    if not {CONTROL, TAGS} <= groups.keys():  # asked under another rule
        return None
    began, made = (_tag(groups[TAGS][name]) for name in (BEGAN, MADE))
    length = l2_norm(groups[CONTROL])
    return None if made == _NONE else _Told(who, began, made, length)  # it could not keep it


def _short_enough(told: Sequence[_Told], longest: float) -> list[_Told]:
    for one in told:
        if one.length > longest:
            log.warning(
                "%s: its control variate changes by %.4g (L2), at most %.4g counts "
                "(max_control_ratio): it is left out of c",
                one.who.robot, one.length, longest,
            )  # fmt: skip
    return [one for one in told if one.length <= longest]


def _sorted_out(
    told: Sequence[_Told], held: _Held
) -> tuple[list[_Told], dict[str, Tag], list[_Told]]:
    """Return those that go on from what c holds of them, the tags after them, and those that lost.

    A robot that has lost its c_k starts at nothing, while c still holds it: what it sends now would
    come to what is there already. So that stays, as for a robot that is away.
    """
    tags, fit, lost = dict(held.tags), [], []
    for one in told:
        known = tags.get(one.who.robot, _NONE)
        if one.began == known:
            tags[one.who.robot] = one.made
            fit.append(one)
        elif one.began == _NONE:
            lost.append(one)
            log.info("%s has lost its control variate: c keeps its last one", one.who.robot)
    return fit, tags, lost


def _tag(tensor: Tensor) -> Tag:
    return tuple(tensor.tolist())
