"""Say what is in a bag or a video: topics, rates, gaps, damage, pictures to look at.

The whole bag is read once, and what a reader could trip over is checked; only the few pictures of
the contact sheet are decoded.
"""

from array import array
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.message import frame_of
from edge_agent.data.frames.source import FrameEntry, is_bag, is_live, shown
from edge_agent.data.frames.video.decoder import NO_LIBRARY
from edge_agent.data.frames.video.file import VideoFile
from edge_agent.data.label_formats.videos import is_of_videos, video_names
from edge_agent.data.storage import Stored, Topic
from fleet_model.errors import FrameError
from fleet_model.files.damage import Damage, DamageLog
from fleet_model.types import NS_PER_S, Frame, RgbImage, Tensor

# A gap is at least two lost messages, and longer than what is usual on the topic.
_GAP_MEDIANS, _GAP_USUAL = 2.5, 1.5
_LISTED_GAPS = 100
_PICTURES = 20  # of all topics together, where there are up to four cameras
_FEWEST_PICTURES = 5
_THUMBNAIL = 480  # pixels, the longer side
_FULL_DEPTH = (2, 98)  # percentiles that become the darkest and the brightest color


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without messages on a topic that has them regularly."""

    begins_ns: int  # bag time of the last message before it
    seconds: float


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What one topic has."""

    name: str
    type: str
    messages: int  # that are there; the index of a damaged file may promise more
    rate_hz: float  # on average; 0 where there are fewer than two
    first_ns: int  # bag times; 0 where there are none
    last_ns: int
    gaps: tuple[Gap, ...]  # in their order; of more than 100 the longest
    encoding: str  # as in Topic
    pictures: str  # as BagFrames.kind_of_pictures


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """A frame on the contact sheet."""

    bag_ns: int
    picture: RgbImage | None  # small; None: damaged
    remark: str  # "jpeg 640 x 480"; of a damaged one the reason


@dataclass(frozen=True, eq=False, slots=True)
class CameraSamples:
    """Frames of one camera topic, evenly spaced in time."""

    topic: TopicReport
    samples: tuple[Sample, ...]
    damaged_ns: tuple[int, ...]  # bag times of all frames that cannot be read


@dataclass(frozen=True, eq=False, slots=True)
class Inspection:
    """Everything that was found out about a bag."""

    name: str
    topics: tuple[TopicReport, ...]
    damage: tuple[Damage, ...]
    cameras: tuple[CameraSamples, ...]


Progress: TypeAlias = Callable[[int, int], None]  # (messages read, messages there are)


def inspect(path: Path, progress: Progress | None = None) -> Inspection:
    """Read a bag, a video file or a folder of them.

    Args:
        path: any bag that BagFrames reads, or videos.
        progress: called often.

    Raises:
        FrameError: it is neither, or nothing in it can be read.
    """
    if path.name in ("", ".."):  # "." has a name, too; a link keeps its own
        path = path.resolve()
    if is_live(path):
        raise FrameError(f"{shown(path)}: is live; record a bag or extract it, and inspect that")
    if not path.exists():
        raise FrameError(f"{path.name}: no such file or folder", "missing file")
    if is_bag(path):
        return _inspect_bag(path, progress)
    if is_of_videos(path):
        return _inspect_videos(path, progress)
    expected = "a rosbag2 folder, .mcap, .db3, .bag or video"
    raise FrameError(f"{path.name}: is no bag; expected {expected}")


def is_recording(path: Path) -> bool:
    """Return whether `inspect` is what reads a path, and says what is wrong with it."""
    return is_live(path) or not path.exists() or is_bag(path) or is_of_videos(path)


