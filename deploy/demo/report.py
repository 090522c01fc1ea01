"""Write what the demo measured as one HTML page that needs no network, script or other file."""

import math
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from charts import (
    STYLE,
    Html,
    Line,
    diagram,
    el,
    grouped_bars,
    heatmap,
    join,
    key,
    line_chart,
    percent,
    stacked_bars,
)
from pydantic import BaseModel, ConfigDict

from fleet_model.durable import write_durably

_WORDS = "No One Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve".split()
_KINDS = ("before training", "one robot alone", "the fleet")
_PICTURES = 12


class Part(BaseModel):
    """One JSON object; what is missing or null keeps its default, what is unknown is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Robot(Part):
    """What a robot reports of itself at the end."""

    name: str
    site: str = ""
    trains: bool = False
    examples: int | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    active_version: int | None = None
    idle_mb: float | None = None
    peak_rss_mb: float | None = None
    bytes_up_per_round: float | None = None
    bytes_down_per_publish: float | None = None
    tensorflow_loaded: bool | None = None


class Unseen(Part):
    """The robots that never trained, each of equal weight."""

    robots: tuple[str, ...] = ()
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    single_robot_mean: float | None = None


class Summary(Part):
    """The run as a whole."""

    rounds: int | None = None
    seconds: float | None = None
    robots: tuple[Robot, ...] = ()
    unseen: Unseen = Unseen()
    published_version: int | None = None


class Reply(Part):
    """What one robot did in one round; without held-out examples four metrics are absent."""

    name: str
    outcome: str = "accepted"
    num_examples: int | None = None
    metrics: dict[str, float] = {}


class Round(Part):
    """One round; `metrics` are the fleet's means."""

    round: int
    robots: tuple[Reply, ...] = ()
    metrics: dict[str, float] = {}


class Confusion(Part):
    """Counts: row = truth, column = prediction."""

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
    """The best answer for one frame; truth "" is not known."""

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


class Report(Part):
    """Everything the page shows."""

    summary: Summary = Summary()
    history: tuple[Round, ...] = ()
    labels: tuple[str, ...] = ()
    label_counts: dict[str, dict[str, int]] = {}
    predictions: dict[str, Comparison] = {}
    single_robot: dict[str, dict[str, float]] = {}
    frame_bytes: dict[str, int] = {}
    commands: tuple[str, ...] = ()
    about: dict[str, str | int | float] = {}


def write_report(data: dict[str, Any], frames_dir: Path, path: Path) -> None:
    """Write the page; pictures are taken from frames_dir/<robot>/*_<stamp_ns>.jpg or .png.

    Raises:
        pydantic.ValidationError: a field has another type than the demo's.
    """
    report = Report.model_validate(_present(data))
