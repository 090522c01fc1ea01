"""What a closed round leaves behind for people: a line of the history, one entry per robot."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import median_low
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, TypeAdapter

from cloud_server.state.words import names
from fleet_model.errors import one_line
from fleet_model.measures import AFTER, BEFORE
from fleet_model.protocol.example_counts import CONCERNS, ExampleCounts, counts_of
from fleet_model.protocol.outcome import KINDS, Outcome, outcome_of, parse_outcome
from fleet_model.types import FLOAT32, Metrics

Mode = Literal["sync", "buffered"]
# Columns of the history as CSV, which no metric of a robot may be called.
ROUND_COLUMNS = (
    "run", "round", "version", "mode", "seconds", "asked", "late", "request_bytes",
)  # fmt: skip
ROBOT_COLUMNS = (
    "robot", "site", "verdict", "outcome", "num_examples", "weight", "capped", "num_steps",
    "staleness", "norm", "update_bytes", "cut_to", "label_counts", "codec",
)  # fmt: skip
RESERVED = frozenset({*ROUND_COLUMNS, *ROBOT_COLUMNS, "name", "metrics", "other_metrics"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotRecord:
    """What one robot did in one round."""

    name: str
    site: str
    outcome: Annotated[Outcome, BeforeValidator(parse_outcome)]
    num_examples: int = 0  # as the robot counts them
    num_steps: int = 0
    update_bytes: int = 0  # of its tensors, as they travelled
    codec: str = FLOAT32  # in which they travelled
    metrics: Metrics = field(default_factory=dict)
    norm: float = 0.0  # L2 over all tensors of the update
    weight: int = 0  # examples that counted; 0 unless accepted
    staleness: int = 0  # versions between the update's base and the round's checkpoint
    capped: bool = False  # fewer of its examples count than it claimed
    cut_to: float = 0.0  # length (L2) of its update that counted; 0: all of it
    # Label of the fleet -> examples of it, over 0 each, as the robot counts; none: not told.
    label_counts: Mapping[str, int] = field(default_factory=dict)
    speaks_for: int = 1  # robots whose mean it sends: more than 1 of a site relay

    @property
    def counts(self) -> ExampleCounts:
        """Return what it told of its examples."""
        return counts_of(self.num_examples, self.metrics, self.label_counts)

    @property
    def accepted(self) -> bool:
        """Return whether its update was folded in."""
        return self.outcome.kind == "accepted"

    @property
    def refused(self) -> bool:
        """Return whether the server refused an update of it."""
        return self.outcome.kind == "refused"

    def as_json(self) -> dict[str, Any]:
        """Return JSON values: `verdict` is the kind of the outcome, `outcome` its text."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**values, "outcome": self.outcome.text, "verdict": self.outcome.kind}


