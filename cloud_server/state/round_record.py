"""What a closed round leaves behind for people: a line of the history, one entry a robot."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

from fleet_model.types import Metrics

Mode = Literal["sync", "buffered"]
ACCEPTED = "accepted"
REFUSED = "refused: "  # an outcome that begins so is the server's verdict on an update
NO_REPLY = "no reply by the deadline"
WENT_OFFLINE = "it went offline and did not come back"
NOT_ADMITTED = "it was suspended, revoked or forgotten while it worked"
NOT_REACHED = "could not be reached by the deadline"
LATE = "late: "  # an outcome that begins so: the update came too late to be folded in, no offense
MAX_REASON = 300  # characters of an outcome that are kept: it may be a robot's own words
# What a fleet may answer in a robot's place. Every other verdict is the round's own.
OF_FLEETS = (REFUSED, NO_REPLY)
VERDICTS = (ACCEPTED, NOT_REACHED, LATE, *OF_FLEETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotRecord:
    """What one robot did in one round."""

    name: str
    site: str
    outcome: str  # ACCEPTED, or the reason why not
    num_examples: int = 0  # as the robot counts them
    num_steps: int = 0
    update_bytes: int = 0
    metrics: Metrics = field(default_factory=dict)
    norm: float = 0.0  # L2 over all tensors of the update
    weight: int = 0  # examples that counted; 0 unless accepted
    staleness: int = 0  # versions between the update's base and the round's checkpoint
    capped: bool = False  # it claimed more than checks.max_examples_per_robot

    @property
    def refused(self) -> bool:
        """Return whether the server refused an update of it."""
        return self.outcome.startswith(REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """One line of the history."""

    run: str
    round: int
    version: int  # of the checkpoint that the round made
    seconds: float  # since this process took the round up
    robots: tuple[RobotRecord, ...]  # by name
    metrics: Metrics  # means over accepted robots, weighted by held-out examples
    asked: int = 0  # robots that had a ticket in this round
    late: int = 0  # updates for a round that had closed: dropped
    mode: Mode = "sync"

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def own_words(reason: str, verdicts: tuple[str, ...] = VERDICTS) -> str:
    """Return why a robot sent no update, such that its words can be taken for no verdict."""
    said = f"it said: {reason}" if reason.startswith(verdicts) else reason
    return said[:MAX_REASON] or "an error without a reason"


def nameless(outcome: str, name: str) -> str:
    """Return an outcome for a sentence that begins with the robot's name."""
    return outcome.replace(f"robot {name}: ", "", 1)


_RECORD = TypeAdapter(RoundRecord)


def parse_record(content: bytes | str) -> RoundRecord:
    """Read JSON of `as_json`; raises ValueError if it is damaged."""
    return _RECORD.validate_json(content)


def mean_metrics(records: Sequence[RobotRecord]) -> Metrics:
    """Average each metric over accepted robots, weighted by the held-out examples behind it."""
    means: dict[str, float] = {}
    for name in ("loss_before", "loss_after", "accuracy_before", "accuracy_after"):
        pairs = [
            (r.metrics[name], max(r.metrics.get("held_out", 0.0), 0.0))
            for r in records
            if r.outcome == ACCEPTED and name in r.metrics
        ]
        if total := sum(weight for _, weight in pairs):
            mean = sum(value * weight for value, weight in pairs) / total
            if math.isfinite(mean):  # the history is JSON
                means[name] = mean
    return means