def _inspect_videos(path: Path, progress: Progress | None) -> Inspection:
    damage, cameras = DamageLog(), list[CameraSamples]()
    names = video_names(path, damage)
    each = max(_FEWEST_PICTURES, _PICTURES // len(names))
    for name in names:
        file = path / name if path.is_dir() else path
        video = VideoFile(file.resolve(), path.name, name)
        try:
            times = np.array([entry.time_ns for entry in video.entries(damage)], np.int64)
            wanted = evenly_spaced(times, each) if len(times) else frozenset()
            seen = _read_frames(video.entries(DamageLog()), wanted, damage, progress, len(times))
        except FrameError as error:
            if error.reason == NO_LIBRARY:
                raise
            damage.add(error.reason, str(error))
            times, seen = np.array([], np.int64), _Seen()
        report = _report(Topic(name, seen.kind or "video", "", "", 0), "video", times)
        cameras.append(CameraSamples(report, tuple(seen.samples), tuple(seen.damaged_ns)))
    return Inspection(path.name, tuple(c.topic for c in cameras), damage.all(), tuple(cameras))


def _inspect_bag(path: Path, progress: Progress | None) -> Inspection:
    bag, damage = BagFrames(path), DamageLog()
    topics = {topic.name: topic for topic in bag.topics()}
    times = {name: array("q") for name in topics}
    for stored in bag.stored(topics, damage):
        times[stored.topic.name].append(stored.bag_ns)
    kinds = {name: bag.kind_of_pictures(topic) for name, topic in topics.items()}
    cameras = [name for name in topics if kinds[name] in ("read", "video") and times[name]]
    each = max(_FEWEST_PICTURES, _PICTURES // max(1, len(cameras)))
    wanted = {name: evenly_spaced(np.array(times[name]), each) for name in cameras}
    videos = [name for name in cameras if kinds[name] == "video"]
    total = sum(map(len, times.values()))
    seen = _read_all(bag, topics.keys() - videos, wanted, damage, progress, total)
    for name in videos:
        entries = BagFrames(path, name).entries(DamageLog())
        try:
            seen[name] = _read_frames(entries, wanted[name], damage, progress, total)
        except FrameError as error:
            if error.reason != NO_LIBRARY:
                raise
            cameras.remove(name)  # a bag has other topics as well
    reports = {
        name: _report(topics[name], kinds[name], np.sort(np.array(times[name]))) for name in topics
    }
    return Inspection(
        name=bag.path.name,
        topics=tuple(reports.values()),
        damage=damage.all(),
        cameras=tuple(
            CameraSamples(reports[name], tuple(seen[name].samples), tuple(seen[name].damaged_ns))
            for name in cameras
        ),
    )


def evenly_spaced(times_ns: NDArray[np.int64], count: int) -> frozenset[int]:
    """Return the indexes of at most `count` times that lie nearest to an even spacing."""
    order = np.argsort(times_ns, kind="stable")
    times = times_ns[order] - times_ns[order[0]]  # small numbers: float64 holds them exactly
    wanted = np.linspace(0.0, float(times[-1]), count)
    after = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(times) - 1)
    nearest = np.where(wanted - times[before] <= times[after] - wanted, before, after)
    return frozenset(int(index) for index in order[np.unique(nearest)])


def find_gaps(times_ns: NDArray[np.int64]) -> tuple[Gap, ...]:
    """Return the gaps between sorted times."""
    if len(times_ns) < 4:
        return ()
    steps = np.diff(times_ns)
    limit = max(_GAP_MEDIANS * np.median(steps), _GAP_USUAL * np.percentile(steps, 95))
    positions = np.flatnonzero(steps > limit)
    longest = np.sort(positions[np.argsort(-steps[positions], kind="stable")][:_LISTED_GAPS])
    return tuple(
        Gap(int(times_ns[position]), float(steps[position]) / NS_PER_S) for position in longest
    )


def _report(topic: Topic, pictures: str, times_ns: NDArray[np.int64]) -> TopicReport:
    count = len(times_ns)
    first, last = (int(times_ns[0]), int(times_ns[-1])) if count else (0, 0)
    return TopicReport(
        name=topic.name,
        type=topic.type,
        encoding=topic.encoding,
        pictures=pictures,
        messages=count,
        rate_hz=(count - 1) * NS_PER_S / (last - first) if last > first else 0.0,
        first_ns=first,
        last_ns=last,
        gaps=find_gaps(times_ns),
    )


@dataclass(slots=True)
class _Seen:
    messages: int = 0
    kind: str = ""  # of a video: its codec
    samples: list[Sample] = field(default_factory=list)
    damaged_ns: "array[int]" = field(default_factory=lambda: array("q"))


def _read_all(
    bag: BagFrames,
    topics: Collection[str],
    wanted: dict[str, frozenset[int]],
    damage: DamageLog,
    progress: Progress | None,
    total: int,
) -> dict[str, _Seen]:
    """Load every message, add to `damage` what fails, return the wanted pictures by topic."""
    seen = {name: _Seen() for name in topics}
    known = DamageLog()  # listing finds the same damage as before
    for count, stored in enumerate(bag.stored(topics, known), 1):
        name = stored.topic.name
        is_wanted = seen[name].messages in wanted.get(name, ())
        seen[name].messages += 1
        try:
            sample = _sample(stored, bag.path.name, name in wanted, is_wanted)
        except FrameError as error:
            damage.add(error.reason, str(error))
            sample = Sample(stored.bag_ns, None, error.reason)
            seen[name].damaged_ns.append(stored.bag_ns)
        if is_wanted:
            seen[name].samples.append(sample)
        if progress:
            progress(count, total)
    for found in seen.values():
        found.samples.sort(key=lambda sample: sample.bag_ns)
    return seen


def _read_frames(
    entries: Iterator[FrameEntry],
    wanted: frozenset[int],
    damage: DamageLog,
    progress: Progress | None,
    total: int,
) -> _Seen:
    """Do what `_read_all` does with the frames of one video."""
    seen = _Seen()
    for number, entry in enumerate(entries):
        try:
            frame = entry.load()
            picture = _thumbnail(frame) if number in wanted else None
            seen.kind = frame.format
            sample = Sample(entry.time_ns, picture, _remark(frame))
        except FrameError as error:
            damage.add(error.reason, str(error))
            sample = Sample(entry.time_ns, None, error.reason)
            seen.damaged_ns.append(entry.time_ns)
        if number in wanted:
            seen.samples.append(sample)
        if progress:
            progress(number + 1, total)
    return seen


def _remark(frame: Frame) -> str:
    return f"{frame.format} {frame.width} x {frame.height}"


def _sample(stored: Stored, source: str, is_camera: bool, is_wanted: bool) -> Sample:
    """Read one message; a camera's is decoded only if it is wanted."""
    content = stored.load()
    if not is_camera:
        return Sample(stored.bag_ns, None, "")
    frame = frame_of(content, stored.topic, source, stored.bag_ns)
    picture = _thumbnail(frame) if is_wanted else None
    return Sample(stored.bag_ns, picture, _remark(frame))


def _thumbnail(frame: Frame) -> RgbImage:
    import cv2

    try:
        picture = frame.decode()
    except FrameError as error:
        if error.reason != "not a color picture" or frame.pixels is None:
            raise
        picture = _in_colors(frame.pixels())
    height, width = picture.shape[:2]
    factor = min(1.0, _THUMBNAIL / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _in_colors(pixels: Tensor) -> RgbImage:
    """Return depth or data from blue (low) to red; black where there is none."""
    import cv2

    values = (pixels if pixels.ndim == 2 else pixels[..., 0]).astype(np.float32)
    known = np.isfinite(values) & (values != 0)
    if not known.any():
        return np.zeros((*values.shape, 3), np.uint8)
    low, high = np.percentile(values[known], _FULL_DEPTH)
    scaled = np.clip((np.where(known, values, low) - low) / max(high - low, 1e-9), 0, 1)
    colors = cv2.applyColorMap((scaled * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    colors[~known] = 0
    return np.ascontiguousarray(colors[..., ::-1])
