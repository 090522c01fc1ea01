"""What a fleet has measured; what nobody measured is None, never 0."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict

from fleet_model.protocol.trial import TrialOutcome


class Part(BaseModel):
    """One JSON object: missing or null fields keep their default, unknown ones are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Robot(Part):
    """What a robot reports of itself at the end."""

    name: str
    site: str = ""
    trains: bool = False
    examples: int | None = None
    accuracy_before: float | None = None  # of the fleet's first measure, whatever it is
    accuracy_after: float | None = None
    active_version: int | None = None
    idle_mb: float | None = None
    peak_rss_mb: float | None = None
    bytes_up_per_round: float | None = None
    bytes_down_per_publish: float | None = None
    framework_loaded: bool | None = None
    trials: tuple[TrialOutcome, ...] = ()  # of models that it tried, the last one last


class Unseen(Part):
    """The robots that never train."""

    robots: tuple[str, ...] = ()
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    single_robot_mean: float | None = None


class SignedBy(Part):
    """Who signed a version for a channel."""

    version: int
    channel: str
    role: str
    key: str
    at: float  # Unix time


class Summary(Part):
    """The run as a whole."""

    rounds: int | None = None
    seconds: float | None = None
    robots: tuple[Robot, ...] = ()
    unseen: Unseen = Unseen()
    published_version: int | None = None
    planted_version: int | None = None  # a bad one that was published on purpose
    signatures: tuple[SignedBy, ...] = ()


class Reply(Part):
    """What one robot did in one round; without held-out examples some metrics are absent."""

    name: str
    outcome: str = "accepted"  # or the reason why not
    metrics: dict[str, float] = {}

    @property
    def seconds(self) -> float | None:
        """Time for reading frames and training."""
        parts = [self.metrics[m] for m in ("encode_s", "train_s") if m in self.metrics]
        return sum(parts) if parts else None


class Round(Part):
    """One round; `metrics` are the fleet's means."""

    round: int
    robots: tuple[Reply, ...] = ()
    metrics: dict[str, float] = {}

    def metric(self, name: str, robot: str) -> float | None:
        """Return a robot's metric; None if it failed or has no such metric."""
        return next((r.metrics.get(name) for r in self.robots if r.name == robot), None)


class Confusion(Part):
    """Counts, row = truth and column = prediction, over the labels that occur."""

    labels: tuple[str, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()


class Scores(Part):
    """What `edge-agent predict` sums up."""

    frames: int | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    confusion: Confusion = Confusion()
    milliseconds_per_frame: float | None = None
    skipped: dict[str, int] = {}


class Answer(Part):
    """The best answer for one frame; nobody knows the truth where it is ""."""

    stamp_ns: int
    label: str
    score: float | None = None
    truth: str = ""


class Predicted(Part):
    """One run of `edge-agent predict` over a robot's bag."""

    summary: Scores = Scores()
    predictions: tuple[Answer, ...] = ()


class Comparison(Part):
    """The first and the published model on one unseen robot."""

    before: Predicted = Predicted()
    after: Predicted = Predicted()


def measures_of(history: Sequence[Round]) -> tuple[str, ...]:
    """Return what robots measured before and after their training, accuracy first."""
    names = {name for closed in history for name in closed.metrics}
    found = {n.removesuffix("_before") for n in names if n.endswith("_before")}
    found = {name for name in found if f"{name}_after" in names}
    return tuple(sorted(found, key=lambda n: (n != "accuracy", n))) or ("accuracy", "loss")


class Results(Part):
    """Everything the page shows."""

    summary: Summary = Summary()
    history: tuple[Round, ...] = ()
    labels: tuple[str, ...] = ()
    label_counts: dict[str, dict[str, int]] = {}
    predictions: dict[str, Comparison] = {}
    single_robot: dict[str, dict[str, float]] = {}  # trained alone on -> measured on -> accuracy
    frame_bytes: dict[str, int] = {}
    commands: tuple[str, ...] = ()
    about: dict[str, str | int | float] = {}

    @property
    def measures(self) -> tuple[str, ...]:
        """What robots measured before and after their training, accuracy first."""
        return measures_of(self.history)

    @property
    def training(self) -> list[Robot]:
        """The robots that train."""
        return [robot for robot in self.summary.robots if robot.trains]

    @property
    def bytes_up(self) -> float | None:
        """Mean over the training robots."""
        return mean(robot.bytes_up_per_round for robot in self.training)

    @property
    def bytes_down(self) -> float | None:
        """Mean over all robots."""
        return mean(robot.bytes_down_per_publish for robot in self.summary.robots)

    @property
    def bytes_kept(self) -> float | None:
        """Mean size of the training robots' frames."""
        return mean(self.frame_bytes.get(robot.name) for robot in self.training)

    @property
    def running(self) -> int | None:
        """Robots on the published version."""
        version = self.summary.published_version
        active = [robot.active_version for robot in self.summary.robots]
        return active.count(version) if version is not None and active else None

    @property
    def sites(self) -> dict[str, list[str]]:
        """Site -> its robots, both in the order of the summary."""
        sites: dict[str, list[str]] = {}
        for robot in self.summary.robots:
            sites.setdefault(robot.site, []).append(robot.name)
        return sites


def parse_results(data: Mapping[str, Any]) -> Results:
    """Return the demo's JSON, typed.

    Raises:
        pydantic.ValidationError: a field has another type than the demo's.
    """
    return Results.model_validate(_present(data))


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what was measured; None if nothing was."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def add_up(confusions: Iterable[Confusion], order: Iterable[str]) -> Confusion:
    """Add counts by label; labels that occur in none are left out, the others keep `order`."""
    cells: Counter[tuple[str, str]] = Counter()
    seen: dict[str, None] = {}
    for confusion in confusions:
        seen |= dict.fromkeys(confusion.labels)
        for truth, row in zip(confusion.labels, confusion.matrix, strict=True):
            cells.update({(truth, said): n for said, n in zip(confusion.labels, row, strict=True)})
    labels = tuple(label for label in dict.fromkeys([*order, *seen]) if label in seen)
    return Confusion(
        labels=labels,
        matrix=tuple(tuple(cells[truth, said] for said in labels) for truth in labels),
    )


def _present(value: Any) -> Any:
    """Drop null, NaN and infinity out of objects, so that all of them count as missing."""
    if isinstance(value, Mapping):
        kept = {name: _present(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_present(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
