"""What one person said of one frame, as a line of the log; light, for `edge-agent status`."""

import json
import logging
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.examples.source import ANSWERED
from fleet_model.types import Box

FOLDER, FRAMES = ANSWERED.parts  # the first in the state directory, the second in it
LOG = "answers.jsonl"
LABEL, UNSURE, SKIP, UNDO = "label", "unsure", "skip", "undo"
KINDS = (LABEL, UNSURE, SKIP)
log = logging.getLogger(__name__)


class FrameName(NamedTuple):
    """Which frame of this robot is meant."""

    source: str
    topic: str
    stamp_ns: int

    @property
    def id(self) -> str:
        """A short name for it, for addresses and files."""
        source = f"{self.source}\0{self.topic}\0".encode("utf-8", "surrogatepass")
        return f"{zlib.crc32(source):08x}{self.stamp_ns & (1 << 64) - 1:016x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What somebody said of a frame."""

    frame: FrameName
    kind: str  # LABEL, UNSURE or SKIP
    label: str = ""  # of the whole frame, else the largest box's
    boxes: tuple[Box, ...] = ()
    by: str = ""  # who
    at: str = ""  # UTC, ISO 8601
    file: str = ""  # the picture in frames/; only of a label
    width: int = 0
    height: int = 0
    version: int | None = None  # of the model that was asked; None: of none
    agreement: float | None = None  # how much the model said the same, 0..1

    def line(self) -> bytes:
        """Return the line of the log."""
        boxes = [[box.label, box.x0, box.y0, box.x1, box.y1] for box in self.boxes]
        values = {name: getattr(self, name) for name in self.__slots__}
        values |= {"frame": list(self.frame), "boxes": boxes}
        kept = {name: v for name, v in values.items() if v is not None and v not in ("", [])}
        return json.dumps(kept).encode() + b"\n"


def read_answers(folder: Path) -> list[Answer]:
    """Return the answers in a folder that count, in their order; any process may ask.

    A line that is not whole yet does not count; one that is damaged is logged and left out.
    """
    try:
        content = (folder / LOG).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    given: list[Answer] = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            values = json.loads(line)
            if values["kind"] != UNDO:
                given.append(_answer(values))
            elif given:
                given.pop()
        except (ValueError, TypeError, KeyError) as error:
            log.warning("%s line %d is damaged and left out: %s", LOG, number, error)
    return given


def _answer(values: Mapping[str, Any]) -> Answer:
    source, topic, stamp_ns = values["frame"]
    boxes = (
        Box(label=str(label), x0=float(x0), y0=float(y0), x1=float(x1), y1=float(y1))
        for label, x0, y0, x1, y1 in values.get("boxes", ())
    )
    given = {name: values[name] for name in Answer.__slots__ if name in values}
    frame = FrameName(str(source), str(topic), int(stamp_ns))
    return Answer(**{**given, "frame": frame, "boxes": tuple(boxes)})


def told(given: Sequence[Answer]) -> dict[str, Any]:
    """Return what `edge-agent status` says of answers, as JSON values."""
    last = {answer.frame: answer for answer in given}.values()
    kinds = Counter(answer.kind for answer in last)
    return {
        "labels": dict(Counter(a.label for a in last if a.kind == LABEL).most_common()),
        "boxes": sum(len(answer.boxes) for answer in last),
        "frames": kinds[LABEL],
        "unsure": kinds[UNSURE],
        "skipped": kinds[SKIP],
        "by": sorted({answer.by for answer in last}),
        "last": max((answer.at for answer in last), default=""),
    }


def in_words(done: Mapping[str, Any]) -> str:
    """Return what `told` counts, for people."""
    counts = ", ".join(f"{count} {name}" for name, count in done["labels"].items() if name)
    words = f"{done['frames']} frames labelled by a person"
    words += f": {counts}" if counts else ""
    words += f" ({done['boxes']} boxes)" if done["boxes"] else ""
    return f"{words}; {done['unsure']} not sure, {done['skipped']} skipped"
