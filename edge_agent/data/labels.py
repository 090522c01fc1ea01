"""Where a frame's label comes from: a topic of its bag, files beside it, its folder's name."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.frames.source import (
    IMAGE_SUFFIXES,
    Entry,
    is_bag,
    is_live,
    open_frames,
    source_kind,
)
from edge_agent.data.label_formats.data_set import (
    FORMATS,
    DataSetFormat,
    LabelledEntry,
    LabelledFrame,
    open_format,
)
from edge_agent.data.label_formats.image_rows import sound_boxes
from edge_agent.data.label_formats.label_topic import TopicMarks, has_topic
from edge_agent.data.label_formats.marks import Mark, Marks, StampMarks
from edge_agent.data.label_formats.table import (
    Labels,
    labels_by_file,
    labels_by_stamp,
    names_files,
)
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Box, Frame

__all__ = [
    "FORMATS",
    "TOLERANCE_S",
    "LabelSettings",
    "LabelledEntry",
    "LabelledFrame",
    "labelled_entries",
    "labelled_frames",
    "open_format",
    "require_label_source",
]

TOLERANCE_S = 0.1  # an annotator answers within milliseconds; three periods of a 30 Hz camera


class LabelSettings(NamedTuple):
    """What the operator says about topics and labels."""

    # Camera topic of a bag, "" takes the only one. Of a data set whose manifest knows topics, only
    # frames of this topic, "" takes all.
    topic: str = ""
    # A label topic of a bag; else a CSV file, or a data set whose frames have stamps: then its
    # labels replace those that are there. "" leaves a bag's frames without labels.
    label_topic: str = ""
    tolerance_s: float = TOLERANCE_S  # how far a label may lie from its frame


def labelled_entries(
    path: Path, settings: LabelSettings, damage: DamageLog
) -> Iterator[LabelledEntry]:
    """Yield every frame at `path` (bag, data set, folder, image), to be loaded with its label.

    The same ones come in the same order at every call, and listing them reads no picture; a live
    topic (see `open_frames`) has no labels and comes once. Labels that cannot be read are added to
    `damage`, some of them only when their frame is loaded.

    Raises:
        FrameError: nothing can be read, there is no such topic, or a topic must be named first.
    """
    if is_live(path):
        yield from _live_entries(path, settings, damage)
    elif _is_bag(path):
        yield from _bag_entries(path, settings, damage)
    else:
        yield from _data_set_entries(path, settings, damage)


def labelled_frames(
    path: Path, settings: LabelSettings, damage: DamageLog
) -> Iterator[LabelledFrame]:
    """Yield every frame at `path` that loads; the others are added to `damage` by their reason."""
    for entry in labelled_entries(path, settings, damage):
        try:
            labelled = entry.load()
        except FrameError as error:
            damage.add(error.reason, str(error))
        else:
            yield labelled


def require_label_source(paths: Iterable[Path], label_topic: str) -> None:
    """Refuse a word that a person gave for labels and that names nothing: a file name mistyped.

    An agent's own setting may name the topic of bags that are not there yet, so only commands ask.

    Raises:
        SettingsError: no path is a bag, which has topics, and there is no file of that name.
        FrameError: one of the paths is not there.
    """
    if not label_topic or Path(label_topic).exists():
        return
    if not any(is_live(path) or _is_bag(path) for path in paths):
        raise SettingsError(
            f"labels {label_topic}: no such file or folder, and only a bag has label topics; name "
            "a CSV file or a data set with stamps"
        )


def _is_bag(path: Path) -> bool:
    """Return whether a bag lies there; raises FrameError if nothing does."""
    if not path.exists():
        raise FrameError(f"{path.name}: no such file or folder", "missing file")
    try:
        return is_bag(path)
    except OSError as error:
        raise FrameError(f"{path.name}: {error.strerror}; who may read it?") from None


def _live_entries(
    path: Path, settings: LabelSettings, damage: DamageLog
) -> Iterator[LabelledEntry]:
    if settings.label_topic:
        raise FrameError(
            f"{path.as_posix()}: is live and has no labels; record a bag of both topics"
        )
    for entry in open_frames(path, settings.topic).entries(damage):
        yield LabelledEntry(entry.time_ns, partial(_load, entry, None, damage))


def _bag_entries(path: Path, settings: LabelSettings, damage: DamageLog) -> Iterator[LabelledEntry]:
    bag = BagFrames(path, settings.topic)
    marks = _bag_marks(bag, settings, damage) if settings.label_topic else None
    for entry in bag.entries(damage):
        yield LabelledEntry(entry.time_ns, partial(_load, entry, marks, damage))


def _bag_marks(bag: BagFrames, settings: LabelSettings, damage: DamageLog) -> Marks | None:
    files = Path(settings.label_topic)
    if files.exists() and not has_topic(bag, settings.label_topic):
        return _file_marks(files, settings.tolerance_s, damage)
    try:
        return TopicMarks(bag, settings.label_topic, settings.tolerance_s, damage)
    except FrameError as error:
        if not _is_damaged(bag):
            raise
        damage.add("missing labels", str(error))  # maybe lost with the end of the file
        return None


def _is_damaged(bag: BagFrames) -> bool:
    found = DamageLog()
    for _ in bag.stored((bag.choose_topic().name,), found):
        pass  # only the index is read
    return bool(found)


def _load(entry: Entry, marks: Marks | None, damage: DamageLog) -> LabelledFrame:
    frame = entry.load()
    mark = marks.find(entry.time_ns, frame) if marks else None
    return _marked(frame, mark.label, mark.boxes, damage) if mark else LabelledFrame(frame, "")


def _data_set_entries(
    path: Path, settings: LabelSettings, damage: DamageLog
) -> Iterator[LabelledEntry]:
    corrections = _corrections(settings, damage)
    others: dict[str, None] = {}
    count = 0
    try:
        for entry in _format_of(path).entries(path, damage):
            if settings.topic and entry.topic not in ("", settings.topic):
                others[entry.topic] = None
                continue
            count += 1
            yield entry._replace(load=partial(_reload, entry, corrections, damage))
    except OSError as error:
        raise FrameError(f"{path.name}: {error.strerror}; who may read it?") from None
    if others and not count:
        listed = ", ".join(list(others)[:5])
        raise FrameError(f"{path.name}: no frame of {settings.topic}; it has frames of {listed}")


def _format_of(path: Path) -> DataSetFormat:
    """Return the first format that knows what lies there. May raise OSError."""
    formats = map(open_format, FORMATS)
    found = next((each for each in formats if each.recognizes(path)), None)
    if found is None:
        source_kind(path)  # raises, and says what is there instead
        raise FrameError(f"{path.name}: is neither a bag nor a data set")
    return found


class _Corrections(NamedTuple):
    by_name: Mapping[str, Labels]  # of images
    by_stamp: StampMarks | None


def _corrections(settings: LabelSettings, damage: DamageLog) -> _Corrections:
    """Return the labels of another file; none where the setting names a bag's topic."""
    files = Path(settings.label_topic)
    if not settings.label_topic or not files.exists():
        return _Corrections({}, None)
    if files.is_file() and files.suffix != ".json" and names_files(files):
        return _Corrections(labels_by_file(files, damage), None)
    return _Corrections({}, _file_marks(files, settings.tolerance_s, damage))


