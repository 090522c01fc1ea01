"""Let a teacher label this robot's frames: calibrate it, ask it about each frame once."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_agent.data.frames.damage import WRONG_LABEL_TOPIC
from edge_agent.examples.left_out import by_kind
from edge_agent.examples.source import SourceSpec, source_of
from edge_agent.examples.taught import TEACHERS, UNREADABLE, Said, counted, in_words
from edge_agent.labeling.frames import require_frames
from edge_agent.labeling.teacher.record import Record, name_for, require_name
from edge_agent.labeling.teacher.teacher import Teacher, open_teacher, taught_by
from edge_agent.labeling.teacher.wanted import Wanted, what_is_wanted
from edge_agent.robot.settings import AgentSettings
from fleet_model.errors import FrameError, SettingsError
from fleet_model.protocol.proof import utc_now
from fleet_model.types import Example

INDEX = "known-frames"  # beside the teachers' files
_ALL = 1 << 60  # frames
_SAVE_S, _SAVE = 1.0, 50  # between two writes, and frames: so much is asked again after a kill
Show = Callable[[int, int | None], None]  # frames that are done, and how many there are


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonOptions:
    """What a person asks for."""

    teacher: Path  # folder of a bundle
    name: str = ""  # of the teacher; "": as its file or folder is called
    by: str = ""  # the person
    precision: str = "fp32"  # of the teacher's engine
    classes: tuple[str, ...] = ()  # without a model of the fleet
    boxes: bool | None = None  # as well; None: as the teacher answers
    most: int | None = None  # frames without a label that it is asked about
    json: bool = False


def teach(
    settings: AgentSettings,
    options: LessonOptions,
    echo: Callable[[str], None],
    show: Show = lambda *_: None,
    now: Callable[[], datetime] = utc_now,
) -> dict[str, Any]:
    """Let a teacher label frames; return what was done, as JSON values, which `echo` tells.

    Raises:
        SettingsError: the teacher does not suit this fleet, nothing tells when it is right, a
            name cannot be, or another process does the same.
        BundleError: the teacher is damaged, or no bundle.
        FrameError: no frame can be read.
        StorageError: its labels cannot be written; those before are kept.
    """
    require_frames(settings, "a teacher labels")
    engine, sha256 = open_teacher(options.teacher, options.precision)
    manifest = engine.manifest
    called = manifest.imported or options.teacher.resolve().name
    name = require_name(options.name) if options.name else name_for(called)
    answer = engine.workload.task.answer
    wanted = what_is_wanted(settings, options.classes, options.boxes, answer)
    teacher, unknown = taught_by(engine, wanted)
    record = Record(settings.state / TEACHERS)
    try:
        held_out, frames, kept_back = _listed(settings, wanted, options.most)
        progress = _Progress(show, len(held_out) + len(frames))
        precision = settings.examples.pseudo_precision
        least = teacher.least(held_out, precision, progress.one)
        if not least:
            raise SettingsError(
                f"{name} version {manifest.version} is right in {precision:.0%} of its answers for "
                f"no class here, by {len(held_out)} held-out frames; label more with `edge-agent "
                "label`, or take another teacher"
            )
        who = {
            "teacher": name,
            "version": manifest.version,
            "sha256": sha256,
            "engine": options.precision,
            "answer": wanted.answer,
            "classes": list(wanted.classes),
            "precision": precision,
            "least": least,
            "held_out": len(held_out),
        }
        record.begin({**who, "at": _at(now), "by": options.by})
        before = sum(_is_asked(one, record) for one in frames)
        _ask(teacher, least, frames, record, progress.one, now)
        record.finish()
        said = {one.key: record.said[one.key] for one in frames}
    finally:
        record.close()
    done = {
        **{k: who[k] for k in ("teacher", "version", "precision", "least", "held_out")},
        "unknown": unknown,
        "unsure_classes": [n for n in wanted.classes if n not in least and n not in unknown],
        **counted(said),
        "before": before,
        "kept_for_measuring": kept_back,
        "weight": settings.examples.pseudo_weight,
    }
    if options.json:
        echo(json.dumps(done))
    else:
        for line in _lines(done):
            echo(line)
    return done


def forget(
    settings: AgentSettings, name: str, echo: Callable[[str], None], *, as_json: bool
) -> None:
    """Take back all labels of a teacher.

    Raises:
        SettingsError: there is no such teacher here, or one teaches now.
        StorageError: the folder cannot be written.
    """
    record = Record(settings.state / TEACHERS)
    try:
        gone = record.forget(name)
    finally:
        record.close()
    words = f"the labels of {name} are taken back ({gone['frames']} frames)"
    echo(json.dumps(gone) if as_json else f"{words}; the next round learns without them")


def _listed(
    settings: AgentSettings, wanted: Wanted, most: int | None
) -> tuple[list[Example], list[Example], int]:
    """Return held-out frames, those without a label, and how many are kept for measuring."""
    spec = _source(settings, wanted)
    source = spec.open(wanted.classes, boxes=wanted.answer == "boxes")
    try:
        examples = list(source.examples())
    except FrameError as error:
        if error.reason != WRONG_LABEL_TOPIC:
            raise
        examples = []  # bags, and no label in any of them
    held_out = [one for one in examples if one.held_out]
    frames = [one for one in examples if one.pseudo]
    unlabelled = by_kind(source.left_out).get("unlabelled", 0)
    # Drawn by their keys, so that they stay the same; read in the order of the recordings.
    chosen = frames if most is None else frames[:most]
    return held_out, sorted(chosen, key=_place), max(0, unlabelled - len(frames))


def _place(example: Example) -> tuple[str, str, int]:
    return example.raw.source, example.raw.topic, example.raw.stamp_ns


def _source(settings: AgentSettings, wanted: Wanted) -> SourceSpec:
    """Return the robot's frames as a round lists them; nothing counts as trained on."""
    spec = source_of(settings, trains=False).renamed(wanted.former)
    index = settings.state / TEACHERS / INDEX  # another user than the agent may run this
    rule = {"most": _ALL, "weight": 1.0, "precision": settings.examples.pseudo_precision}
    options = {n: v for n, v in spec.options.items() if n != "taught"}
    return replace(spec, options={**options, "index": str(index), "pseudo": rule})


