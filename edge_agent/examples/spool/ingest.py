"""Take the recordings of the spool into the robot's store: the agent's child process for it.

    spool/run-7 --labelled, thinned, blurred and doubled frames left out--> state/examples/run-7-...

A long recording comes in parts, so that the store never grows far beyond its limit. The process may
be killed at any moment: the next one continues, nothing comes in twice or by half. It ends when the
work is done; its memory goes back to the robot.
"""

import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.data.extraction.extract import ExtractOptions, ExtractSummary, extract
from edge_agent.data.extraction.files import passes_through
from edge_agent.data.extraction.selection import Selection, TimeLimit, reason_to_skip
from edge_agent.data.frames.damage import NO_LABEL_TOPIC, WRONG_LABEL_TOPIC
from edge_agent.data.labels import LabelSettings, count_frames, labelled_entries
from edge_agent.data.manifest import MANIFEST, DataSetManifest, ManifestRow
from edge_agent.examples.spool.kept_examples import BatchNote, KeptExamples, keep_rows
from edge_agent.examples.spool.ledger import Ledger, Underway, recording_id
from edge_agent.examples.spool.recordings import Recording, find_recordings
from edge_agent.robot.child_process import step_aside
from edge_agent.robot.logs import log_to_stderr
from fleet_model.errors import FleetError, FrameError, SettingsError, StorageError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Frame

BUSY = 75  # exit code: another process is at it
# Less urgent than training (10): the examples of today are for the rounds of tomorrow.
NICENESS, OOM_SCORE = 15, 700
PARTS = 8  # of the store: so much is being taken in at most, beside 7 that are kept
SMALLEST_PART = 50  # frames
_LARGER = 1.25  # than a recording's first frame: JPEGs differ by what they show
ATTEMPTS = 5  # processes that end without a part done: then the recording is what kills them
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestJob:
    """What the agent asks for; JSON values only."""

    spool: str
    store: str
    recordings: list[str]  # complete ones, whether they were taken in before or not
    topic: str
    label_topic: str
    tolerance_s: float
    rate_hz: float
    min_sharpness: float
    max_mb: float
    max_age_days: float

    def as_json(self) -> str:
        """Return what the child reads from stdin."""
        return json.dumps(asdict(self))


