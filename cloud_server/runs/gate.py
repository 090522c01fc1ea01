"""Whether robots get what a run has made: a decision by numbers alone, from values to values.

A run's rounds tell how well each robot's own weights do. What is published is the mean of them,
which nobody runs before: so robots measure it once more, each on its held-out examples, and each
measure is compared with the same robot's measure of what it runs now.

What robots say of themselves is bounded: a robot counts with its share of the examples, and what it
gains or loses is at most 1. So one robot can hold a model back, which is told with its name, but
cannot push one through that the others lose by.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cloud_server.state.settings import GateSettings
from cloud_server.state.words import names
from fleet_model.measures import is_share, loss, noise
from fleet_model.protocol.example_counts import LEAST_HELD_OUT
from fleet_model.types import Metrics

Direction = Literal["higher", "lower"]
ReasonKind = Literal[
    "unmeasured",  # nobody has measured it
    "few_examples",  # it was measured with too few
    "one_label",  # no robot has examples of two labels, so nothing shows that it tells them apart
    "fall",  # it is worse than what robots run
    "below_release",  # it is worse than what robots run was, when that was published
    "site_loses",  # it is much worse on one site, whatever others gain
    "robots_lose",  # it is much worse on several robots, whatever others gain
    "no_gain",  # it is no better than the untrained model
    "contradiction",  # robots learn by themselves what the model of all has lost
]
MAX_LOSING = 0.1  # share of the robots; by chance 1 of 250 loses as much, see `_noise`
MIN_GAIN = 0.02  # over the untrained model, by any measure
# What robots gain by themselves, at least MIN_ALONE, is lost in the model of all if it keeps less
# than MIN_KEPT of the gain, or, of a share, less than MIN_OF_SHARE of the share: that some labels
# never occur is a gain, too, and is learned whatever the others are.
MIN_ALONE, MIN_KEPT, MIN_OF_SHARE = 0.1, 0.25, 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One robot's measures on its held-out examples."""

    robot: str
    site: str
    examples: int  # that count, at least 1
    before: Metrics  # of what robots run
    after: Metrics  # of what is to be published
    alone: Metrics  # of the weights that it trained itself in the last round; may be empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that there is to judge by."""

    robots: Sequence[Measured] = ()
    measures: Mapping[str, Direction]  # of the workload: which way is better; the first one decides
    labels: Sequence[int | None] = ()  # different ones of each robot that trained; None: not told
    untrained: bool = False  # robots run a model that no round has made
    at_release: Metrics  # means of what robots run, when it was published; empty: not known
    why_unmeasured: str = ""  # in words, where `robots` is empty


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a model is held back, or what makes it doubtful."""

    kind: ReasonKind
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate says; robots get the model if no reason holds it back."""

    reasons: Sequence[Reason] = ()
    warnings: Sequence[Reason] = ()
    examples: int = 0
    before: Metrics
    after: Metrics

    @property
    def passed(self) -> bool:
        """Return whether nothing holds it back."""
        return not self.reasons

    @property
    def words(self) -> str:
        """Return the reasons as one sentence, "" if it passed."""
        return "; ".join(reason.words for reason in self.reasons)


def judge(evidence: Evidence, rules: GateSettings) -> Verdict:
    """Decide; the order of robots does not matter, and a robot that does better never harms."""
    name = next((n for n in evidence.measures if _with(n, evidence.robots)), None)
    if name is None:
        why = evidence.why_unmeasured or "no robot has measured it on held-out examples"
        return Verdict(reasons=[Reason("unmeasured", why)], before={}, after={})
    robots = _with(name, evidence.robots)
    examples = sum(robot.examples for robot in robots)
    found = [*_one_label(evidence.labels), *_worse(name, robots, evidence, rules)]
    few, warnings = _few(examples, len(robots), rules), []
    if evidence.untrained:
        found += _contradiction(evidence)
        # Few examples say little against a first model, too.
        warnings = [*few, *(_no_gain(evidence) if few else [])]
        few = [] if few else _no_gain(evidence)
    return Verdict(
        reasons=[*found, *few],
        warnings=warnings,
        examples=examples,
        before=_means(evidence.measures, robots, lambda robot: robot.before),
        after=_means(evidence.measures, robots, lambda robot: robot.after),
    )


def _few(examples: int, robots: int, rules: GateSettings) -> list[Reason]:
    if examples >= rules.min_held_out:
        return []
    words = (
        f"it was measured with {examples} held-out examples that count, of {robots} "
        f"{'robot' if robots == 1 else 'robots'}; expected at least {rules.min_held_out} "
        "(gate.min_held_out)"
    )
    return [Reason("few_examples", words)]


def _one_label(labels: Sequence[int | None]) -> list[Reason]:
    told = [number for number in labels if number is not None]
    if not told or max(told) > 1:
        return []
    words = "no robot has examples of two labels, so nothing shows that it tells them apart"
    return [Reason("one_label", words)]