def _read_robot(value: Any) -> Any:
    """Put the kind and the text of `RobotRecord.as_json` together again.

    Histories of releases before kinds have the text only; see `parse_outcome`.
    """
    if not isinstance(value, dict) or not isinstance(value.get("outcome"), str):
        return value
    kind = value.get("verdict")
    return {**value, "outcome": outcome_of(kind, value["outcome"])} if kind in KINDS else value


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """One line of the history."""

    run: str
    round: int
    version: int  # of the checkpoint that the round made
    seconds: float  # since this process opened or resumed the round
    robots: tuple[Annotated[RobotRecord, BeforeValidator(_read_robot)], ...]  # by name
    metrics: Metrics  # means over accepted robots, weighted by held-out examples
    asked: int = 0  # robots that had a ticket in this round
    late: int = 0  # updates for a round that had closed: dropped
    request_bytes: int = 0  # of the tensors that each robot was sent
    mode: Mode = "sync"
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # see `spread`
    label_counts: Mapping[str, int] = field(default_factory=dict)  # see `label_totals`
    clusters: Mapping[str, int] = field(default_factory=dict)  # site -> its cluster, from 1
    site_notes: tuple[str, ...] = ()  # sentences: sites that kept their model, came late, are gone
    # mode, epsilon (of the run so far, of all runs), delta; none where robots are not protected
    privacy: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def held_out(self) -> int:
        """Return how many examples the scores of accepted robots were measured on."""
        return sum(robot.counts.held_out or 0 for robot in self.robots if robot.accepted)

    @property
    def left_out(self) -> Mapping[str, int]:
        """Return kind -> examples that accepted robots have left out."""
        total = Counter[str]()
        for robot in self.robots:
            total.update(robot.counts.left_out if robot.accepted else {})
        return dict(total)

    @property
    def warnings(self) -> list[str]:
        """Return a sentence for each thing that makes scores doubtful, with robots and numbers."""
        found: dict[str, list[str]] = {concern: [] for concern in CONCERNS}
        for robot in self.robots:
            for concern, numbers in robot.counts.concerns.items() if robot.accepted else ():
                found[concern].append(f"{robot.name} ({numbers})")
        told = [f"{CONCERNS[one]}: {names(robots)}" for one, robots in found.items() if robots]
        return [*told, *self._absent()]

    def _absent(self) -> list[str]:
        absent = [one_line(label) for label, count in self.label_counts.items() if not count]
        if not absent:
            return []
        silent = sum(robot.accepted and not robot.label_counts for robot in self.robots)
        but = f", as far as they tell ({silent} do not: update their agents)" if silent else ""
        return [
            f"no robot of this round has examples of {names(absent)}{but}, so the model cannot "
            "learn that"
        ]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values: the fields, and what follows from them."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        told = {name: getattr(self, name) for name in ("held_out", "left_out", "warnings")}
        told["spread"] = {name: list(bounds) for name, bounds in self.spread.items()}
        told["site_notes"] = list(self.site_notes)
        return {**values, **told, "robots": [robot.as_json() for robot in self.robots]}


_RECORD = TypeAdapter(RoundRecord)


def parse_record(content: bytes | str) -> RoundRecord:
    """Read JSON of `as_json`; raises ValueError if it is damaged."""
    return _RECORD.validate_json(content)


def mean_metrics(records: Sequence[RobotRecord], ratio: float = 0.0) -> Metrics:
    """Average each measure over accepted robots, weighted by the held-out examples behind it.

    Args:
        records: of one round.
        ratio: no robot's held-out examples count for more than this many times the lower median of
            the round: they are what it says they are. 0: they count as it says.
    """
    measured = [
        (measures, max(one.metrics.get("held_out", 0.0), 0.0), one.speaks_for)
        for one in records
        if one.accepted and (measures := _measures(one))
    ]
    known = [n / robots for _, n, robots in measured if n for _ in range(robots)]
    most = ratio * median_low(known) if ratio and known else math.inf
    return weighted_means([(measures, min(n, most * robots)) for measures, n, robots in measured])


def spread(records: Sequence[RobotRecord], means: Metrics) -> Mapping[str, tuple[float, float]]:
    """Return the lowest and the highest of what accepted robots report, for every mean.

    A mean alone hides the robot for which nothing works, and the one that praises itself.
    """
    reported = {
        name: [one.metrics[name] for one in records if one.accepted and name in one.metrics]
        for name in means
    }
    return {name: (min(values), max(values)) for name, values in reported.items()}


def label_totals(records: Sequence[RobotRecord], labels: Sequence[str]) -> Mapping[str, int]:
    """Return label -> examples that accepted robots have, in the fleet's order, 0 for none.

    Empty where no robot tells.
    """
    told = [one.label_counts for one in records if one.accepted and one.label_counts]
    return {label: sum(one.get(label, 0) for one in told) for label in labels} if told else {}


def weighted_means(measured: Sequence[tuple[Metrics, float]]) -> Metrics:
    """Average each measure over robots; `measured` holds what each one reports, and its weight.

    Which measures there are is the workload's to say. Names come from robots: one that most of
    those that measured did not report is left out, so no single robot adds a name to the history.
    """
    counts = Counter(name for measures, _ in measured for name in measures)
    means: dict[str, float] = {}
    for name in sorted(name for name, count in counts.items() if 2 * count > len(measured)):
        pairs = [(measures[name], weight) for measures, weight in measured if name in measures]
        total = sum(weight for _, weight in pairs)
        mean = sum(value * weight for value, weight in pairs) / total if total else math.nan
        if math.isfinite(mean):  # the history is JSON
            means[name] = mean
    return means


def _measures(robot: RobotRecord) -> Metrics:
    return {n: value for n, value in robot.metrics.items() if n.endswith((BEFORE, AFTER))}