class Ingest:
    """One run over the spool."""

    def __init__(self, job: IngestJob, now_s: Callable[[], float] = time.time) -> None:
        """Open the store and repair it."""
        self._job, self._now_s = job, now_s
        self._spool = Path(job.spool)
        self._labels = LabelSettings(job.topic, job.label_topic, job.tolerance_s)
        self._kept = KeptExamples(Path(job.store))
        self._ledger = Ledger(Path(job.store), json.dumps(self._labels))
        self._plan: Underway | None = None
        self._known: dict[tuple[str, int], list[Path]] = {}  # (topic, stamp) -> pictures

    def run(self) -> None:
        """Take in what is new, keep the store within its limits.

        Raises:
            StorageError: the disk is full or fails; the next run continues.
        """
        found = {r.path: r for r in find_recordings(self._spool)} if self._job.recordings else {}
        wanted = [found[Path(p)] for p in self._job.recordings if Path(p) in found]
        named = dict(self._named(wanted))
        self._ledger.forget_others(named)
        underway = {_batch(named[i], i, plan.parts) for i, plan in self._ledger.plans()}
        self._kept.repair(underway)
        self._keep_limits()
        for batch, row in self._kept.rows():
            self._known.setdefault((row.topic, row.stamp_ns), []).append(batch / row.file)
        for name, recording in named.items():
            if not self._ledger.is_done(name):
                self._take_or_refuse(name, recording)

    def _named(self, recordings: list[Recording]) -> Iterator[tuple[str, Recording]]:
        for recording in recordings:
            try:
                yield recording_id(recording, self._spool), recording
            except FrameError as error:  # gone, or not ours to read: seen again when it changes
                log.warning("%s", error)

    def leave(self, *_: object) -> None:
        """End the process, as a handler of SIGTERM; this is no failed attempt."""
        if self._plan:
            self._plan.attempts -= 1
            with suppress(OSError):
                self._ledger.save()
        os._exit(128 + signal.SIGTERM)

    def _take_or_refuse(self, name: str, recording: Recording) -> None:
        error = ""
        try:
            plan = self._ledger.underway(name) or self._ledger.begin(name, self._borders(recording))
            if plan.attempts >= ATTEMPTS:
                raise FrameError(f"{recording.path.name}: reading it has failed {ATTEMPTS} times")
            plan.attempts += 1
            self._plan = plan
            self._ledger.save()
            self._take(name, recording, plan)
        except (FrameError, SettingsError) as refusal:
            error = str(refusal)
            if isinstance(refusal, FrameError) and refusal.reason == WRONG_LABEL_TOPIC:
                self._count_unlabelled(recording)
            log.warning("not added to the examples: %s", error)
        self._plan = None
        self._ledger.finish(name, error)

    def _count_unlabelled(self, recording: Recording) -> None:
        """Count the frames that are left out for want of labels."""
        with suppress(FrameError):
            frames = count_frames(recording.path, self._job.topic)
            dropped = {NO_LABEL_TOPIC: frames} if frames else {}
            note = BatchNote(at_s=self._now_s(), seen=frames, kept=0, dropped=dropped, damage={})
            self._ledger.totals.add(note)

    def _take(self, name: str, recording: Recording, plan: Underway) -> None:
        while plan.parts <= len(plan.borders):
            batch = _batch(recording, name, plan.parts)
            note = self._kept.note(batch)  # there already: the last process ended right behind it
            if note is None:
                note = self._extract(batch, recording, plan)
                self._kept.accept(batch, note)
            plan.parts, plan.attempts = plan.parts + 1, 0
            self._ledger.totals.add(note)
            self._ledger.save()
            self._keep_limits()
            log.info(
                "%s: %d of %d frames added to the examples",
                recording.path.name,
                note.kept,
                note.seen,
            )

    def _extract(self, batch: str, recording: Recording, plan: Underway) -> BatchNote:
        borders = [TimeLimit(ns, absolute=True) for ns in plan.borders]
        options = ExtractOptions(
            paths=(recording.path,),
            out=self._kept.incoming(batch),
            labels=self._labels,
            selection=Selection(
                start=([None, *borders])[plan.parts],
                end=([*borders, None])[plan.parts],
                rate_hz=self._job.rate_hz,
            ),
            min_sharpness=self._job.min_sharpness,
            drop_duplicates=True,
        )
        try:
            summary = extract(options)
        except SettingsError:  # begun with other settings than today's
            self._kept.discard(batch)
            summary = extract(options)
        return self._note(options.out, summary, first=plan.parts == 0)

    def _note(self, out: Path, summary: ExtractSummary, *, first: bool) -> BatchNote:
        """Leave out what is no example, and count."""
        dropped = Counter(summary.skipped)
        beside = dropped.pop("time range", 0)  # other parts count these
        reasons = {row.file: self._refusal(out, row) for row in DataSetManifest(out / MANIFEST)}
        keep_rows(out, lambda row: not reasons[row.file])
        refused = Counter(filter(None, reasons.values()))
        return BatchNote(
            at_s=self._now_s(),
            seen=summary.frames_seen - beside,
            kept=len(reasons) - refused.total(),
            dropped=dict(dropped + refused),
            damage={d.kind: d.count for d in summary.damage} if first else {},
        )

    def _refusal(self, out: Path, row: ManifestRow) -> str:
        """Return why a frame is no example; "" where it is one."""
        if not (row.label or row.seen):
            return "without a label"
        same = self._known.setdefault((row.topic, row.stamp_ns), [])
        content = (out / row.file).read_bytes()
        for other in same:
            with suppress(OSError):  # evicted
                if other.stat().st_size == len(content) and other.read_bytes() == content:
                    return "a copy of another frame"
        same.append(out / row.file)
        return ""

    def _borders(self, recording: Recording) -> list[int]:
        """Return the times that cut a recording into parts, each a fraction of the store."""
        damage = DamageLog()  # the extraction reports it
        wanted = reason_to_skip(Selection(rate_hz=self._job.rate_hz))
        borders: list[int] = []
        length = count = 0
        for entry in labelled_entries(recording.path, self._labels, damage):
            if wanted(entry.time_ns):
                continue
            if not length:
                with suppress(FrameError):
                    frame_bytes = _file_bytes(entry.load().frame)
                    length = round(self._job.max_mb * 1e6 / PARTS / frame_bytes / _LARGER)
                    length = max(length, SMALLEST_PART)
            if count >= length > 0 and (not borders or entry.time_ns > borders[-1]):
                borders.append(entry.time_ns)
                count = 0
            count += 1
        return borders

    def _keep_limits(self) -> None:
        limit = self._job.max_mb * 1e6 * (PARTS - 1) / PARTS
        size = self._kept.evict(limit, self._job.max_age_days, self._now_s())
        totals = self._ledger.totals
        totals.examples, totals.megabytes = size.examples, round(size.size_bytes / 1e6, 3)
        self._ledger.save()


def _file_bytes(frame: Frame) -> int:
    """Return about how many bytes a frame has as a file; a packet of video becomes a picture."""
    unpacked = 0 if passes_through(frame, "keep") else 3 * frame.width * frame.height
    return max(1, len(frame.data), unpacked)


def _batch(recording: Recording, name: str, part: int) -> str:
    """Return the name of a part in the store."""
    readable = "".join(c if c.isalnum() or c in "-_" else "-" for c in recording.path.stem)
    return f"{readable[:60].strip('-') or 'bag'}-{name}-{part:03d}"


def main() -> int:
    """Do the job that is read from stdin; return the exit code."""
    log_to_stderr()
    job = IngestJob(**json.load(sys.stdin))
    step_aside(NICENESS, OOM_SCORE)
    try:
        with _lock(Path(job.store)) as is_ours:
            if not is_ours:
                return BUSY
            ingest = Ingest(job)
            signal.signal(signal.SIGTERM, ingest.leave)
            ingest.run()
    except FleetError as error:
        log.error("%s", error)
        return error.exit_code
    except OSError as error:
        log.error("the store of examples: %s", error.strerror)
        return StorageError.exit_code
    return 0


@contextmanager
def _lock(store: Path) -> Iterator[bool]:
    """Tell whether no other process works on the store; the system frees it when this one ends."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


if __name__ == "__main__":
    sys.exit(main())
