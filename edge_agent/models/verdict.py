"""Decide whether a model that was tried on this robot may become or stay the active one.

Pure functions of numbers: docs/decisions/0022-models-on-trial.md has the reasons.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.robot.model_settings import InstallSettings
from fleet_model.measures import is_share, loss, noise

CHANCE = 0.01  # a robot refuses one of a hundred models that are no worse, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a trial has shown; what could not be found out is None or "".

    Without a running model to compare with there is no `before` and no `agreeing`.
    """

    failed: str = ""  # a key of fleet_model.protocol.trial.WHY: it could not be tried to the end
    running: int | None = None  # version of the running model
    measure: str = ""  # the workload's first; "" if no held-out example has a truth
    better: str = "higher"  # or "lower": which direction of the measure is
    before: float | None = None  # of the running model
    after: float | None = None  # of the new one
    confirmed: float | None = None  # of the running one, when it was confirmed here
    chance: float = 1.0  # how often chance alone makes the new one so much worse
    agreeing: int | None = None  # of `examples`, where no truth is known
    examples: int = 0
    # Where all examples are of one label: inputs that come with the workload and that the running
    # model gives another one, and how many of them the new model does not give that label.
    samples: int = 0
    kept: int = 0
    before_ms: float | None = None  # shortest time of an answer
    after_ms: float | None = None
    timed: int = 0  # pairs of answers to the same input
    longer: int = 0  # of them, in which the new one took longer
    # Of fleet_model.litert.runtime.Measured: CompiledModel beside the Interpreter, where asked for.
    compiled: Mapping[str, Any] | None = None
    # Of fleet_model.personal.choice.PersonalChoice: what of the robot's own was `after` with it.
    personal: Mapping[str, Any] | None = None


def judge(found: Findings, limits: InstallSettings, *, by_operator: bool = False) -> str:
    """Return why a model is refused, as a key of WHY; "" if it may be used.

    Args:
        found: what was found out.
        limits: of this robot.
        by_operator: a person has decided for this model: only that it runs is asked.
    """
    if found.failed or by_operator:
        return found.failed
    holds = {
        "worse": _is_worse(found, limits.worse_by),
        "fallen": _has_fallen(found, limits.max_fall),
        "disagrees": _disagrees(found, limits.agreement),
        "one_label": _knows_one_label(found, limits.agreement),
        "slower": _is_slower(found, limits.slower),
    }
    return next((why for why, is_so in holds.items() if is_so), "")


def _is_worse(found: Findings, worse_by: float) -> bool:
    if found.before is None or found.after is None:
        return False
    if not math.isfinite(found.after):
        return math.isfinite(found.before)
    loss = found.before - found.after if found.better == "higher" else found.after - found.before
    return loss > worse_by and found.chance <= CHANCE


def _has_fallen(found: Findings, max_fall: float) -> bool:
    """Return whether it is far below what the running model could do here.

    Labels that are wrong from one day on make the running model look bad, and a model that has
    learned from them look better.
    """
    if found.confirmed is None or found.after is None or not found.examples:
        return False
    share = is_share(found.measure)
    chance = noise(found.confirmed, found.after, found.examples) if share else 0.0
    fall = loss(found.better, found.confirmed, found.after, share=share)
    return fall > max(max_fall, chance)


def _disagrees(found: Findings, agreement: float) -> bool:
    """Return whether so few equal answers are no accident of the frames at hand."""
    if found.agreeing is None or found.running == 0:
        return False
    return at_most(found.agreeing, found.examples, agreement) <= CHANCE


def _knows_one_label(found: Findings, agreement: float) -> bool:
    """Return whether it gives the one label of the examples to what the running one does not."""
    return found.running != 0 and at_most(found.kept, found.samples, agreement) <= CHANCE


def _is_slower(found: Findings, slower: float) -> bool:
    if found.before_ms is None or found.after_ms is None:
        return False
    # On a busy robot the shortest of either may be luck: then half of the pairs say otherwise. Six
    # pairs or fewer cannot tell.
    can_tell = 0.5**found.timed <= CHANCE
    if can_tell and at_most(found.timed - found.longer, found.timed, 0.5) > CHANCE:
        return False
    return found.after_ms > slower * found.before_ms


def at_most(successes: int, trials: int, share: float) -> float:
    """Return the probability of so many successes or fewer: the binomial distribution."""
    return sum(
        math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(successes + 1)
    )
