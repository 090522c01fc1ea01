"""Video files as labelled frames: who says when in a video is what.

A table says it: a file that the operator names, `clip.csv` beside `clip.mp4`, or `labels.csv` in
the folder. Its lines are `start_s,end_s,label`, with `file` where there are several videos. Without
any table, a folder's name is the label of the videos in it where `class_folders` says so.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from edge_agent.data.frames.source import (
    FrameEntry,
    FrameFacts,
    image_files,
    is_video,
)
from edge_agent.data.frames.video.file import VideoFile
from edge_agent.data.label_formats.class_folders import folder_labels
from edge_agent.data.label_formats.data_set import LabelledEntry, LabelledFrame, clean_text
from edge_agent.data.label_formats.folder import LABELS
from edge_agent.data.label_formats.marks import Mark
from edge_agent.data.manifest import columns_of, read_table
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import files_below
from fleet_model.types import NS_PER_S

EXPECTED = "[file,]start_s,end_s,label"


def is_of_videos(path: Path) -> bool:
    """Return whether `path` is a video, or a folder with videos and without images."""
    if not path.is_dir():
        return is_video(path)
    return next(image_files(path, lambda *_: None), None) is None and bool(video_names(path))


def video_names(path: Path, damage: DamageLog | None = None) -> list[str]:
    """Return the videos in a folder and its folders, in the order of names; itself if it is one.

    Folders that cannot be listed are added to `damage`.
    """
    if not path.is_dir():
        return [path.name] if is_video(path) else []

    def unlisted(folder: Path, error: OSError) -> None:
        if damage is not None:
            where = f"{path.name}/{folder.relative_to(path).as_posix()}".removesuffix("/.")
            damage.add("unreadable", f"{where}: {error.strerror}")

    found = files_below(path, unlisted)
    return sorted(file.relative_to(path).as_posix() for file in found if is_video(file))


def label_files(path: Path, named: str) -> list[Path]:
    """Return the tables that label the videos at `path`, there or not, the strongest first.

    Args:
        path: a video or a folder of them.
        named: by the operator; "" is none.
    """
    root = path if path.is_dir() else path.parent
    beside = [(root / name).with_suffix(".csv") for name in video_names(path)]
    return [*([Path(named)] if is_table(named) else []), *beside, root / LABELS]


def is_table(named: str) -> bool:
    """Return whether what the operator names for labels is a table of times in videos."""
    file = Path(named)
    if not named or not file.is_file() or file.suffix == ".json":
        return False
    return "stamp_ns" not in columns_of(file)


def video_entries(path: Path, named: str, damage: DamageLog) -> Iterator[LabelledEntry]:
    """Yield every frame of the videos at `path`, video after video; see `labelled_entries`.

    Args:
        path: a video or a folder of them.
        named: a table that replaces those beside the videos; "" is none.
        damage: gets what cannot be read.

    Raises:
        FrameError: the table that was named cannot be read, or not one video.
    """
    path = path.resolve()
    root, names = path if path.is_dir() else path.parent, video_names(path, damage)
    spans = _spans(path, root, names, named, damage)
    failures: list[FrameError] = []
    for name in names:
        video = VideoFile(root / name, path.name, name)
        try:
            for entry in video.entries(damage):
                yield _labelled(entry, partial(_mark, spans.get(name, ()), entry.time_ns))
        except FrameError as error:
            failures.append(error)
            damage.add(error.reason, str(error))
    if failures and len(failures) == len(names):
        raise failures[0]


class _Span(NamedTuple):
    """A time in a video; of one that has no end, the next one of its table ends it."""

    start_ns: int
    end_ns: int
    label: str


_ENDLESS_NS = 1 << 62
_Spans = Mapping[str, tuple[_Span, ...]]  # of each video


def _labelled(entry: FrameEntry, mark: "partial[Mark]") -> LabelledEntry:
    load = partial(_load, entry, mark)
    return LabelledEntry(entry.time_ns, load, entry.topic, place=entry.place, mark=mark)


def _load(entry: FrameEntry, mark: "partial[Mark]") -> LabelledFrame:
    frame = entry.load()
    return LabelledFrame(frame, *mark(frame))


def _mark(spans: tuple[_Span, ...], time_ns: int, _: FrameFacts) -> Mark:
    """Return the label of the span that began last."""
    found = [span for span in spans if span.start_ns <= time_ns < span.end_ns]
    return Mark(found[-1].label if found else "", seen=False)


def _spans(path: Path, root: Path, names: list[str], named: str, damage: DamageLog) -> _Spans:
    if is_table(named):
        return _read(Path(named), names, damage)
    spans: dict[str, tuple[_Span, ...]] = {}
    has_table = False
    tables = [(root / LABELS, names), *(((root / n).with_suffix(".csv"), [n]) for n in names)]
    for table, of in tables:
        if not table.is_file():
            continue
        has_table = True
        try:
            spans.update(_read(table, of, damage))
        except FrameError as error:
            damage.add("bad label file", f"{path.name}: {error}")
    if has_table:
        return spans
    return {
        name: (_Span(0, _ENDLESS_NS, label),) for name, label in folder_labels(names).labels.items()
    }


def _read(table: Path, names: list[str], damage: DamageLog) -> _Spans:
    """Return what a table says of each video; raises FrameError if it is no such table."""
    rows: list[tuple[str, int, int | None, str]] = []
    if len(names) > 1 and "file" not in columns_of(table):
        raise FrameError(
            f"{table.name}: does not say which of {len(names)} videos it means; expected the "
            f"columns {EXPECTED}"
        )
    for line, cells in read_table(table, ("label",), damage):
        where = f"{table.name} line {line}"
        try:
            name = _video(cells.get("file", "").strip() or names[0], names)
            start_ns = _time_ns(cells.get("start_s", "")) or 0
            rows.append((name, start_ns, _time_ns(cells.get("end_s", "")), cells["label"]))
        except (ValueError, KeyError) as error:
            damage.add("bad label line", f"{where}: {error.args[0]}")
        except LookupError:
            damage.add("label of no video", where)
    return {
        name: tuple(_ended([row[1:] for row in of]))
        for name, of in groupby(sorted(rows, key=lambda row: row[:2]), key=lambda row: row[0])
    }


def _ended(rows: list[tuple[int, int | None, str]]) -> Iterator[_Span]:
    starts = [start_ns for start_ns, _, _ in rows]
    for start_ns, end_ns, label in rows:
        following = next((other for other in starts if other > start_ns), _ENDLESS_NS)
        yield _Span(start_ns, following if end_ns is None else end_ns, clean_text(label).strip())


def _video(name: str, names: list[str]) -> str:
    """Return the video that a line names, by its path in the folder or its bare name."""
    wanted = name.replace("\\", "/").removeprefix("./")
    same = [n for n in names if n == wanted] or [n for n in names if n.endswith(f"/{wanted}")]
    if len(same) != 1:
        raise LookupError
    return same[0]


def _time_ns(text: str) -> int | None:
    """Return "12.5", "1:02.5" or "1:00:02.5" in ns; None for ""."""
    parts = text.strip().split(":")
    if parts == [""]:
        return None
    if len(parts) > 3 or not all(part.replace(".", "", 1).isdecimal() for part in parts):
        raise ValueError(f"the time {text[:40]!r}, expected 12.5 or 1:02.5")
    seconds = Fraction(0)
    for part in parts:
        seconds = seconds * 60 + Fraction(part)
    return round(seconds * NS_PER_S)