def _reload(entry: LabelledEntry, corrections: _Corrections, damage: DamageLog) -> LabelledFrame:
    labelled = entry.load()
    frame = labelled.frame
    corrected: Labels | Mark | None = corrections.by_name.get(entry.name)
    if corrected is None and corrections.by_stamp is not None:
        corrected = corrections.by_stamp.find(entry.time_ns, frame)
    if corrected is None:
        return labelled
    return _marked(frame, corrected.label, corrected.boxes, damage)


def _file_marks(files: Path, tolerance_s: float, damage: DamageLog) -> StampMarks:
    """Return the labels of a CSV file or of a data set, by stamp."""
    if files.is_file() and files.suffix != ".json":
        if names_files(files):
            expected = "expected the columns stamp_ns,label and for boxes x0,y0,x1,y1"
            raise FrameError(f"{files.name}: names files, which a bag has not; {expected}")
        table = labels_by_stamp(files, damage)
        found = ((stamp_ns, each.topic, Mark(each.label, each.boxes)) for stamp_ns, each in table)
        return StampMarks(found, tolerance_s)
    return StampMarks(_data_set_marks(files, damage), tolerance_s)


def _data_set_marks(path: Path, damage: DamageLog) -> Iterator[tuple[int, str, Mark]]:
    if is_bag(path):
        raise FrameError(f"{path.name}: is a bag; labels of a bag come from its own topics")
    count = 0
    for frame, label, boxes in labelled_frames(path, LabelSettings(), damage):
        if frame.topic.lower().endswith(IMAGE_SUFFIXES):  # a file's own name: no topic, no stamp
            continue
        count += 1
        yield frame.stamp_ns, frame.topic, Mark(label, boxes)
    if not count:
        expected = "expected a data set that was extracted from a bag, with its manifest.csv"
        raise FrameError(f"{path.name}: nothing tells when its frames were taken; {expected}")


def _marked(frame: Frame, label: str, boxes: tuple[Box, ...], damage: DamageLog) -> LabelledFrame:
    if boxes:
        where = f"{frame.source}/{frame.topic.lstrip('/')} at {frame.stamp_ns}"
        boxes = sound_boxes(boxes, frame.width, frame.height, where, damage)
    return LabelledFrame(frame, label, boxes)
