"""What teachers have said of this robot's frames: larger models that a person let look at them.

    state/labels/teachers/
      NAME.jsonl      of one teacher: the first line says who it is, the others are a frame each
      .NAME.jsonl     the same of a new version of it, until all frames have been asked about
      .learned        the frames that had a label which was taken back or replaced, one a line

A frame is named by the key of its example, which stays the same wherever its recording lies: a file
that was made on another computer, with a copy of the recordings, is as good as one made here.
`edge_agent/labeling/teacher` writes these files.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fleet_model.types import Box

TEACHERS = Path("labels", "teachers")  # in the state directory
SUFFIX, LEARNED = ".jsonl", ".learned"
UNSURE, OTHER, UNREADABLE = "unsure", "other", "unreadable"  # why a frame got no label
_WHO = ("teacher", "version", "least", "at", "by")  # of the first line, what is told of a teacher
log = logging.getLogger(__name__)


class Said(NamedTuple):
    """What a teacher has said of one frame."""

    label: str = ""  # of the whole frame
    boxes: tuple[Box, ...] = ()
    score: float = 0.0  # of what it is least sure of
    refused: str = ""  # UNSURE, OTHER or UNREADABLE: it gives no label
    other: str = ""  # of OTHER: a class that the fleet does not learn
    at: str = ""  # UTC, ISO 8601

    def line(self, key: str) -> bytes:
        """Return the line of the file."""
        boxes = [[box.label, box.x0, box.y0, box.x1, box.y1] for box in self.boxes]
        values = {"key": key, **self._asdict(), "boxes": boxes}
        return json.dumps({name: v for name, v in values.items() if v}).encode() + b"\n"


class Told(NamedTuple):
    """The file of one teacher."""

    who: Mapping[str, Any]  # its first line; {}: there is none that can be read
    said: Mapping[str, Said]  # key -> the last that it said of a frame


def read_told(file: Path) -> Told:
    """Return what a teacher's file holds; lines that are damaged are logged and left out."""
    try:
        lines = file.read_bytes().split(b"\n")[:-1]  # one that is not whole yet does not count
    except (FileNotFoundError, NotADirectoryError):
        return Told({}, {})
    except OSError as error:
        log.warning("%s: %s; nothing in it counts", file.name, error.strerror)
        return Told({}, {})
    who = _first(lines[0]) if lines else None
    if who is None:
        log.warning("%s: its first line is damaged; nothing in it counts", file.name)
        return Told({}, {})
    said, damaged = dict[str, Said](), list[str]()
    for number, line in enumerate(lines[1:], 2):
        try:
            values = json.loads(line)
            said |= {str(values["key"]): _said(values)}
        except (ValueError, TypeError, KeyError) as error:
            damaged.append(f"line {number}: {error}")
    if damaged:
        counted = f"{len(damaged)} lines are damaged and left out"
        log.warning("%s: %s; the first, %s", file.name, counted, damaged[0])
    return Told(who, said)


def read_taught(folder: Path) -> dict[str, Said]:
    """Return key -> label of the frames that have one; of two teachers the later one's counts."""
    every = sorted(map(read_told, _files(folder)), key=lambda told: str(told.who.get("at", "")))
    return {k: said for told in every for k, said in told.said.items() if not said.refused}


def place_of(key: str) -> str:
    """Return source, topic and stamp of an example's key: it without the checksum."""
    return key.rpartition("-")[0]


def read_learned(folder: Path) -> set[str]:
    """Return the places of frames that had a label: models may have learned from it."""
    try:
        lines = (folder / LEARNED).read_bytes().split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        log.warning("%s: %s; nothing in it counts", LEARNED, error.strerror)
        return set()
    places = set[str]()
    for number, line in enumerate(lines, 1):
        try:
            places.add(str(json.loads(line)))
        except ValueError:
            log.warning("%s line %d is damaged and left out", LEARNED, number)
    return places


def tell_teachers(folder: Path) -> list[dict[str, Any]]:
    """Return what `edge-agent status` says of each teacher, as JSON values."""
    return [
        {name: told.who.get(name) for name in _WHO} | counted(told.said)
        for told in map(read_told, _files(folder))
        if told.who
    ]


def counted(said: Mapping[str, Said]) -> dict[str, Any]:
    """Return how many frames a teacher was asked about, how many have a label, and why not."""
    boxes = [box.label for one in said.values() for box in one.boxes]
    labels = Counter(boxes or [one.label for one in said.values() if one.label])
    refused = Counter(one.refused for one in said.values())
    others = Counter(one.other for one in said.values() if one.other)
    return {
        "asked": len(said),
        "frames": refused[""],
        "labels": dict(labels.most_common()),
        "boxes": len(boxes),
        "unsure": refused[UNSURE],
        "others": dict(others.most_common()),
        "unreadable": refused[UNREADABLE],
    }


def in_words(told: Mapping[str, Any]) -> str:
    """Return what `counted` counts, for people."""
    counts = ", ".join(f"{count} {name}" for name, count in told["labels"].items())
    words = f"{told['frames']} of {told['asked']} frames labelled"
    words += f": {counts}" if counts else ""
    words += f" ({told['boxes']} boxes)" if told["boxes"] else ""
    words += f"; {told['unsure']} not sure" if told["unsure"] else ""
    if others := told["others"]:
        shown = ", ".join(f"{count} {name}" for name, count in others.items())
        words += f"; show what this fleet does not learn: {shown}"
    return words + (f"; {told['unreadable']} cannot be read" if told["unreadable"] else "")


def _files(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.glob(f"[!.]*{SUFFIX}")))


def _first(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) and values.get("teacher") else None


def _said(values: Mapping[str, Any]) -> Said:
    boxes = tuple(
        Box(label=str(label), x0=float(x0), y0=float(y0), x1=float(x1), y1=float(y1))
        for label, x0, y0, x1, y1 in values.get("boxes", ())
    )
    given = {name: values[name] for name in Said._fields if name in values}
    return Said(**{**given, "boxes": boxes})
