"""The way of a chosen frame to its image file: load, measure, drop or encode, in order.

The slow stages work ahead in threads; what a stage drops costs nothing in the next ones.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from edge_agent.data.ahead import map_ahead
from edge_agent.data.extraction.files import ImageFile, image_file, passes_through
from edge_agent.data.extraction.journal import Outcome, Skipped, Written
from edge_agent.data.manifest import ManifestRow
from edge_agent.data.picture_quality import is_near_duplicate, picture_hash, sharpness
from fleet_model.errors import FrameError
from fleet_model.files.damage import Damage, DamageLog

if TYPE_CHECKING:
    from edge_agent.data.labels import LabelledFrame

_COLORLESS = "not a color picture"  # FrameError.reason of depth and data: has no sharpness


@dataclass(slots=True)
class Candidate:
    """A chosen frame. Each stage fills in what it found out, and passes on what is settled."""

    time_ns: int
    load: "Callable[[], LabelledFrame]"
    source: int  # which of the paths; pictures of different ones are no duplicates
    remembered: Outcome | None = None  # by the journal, of an earlier run
    intact: bool = False  # the file of a remembered one is there
    dropped: Skipped | None = None
    labelled: "LabelledFrame | None" = None
    losses: tuple[Damage, ...] = ()
    sharpness: float | None = None
    hash: int | None = None
    file: ImageFile | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to be written for it."""
        return self.intact or self.dropped is not None

    def row(self, file: str) -> ManifestRow:
        """Return the line of one that was loaded."""
        assert self.labelled is not None
        frame, label, boxes, seen = self.labelled
        return ManifestRow(
            file=file,
            topic=frame.topic,
            stamp_ns=frame.stamp_ns,
            source=frame.source,
            label=label,
            sharpness=self.sharpness,
            width=frame.width,
            height=frame.height,
            boxes=boxes,
            seen=seen,
        )

    def drop(self, reason: str, begins: str = "") -> None:
        """Settle it; `begins` says where and why if it is damaged."""
        self.dropped = Skipped(self.time_ns, reason, begins)
        self.labelled = None


@dataclass(frozen=True, slots=True)
class Quality:
    """What pictures are measured for; see ExtractOptions."""

    image_format: str
    min_sharpness: float | None
    drop_duplicates: bool

    @property
    def measures(self) -> bool:
        """Whether every picture must be decoded."""
        return self.min_sharpness is not None or self.drop_duplicates


def encoded(
    candidates: Iterable[Candidate], quality: Quality, damage: DamageLog
) -> Generator[Candidate, None, None]:
    """Yield the candidates, settled or with their file; `damage` is what their loading adds to."""
    threads = len(os.sched_getaffinity(0))
    loaded: Iterator[Candidate] = (_load(candidate, damage) for candidate in candidates)

    def measure(candidate: Candidate) -> Candidate:
        return _measure(candidate, quality)

    def encode(candidate: Candidate) -> Candidate:
        return _encode(candidate, quality.image_format)

    if quality.measures:
        loaded = _drop(map_ahead(measure, loaded, threads, 2 * threads), quality)
    for is_slow, group in groupby(loaded, _Pace(quality.image_format)):
        if is_slow:
            yield from map_ahead(encode, group, threads, 2 * threads)
        else:
            yield from map(encode, group)


def _load(candidate: Candidate, damage: DamageLog) -> Candidate:
    if candidate.is_settled:
        return candidate
    before = damage.all() if damage else ()
    try:
        candidate.labelled = candidate.load()
    except FrameError as error:
        candidate.drop(error.reason, str(error))
    else:
        candidate.losses = _added(before, damage.all()) if damage else ()
    return candidate


def _added(before: tuple[Damage, ...], after: tuple[Damage, ...]) -> tuple[Damage, ...]:
    if before == after:
        return ()
    counts = {loss.kind: loss.count for loss in before}
    more = [(loss, loss.count - counts.get(loss.kind, 0)) for loss in after]
    return tuple(Damage(loss.kind, count, loss.begins) for loss, count in more if count)


def _measure(candidate: Candidate, quality: Quality) -> Candidate:
    if candidate.is_settled or candidate.labelled is None:
        return candidate
    try:
        picture = candidate.labelled.frame.decode()  # (height, width, 3)
    except FrameError as error:
        if error.reason != _COLORLESS:
            candidate.drop(error.reason, str(error))
        return candidate
    candidate.sharpness = sharpness(picture)
    if quality.drop_duplicates:
        candidate.hash = picture_hash(picture)
    return candidate


def _drop(candidates: Iterable[Candidate], quality: Quality) -> Iterator[Candidate]:
    """Drop what is blurred, or nearly the same as the last picture of its source that was kept."""
    kept: tuple[int, int | None] = (-1, None)  # source, hash
    for candidate in candidates:
        if isinstance(candidate.remembered, Written):
            kept = candidate.source, candidate.remembered.hash
        elif not candidate.is_settled:
            reason = _why_drop(candidate, quality, kept)
            if reason:
                candidate.drop(reason)
            else:
                kept = candidate.source, candidate.hash
        yield candidate


def _why_drop(candidate: Candidate, quality: Quality, kept: tuple[int, int | None]) -> str:
    if candidate.sharpness is not None and candidate.sharpness < (quality.min_sharpness or 0.0):
        return "blurred"
    source, last = kept
    if candidate.hash is None or last is None or source != candidate.source:
        return ""
    return "near duplicate" if is_near_duplicate(candidate.hash, last) else ""


def _encode(candidate: Candidate, image_format: str) -> Candidate:
    if candidate.labelled is not None:
        try:
            candidate.file = image_file(candidate.labelled.frame, image_format)
        except FrameError as error:
            candidate.drop(error.reason, str(error))
    return candidate


class _Pace:
    """Tells which neighbors are worth threads; one that is settled goes with the last one."""

    def __init__(self, image_format: str) -> None:
        self._image_format = image_format
        self._is_slow = False

    def __call__(self, candidate: Candidate) -> bool:
        if candidate.labelled is not None:
            self._is_slow = not passes_through(candidate.labelled.frame, self._image_format)
        return self._is_slow