def _ask(
    teacher: Teacher,
    least: dict[str, float],
    frames: Iterable[Example],
    record: Record,
    seen: Callable[[], None],
    now: Callable[[], datetime],
) -> None:
    """Ask about every frame that it has not been asked about; keep what it says, often."""
    fresh, saved_at = dict[str, Said](), time.monotonic()
    try:
        for one in frames:
            if not _is_asked(one, record):
                fresh[one.key] = teacher.say(one.raw, least)._replace(at=_at(now))
            seen()
            if len(fresh) >= _SAVE or (fresh and time.monotonic() - saved_at >= _SAVE_S):
                record.add(fresh)
                fresh, saved_at = {}, time.monotonic()
    finally:  # also of a person's Ctrl-C
        if fresh:
            record.add(fresh)


def _is_asked(frame: Example, record: Record) -> bool:
    """Return whether a frame has an answer; one that could not be read may be read now."""
    return frame.key in record.said and record.said[frame.key].refused != UNREADABLE


def _at(now: Callable[[], datetime]) -> str:
    return now().isoformat(timespec="seconds")


def _lines(done: Mapping[str, Any]) -> list[str]:
    """Return what was done, for people."""
    least = ", ".join(f"{name} from {score:.2f}" for name, score in done["least"].items())
    who, right = f"{done['teacher']} version {done['version']}", f"{done['precision']:.0%}"
    held_out = f"by {done['held_out']} held-out frames"
    lines = [f"{who} is right in {right} of its answers, {held_out}: {least}"]
    if unsure := done["unsure_classes"]:
        lines.append(f"no labels of {', '.join(unsure)}: it is not sure enough of them here")
    if unknown := done["unknown"]:
        lines.append(f"no labels of {', '.join(unknown)}: it does not know them")
    before = f" ({done['before']} were asked about before)" if done["before"] else ""
    lines.append(in_words(done) + before)
    if kept := done["kept_for_measuring"]:
        lines.append(f"{kept} frames without a label were not asked about: kept for measuring")
    if done["frames"]:
        lines.append(
            f"the next round learns from them, weight up to {done['weight']:g}; what a person says "
            f"counts instead. `edge-agent label --forget {done['teacher']}` takes them back"
        )
    return lines


class _Progress:
    """Counts frames for people."""

    def __init__(self, show: Show, total: int) -> None:
        self._show, self._total, self._done = show, total, 0

    def one(self) -> None:
        """Count one."""
        self._done += 1
        self._show(self._done, self._total)
