"""Where a frame's label comes from: a topic of its bag, files beside it, its folder's name."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.live import open_live
from edge_agent.data.frames.source import (
    IMAGE_SUFFIXES,
    FrameEntry,
    FrameFacts,
    is_bag,
    is_live,
    nothing_to_read,
    shown,
)
from edge_agent.data.label_formats.annotations.told import PictureLabels, labels_by_image
from edge_agent.data.label_formats.data_set import (
    FORMATS,
    DataSetFormat,
    LabelledEntry,
    LabelledFrame,
    open_format,
)
from edge_agent.data.label_formats.image_rows import sound_boxes
from edge_agent.data.label_formats.label_topic import TopicMarks, has_topic
from edge_agent.data.label_formats.marks import UNSEEN, Mark, Marks, StampMarks, is_seen
from edge_agent.data.label_formats.table import (
    BY_FILE,
    BY_STAMP,
    labels_by_stamp,
    renamed,
    told_by_table,
)
from edge_agent.data.label_formats.videos import (
    is_of_videos,
    is_table,
    video_entries,
    video_names,
)
from edge_agent.data.manifest import columns_of
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box, Frame

__all__ = [
    "FORMATS",
    "TOLERANCE_S",
    "LabelSettings",
    "LabelledEntry",
    "LabelledFrame",
    "Recording",
    "count_frames",
    "is_bag_at",
    "is_damaged",
    "labelled_entries",
    "labelled_frames",
    "open_format",
]

Labelled: TypeAlias = tuple[FrameFacts, str, tuple[Box, ...], bool]
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
    topic, "ros:/camera/image", has no labels and comes once. Labels that cannot be read are added
    to `damage`, some of them only when their frame is loaded.

    Raises:
        FrameError: nothing can be read, there is no such topic, or a topic must be named first.
    """
    if is_live(path):
        yield from _live_entries(path, settings, damage)
        return
    recording = open_recording(path, settings)
    if recording.has_own_topic:
        yield from recording.entries(damage)
        return
    corrections = Corrections(path, settings, damage)
    yield from map(corrections.applied, recording.entries(damage))


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


def count_frames(path: Path, topic: str) -> int:
    """Return how many frames a recording lists, its labels aside; raises as `labelled_entries`."""
    return sum(1 for _ in labelled_entries(path, LabelSettings(topic), DamageLog()))


def is_bag_at(path: Path) -> bool:
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
        raise FrameError(f"{shown(path)}: is live and has no labels; record a bag of both topics")
    for entry in open_live(path, settings.topic).entries(damage):
        yield _entry_of(entry, _no_mark)


class Recording(NamedTuple):
    """A bag or a data set with the labels that it holds itself."""

    # Labels come from a topic of the bag, so no other file replaces them.
    has_own_topic: bool
    entries: Callable[[DamageLog], Iterator[LabelledEntry]]  # as labelled_entries


def open_recording(path: Path, settings: LabelSettings) -> Recording:
    """Return what lies at `path`; raises FrameError if nothing there can be read."""
    if not is_bag_at(path):
        if is_of_videos(path):
            named = settings.label_topic
            return Recording(is_table(named), partial(video_entries, path, named))
        return Recording(False, partial(_data_set_entries, path, settings))
    bag = BagFrames(path, settings.topic)
    named = settings.label_topic
    own = bool(named) and not (Path(named).exists() and not has_topic(bag, named))
    return Recording(own, partial(_bag_entries, bag, settings if own else None))


def _bag_entries(
    bag: BagFrames, labels: LabelSettings | None, damage: DamageLog
) -> Iterator[LabelledEntry]:
    marks = _topic_marks(bag, labels, damage) if labels else None
    mark_of = partial(_found_mark, marks, damage) if marks else None
    for entry in bag.entries(damage):
        yield _entry_of(entry, partial(mark_of, entry.time_ns) if mark_of else _no_mark)


def _entry_of(entry: FrameEntry, mark: Callable[[FrameFacts], Mark]) -> LabelledEntry:
    load = partial(_load, entry.load, mark)
    return LabelledEntry(entry.time_ns, load, entry.topic, place=entry.place, mark=mark)


def _load(load: Callable[[], Frame], mark: Callable[[FrameFacts], Mark]) -> LabelledFrame:
    frame = load()
    return LabelledFrame(frame, *mark(frame))


def _no_mark(_: FrameFacts) -> Mark:
    return UNSEEN


def _found_mark(marks: Marks, damage: DamageLog, time_ns: int, facts: FrameFacts) -> Mark:
    mark = marks.find(time_ns, facts)
    return _sound(mark, facts, damage) if mark else UNSEEN


def _topic_marks(bag: BagFrames, labels: LabelSettings, damage: DamageLog) -> Marks | None:
    try:
        return TopicMarks(bag, labels.label_topic, labels.tolerance_s, damage)
    except FrameError as error:
        if not is_damaged(bag):
            raise
        damage.add("missing labels", str(error))  # maybe lost with the end of the file
        return None