def _worse(
    name: str, robots: Sequence[Measured], evidence: Evidence, rules: GateSettings
) -> list[Reason]:
    direction, share = evidence.measures[name], is_share(name)

    def lost(robot: Measured) -> float:
        return loss(direction, robot.before[name], robot.after[name], share=share)

    def change(some: Sequence[Measured]) -> str:
        return _change(name, some)

    found = []
    # What a first model loses by chance is no loss; a later one is not judged by so few examples.
    chance = _noise(name, robots) if evidence.untrained else 0.0
    if _mean(robots, lost) > max(rules.max_fall, chance):
        words = f"held-out {change(robots)} is worse by more than {rules.max_fall:g}"
        found.append(Reason("fall", f"{words} (gate.max_fall)"))
    released = evidence.at_release.get(name)
    if released is not None:
        now = _mean(robots, _after(name))
        if loss(direction, released, now, share=share) > rules.max_loss:
            words = (
                f"held-out {name} is {now:.3f}, and what robots run had {released:.3f} when it was "
                "published: their frames or labels have changed"
            )
            found.append(Reason("below_release", words))
    return [*found, *_losers(name, robots, lost, change, rules)]


def _losers(
    name: str,
    robots: Sequence[Measured],
    lost: Callable[[Measured], float],
    change: Callable[[Sequence[Measured]], str],
    rules: GateSettings,
) -> list[Reason]:
    """Return who loses what others gain: sites, and robots where they are not few of many."""
    sites: dict[str, list[Measured]] = defaultdict(list)
    for robot in robots:
        sites[robot.site].append(robot)
    bound = f"(gate.max_loss is {rules.max_loss:g})"

    def losing(group: Sequence[Measured]) -> bool:
        enough = sum(robot.examples for robot in group) >= LEAST_HELD_OUT
        return enough and _mean(group, lost) > max(rules.max_loss, _noise(name, group))

    found = []
    if len(sites) > 1 and (bad := sorted(site for site in sites if losing(sites[site]))):
        told = names(f"{site or 'no site'} ({change(sites[site])})" for site in bad)
        found.append(Reason("site_loses", f"it is worse on {told} {bound}"))
    ordered = sorted(robots, key=lambda robot: robot.robot)
    losers = [robot for robot in ordered if losing([robot])]
    if len(losers) > MAX_LOSING * len(robots):
        told = names(f"{robot.robot} ({change([robot])})" for robot in losers)
        words = f"it is worse on {len(losers)} of {len(robots)} robots, {told} {bound}"
        found.append(Reason("robots_lose", words))
    return found


def _noise(name: str, group: Sequence[Measured]) -> float:
    """Return how far a share moves by chance, 0 of other measures."""
    if not is_share(name):
        return 0.0
    before, after = _mean(group, _before(name)), _mean(group, _after(name))
    return noise(before, after, sum(robot.examples for robot in group))


def _no_gain(evidence: Evidence) -> list[Reason]:
    """Return that a first model has learned nothing, by no measure."""
    told = []
    for name, direction in evidence.measures.items():
        if robots := _with(name, evidence.robots):
            if _gain(name, direction, robots, lambda robot: robot.after) >= MIN_GAIN:
                return []
            told.append(_change(name, robots))
    return [Reason("no_gain", f"it is no better than the untrained model ({'; '.join(told)})")]


def _contradiction(evidence: Evidence) -> list[Reason]:
    """Return that what robots have learned by themselves is lost in a first model."""
    told = []
    for name, direction in evidence.measures.items():
        robots = _with(name, evidence.robots)
        apart = [robot for robot in robots if name in robot.alone]
        if not apart:
            continue
        alone = _gain(name, direction, apart, lambda robot: robot.alone)
        together = _gain(name, direction, robots, lambda robot: robot.after)
        by_itself = _means([name], apart, lambda robot: robot.alone)[name]
        now = _mean(robots, _after(name))
        lost = together < MIN_KEPT * alone
        if is_share(name) and direction == "higher":
            examples = sum(robot.examples for robot in robots)
            lost = lost or now < MIN_OF_SHARE * by_itself
            lost = lost and by_itself - now > 2.0 * math.sqrt(0.5 / examples)  # no chance
        if alone >= MIN_ALONE and lost:
            told.append(f"{_change(name, robots)}, while each robot by itself has {by_itself:.3f}")
    if not told:
        return []
    words = f"what robots learn by themselves is lost in it ({'; '.join(told)})"
    hint = "do labels of some robots contradict those of others?"
    return [Reason("contradiction", f"{words}: {hint}")]


def _gain(
    name: str,
    direction: Direction,
    robots: Sequence[Measured],
    of: Callable[[Measured], Metrics],
) -> float:
    share = is_share(name)
    return -_mean(robots, lambda one: loss(direction, one.before[name], of(one)[name], share=share))


def _with(name: str, robots: Sequence[Measured]) -> list[Measured]:
    return [robot for robot in robots if name in robot.before and name in robot.after]


def _before(name: str) -> Callable[[Measured], float]:
    return lambda robot: robot.before[name]


def _after(name: str) -> Callable[[Measured], float]:
    return lambda robot: robot.after[name]


def _change(name: str, robots: Sequence[Measured]) -> str:
    return f"{name} {_mean(robots, _before(name)):.3f} -> {_mean(robots, _after(name)):.3f}"


def _mean(robots: Iterable[Measured], value: Callable[[Measured], float]) -> float:
    """Average over examples; summed exactly, so that no order of robots matters."""
    pairs = [(value(robot), robot.examples) for robot in robots]
    return math.fsum(v * n for v, n in pairs) / sum(n for _, n in pairs)


def _means(
    measures: Iterable[str], robots: Sequence[Measured], of: Callable[[Measured], Metrics]
) -> Metrics:
    found: dict[str, float] = {}
    for name in measures:
        if some := [(of(robot)[name], robot.examples) for robot in _with(name, robots)]:
            found[name] = math.fsum(v * n for v, n in some) / sum(n for _, n in some)
    return found