def is_damaged(bag: BagFrames) -> bool:
    """Return whether frames are lost in it; raises FrameError if a camera must be named."""
    found = DamageLog()
    for _ in bag.stored((bag.choose_topic().name,), found):
        pass  # only the index is read
    return bool(found)


def _data_set_entries(
    path: Path, settings: LabelSettings, damage: DamageLog
) -> Iterator[LabelledEntry]:
    others: dict[str, None] = {}
    count = 0
    for name in video_names(path) if path.is_dir() else ():
        damage.add(
            "video beside images", f"{path.name}/{name}; videos are read from folders of their own"
        )
    try:
        for entry in _format_of(path).entries(path, damage):
            if settings.topic and entry.topic not in ("", settings.topic):
                others[entry.topic] = None
                continue
            count += 1
            yield entry
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
        raise nothing_to_read(path)
    return found


class Corrections:
    """The labels of another file, which replace those of a recording."""

    def __init__(
        self,
        path: Path,
        settings: LabelSettings,
        damage: DamageLog,
        listed: Callable[[Path, LabelSettings, DamageLog], Iterable[Labelled]] = labelled_frames,
    ) -> None:
        """Read the file; there are none where the setting names no file.

        Args:
            path: the recording.
            settings: its `label_topic` may name the file.
            damage: gets the labels that cannot be read.
            listed: how the frames of a data set are listed whose labels are taken.

        Raises:
            FrameError: the file cannot be read, or it names images and the recording is a bag.
        """
        self._damage, self._listed = damage, listed
        self._by_name: Mapping[str, PictureLabels] = {}  # of images
        self._by_stamp: StampMarks | None = None
        file = Path(settings.label_topic)
        if not settings.label_topic or not file.exists():
            return
        if not (file.is_file() and file.suffix != ".json"):
            self._by_stamp = StampMarks(self._marks_of(file), settings.tolerance_s)
        elif _has_stamps(file, path):
            rows = labels_by_stamp(file, damage)
            found = ((stamp, each.topic, each.mark) for stamp, each in rows)
            self._by_stamp = StampMarks(found, settings.tolerance_s)
        else:
            told = told_by_table(file, file.name, damage)
            names = [each.name for each in _data_set_entries(path, LabelSettings(), DamageLog())]
            self._by_name = labels_by_image("", filter(None, names), told, damage)

    def __bool__(self) -> bool:
        return bool(self._by_name) or self._by_stamp is not None

    def find(self, name: str, time_ns: int, facts: FrameFacts) -> Mark | None:
        """Return the mark that replaces a frame's own; None without one."""
        labels = self._by_name.get(name)
        if labels:
            return labels.mark(facts, f"{facts.source}/{name}", self._damage)
        mark = self._by_stamp.find(time_ns, facts) if self._by_stamp is not None else None
        return _sound(mark, facts, self._damage) if mark else None

    def applied(self, entry: LabelledEntry) -> LabelledEntry:
        """Return the entry with the label that this file gives it."""
        return entry._replace(load=partial(self._reload, entry)) if self else entry

    def _reload(self, entry: LabelledEntry) -> LabelledFrame:
        labelled = entry.load()
        mark = self.find(entry.name, entry.time_ns, labelled.frame)
        return LabelledFrame(labelled.frame, *mark) if mark else labelled

    def _marks_of(self, path: Path) -> Iterator[tuple[int, str, Mark]]:
        if is_bag(path):
            raise FrameError(f"{path.name}: is a bag; labels of a bag come from its own topics")
        count = 0
        for facts, label, boxes, seen in self._listed(path, LabelSettings(), self._damage):
            if facts.topic.lower().endswith(IMAGE_SUFFIXES):  # a file's own name: no stamp
                continue
            count += 1
            yield facts.stamp_ns, facts.topic, Mark(label, boxes, seen)
        if not count:
            expected = "expected a data set that was extracted from a bag, with its manifest.csv"
            raise FrameError(f"{path.name}: nothing says when its frames were taken; {expected}")


def _has_stamps(table: Path, recording: Path) -> bool:
    """Return whether a table names frames by stamp, not by file; raises FrameError if by neither.

    A bag has no files, so its table needs stamps.
    """
    columns, is_bag_there = renamed(columns_of(table)), is_bag_at(recording)
    if "stamp_ns" in columns:
        return True
    if "file" in columns and "label" in columns and not is_bag_there:
        return False
    what = "names files, which a bag has not" if "file" in columns else "has no column stamp_ns"
    if not is_bag_there:
        what = "its first line names no column file and label"
    expected = BY_STAMP if is_bag_there else f"{BY_FILE}, or {BY_STAMP}"
    raise FrameError(f"{table.name}: {what}; expected {expected}")


def _sound(mark: Mark, facts: FrameFacts, damage: DamageLog) -> Mark:
    if not mark.boxes:
        return mark
    where = f"{facts.source}/{facts.topic.lstrip('/')} at {facts.stamp_ns}"
    sound = sound_boxes(mark.boxes, facts.width, facts.height, where, damage)
    return Mark(mark.label, sound, is_seen(mark.boxes, sound, mark.seen))
