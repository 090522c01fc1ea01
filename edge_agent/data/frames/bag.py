"""Read the messages of ROS 1 and ROS 2 bags, camera frames above all. Never needs ROS."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from edge_agent.data.frames.damage import SEVERAL_CAMERAS, WRONG_CAMERA_TOPIC
from edge_agent.data.frames.message import CAMERA_TYPES, frame_of
from edge_agent.data.frames.source import FrameEntry, Place, storage_suffix
from edge_agent.data.frames.video.topic import is_video_type, split_video, video_entries
from edge_agent.data.storage import Stored, Topic
from edge_agent.data.storage.open_storage import OpenStorage
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Frame

_NO_PICTURES = "/compressedDepth"  # CompressedImage by type, but no camera picture
_ENCODINGS = ("cdr", "ros1")
_LISTED = re.compile(rb"relative_file_paths:[ \t]*\r?\n((?:[ \t]*-[ \t]+[^\r\n]+\r?\n)+)")
_METADATA_LIMIT = 64 << 20  # bytes; holds every message definition and file name of a split bag
# Types that seem to hold pictures, but for those that only describe them.
_PICTURES = re.compile(
    r"(?i)(image|picture|video|theora|ffmpeg|jpe?g|h\.?26[45])(?!.*(info|mark|annot))"
)
_SHOWN = 10  # topics in a message
_KEPT_OPEN = 2  # files; finding the topics and then reading a bare file unpacks it once


class BagFrames:
    """The frames of one camera topic of one bag, in the order of recording.

    A bag is a storage file, or a folder of them that are read in the order of their numbers.
    metadata.yaml is not needed: it only lists the files that ought to be there.

    A frame's file stays open for as long as anybody holds an Entry or a Stored of it, so both may
    be loaded at any time, from any thread, also after the iteration has ended.
    """

    def __init__(self, path: Path, topic: str = "") -> None:
        """Keep what to read; `topic` "" takes the only camera topic. Nothing is opened yet."""
        self.path = path.resolve()
        self.topic = topic
        self._open: dict[Path, OpenStorage] = {}  # the last ones, oldest first

    def entries(self, damage: DamageLog) -> Iterator[FrameEntry]:
        """Yield every frame of the camera topic, the same ones in the same order at every call.

        Raises:
            FrameError: no file can be read, or the topic must be named first.
        """
        chosen = self.choose_topic()
        source = self.path.name
        numbered = self._numbered((chosen.name,), damage)
        has_video, cameras = split_video(each for each in numbered if _is_camera(each[2].topic))
        if has_video:
            yield from video_entries(cameras, source)
            return
        for file, at, stored in cameras:
            load = partial(_load_frame, stored, source)
            yield FrameEntry(stored.bag_ns, load, chosen.name, Place(file, at))

    def stored(self, topics: Collection[str], damage: DamageLog) -> Iterator[Stored]:
        """Yield the messages of topics (by name) over all files, file after file.

        Raises:
            FrameError: no file of the bag can be read.
        """
        for _, _, stored in self._numbered(topics, damage):
            yield stored

    def topics(self) -> list[Topic]:
        """Return every topic of every readable file by name, the messages of all files counted.

        Raises:
            FrameError: no file of the bag can be read.
        """
        merged: dict[tuple[str, str, str], Topic] = {}
        for opened in self._readable(DamageLog()):
            for topic in opened.topics():
                key = (topic.name, topic.type, topic.encoding)
                known = merged.get(key, topic._replace(messages=0))
                definition = known.definition or topic.definition
                merged[key] = known._replace(
                    messages=known.messages + topic.messages, definition=definition
                )
        return sorted(merged.values())

    def kind_of_pictures(self, topic: Topic) -> str:
        """Return "read", "video", "not read" of a type that seems to hold pictures; "" of others.

        Raises:
            FrameError: no file of the bag can be read.
        """
        if not _is_camera(topic):
            return "not read" if _PICTURES.search(topic.type) else ""
        has_video, _ = split_video(self._numbered((topic.name,), DamageLog()))
        return "video" if has_video else "read"

    def choose_topic(self) -> Topic:
        """Return the named camera topic, or the only one that has messages.

        Raises:
            FrameError: there is none of that name, or several to choose from.
        """
        topics = self.topics()
        cameras = [topic for topic in topics if _is_camera(topic)]
        counts = Counter[str]()
        for camera in cameras:
            counts[camera.name] += camera.messages
        name = self.topic or _only(counts)
        found = next((camera for camera in cameras if camera.name == name), None)
        if found is not None:
            return found._replace(messages=counts[name])
        listed = ", ".join(f"{topic} ({count} messages)" for topic, count in sorted(counts.items()))
        if self.topic or not cameras:
            missing = f"no camera topic {self.topic}".strip()
            words = f"{self.path.name}: {missing}; it has {listed or _others(topics)}"
            raise FrameError(words, WRONG_CAMERA_TOPIC)
        named = "name one camera topic (--topic; in agent.toml examples.topic)"
        raise FrameError(f"{self.path.name}: {named}: {listed}", SEVERAL_CAMERAS)

    def _numbered(
        self, topics: Collection[str], damage: DamageLog
    ) -> Iterator[tuple[Path, int, Stored]]:
        """Yield the messages with their file and their number in it."""
        for name in _missing_files(self.path, self._files()):
            damage.add("missing file", f"{self.path.name}/{name}, which metadata.yaml lists")
        for opened in self._readable(damage):
            for at, stored in enumerate(opened.messages(topics, damage)):
                yield opened.path, at, stored

    def _files(self) -> list[Path]:
        """Return the storage files in the order of their numbers."""
        try:
            if not self.path.exists():
                raise FrameError(f"{self.path.name}: no such file or folder", "missing file")
            if not self.path.is_dir():
                return [self.path]
            files = [f for f in self.path.iterdir() if storage_suffix(f.name) and f.is_file()]
        except OSError as error:
            reason = f"{self.path.name}: {error.strerror}; who may read it?"
            raise FrameError(reason) from None
        return sorted(_without_copies(files, self.path), key=_by_number)

    def _readable(self, damage: DamageLog) -> Iterator[OpenStorage]:
        """Yield the files that can be opened; raises FrameError if there is none."""
        failures: list[FrameError] = []
        files = self._files()
        for file in files:
            try:
                opened = self._opened(file)
            except FrameError as error:
                failures.append(error)
                damage.add(error.reason, str(error))
            else:
                yield opened
        if len(failures) == len(files):
            none = f"{self.path.name}: holds no .mcap, .db3 or .bag file"
            raise failures[0] if failures else FrameError(none, "missing file")

    def _opened(self, file: Path) -> OpenStorage:
        opened = self._open.pop(file, None) or OpenStorage(file)
        self._open[file] = opened
        while len(self._open) > _KEPT_OPEN:
            del self._open[next(iter(self._open))]
        return opened


def _is_camera(topic: Topic) -> bool:
    picture = topic.type in CAMERA_TYPES and topic.encoding in _ENCODINGS
    return picture or is_video_type(topic)


def _others(topics: list[Topic]) -> str:
    """Return what a bag without a camera has: what seems to hold pictures, else all topics."""
    pictures = [topic for topic in topics if _PICTURES.search(topic.type)]
    shown = pictures or topics
    names = [f"{t.name} ({t.type}, {t.encoding}, {t.messages} messages)" for t in shown[:_SHOWN]]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    unread = ", which is not read" if pictures else ""
    expected = f"{', '.join(CAMERA_TYPES)} or video (docs/data.md)"
    return f"{', '.join(names) or 'no topic at all'}{more}{unread}; expected {expected}"


def _load_frame(stored: Stored, source: str) -> Frame:
    return frame_of(stored.load(), stored.topic, source, stored.bag_ns)


def _only(counts: Counter[str]) -> str:
    """Return the topic that needs no choice, or ""."""
    names = list(counts)
    recorded = [name for name in names if counts[name]] or names
    pictures = [name for name in recorded if not name.endswith(_NO_PICTURES)] or recorded
    return pictures[0] if len(pictures) == 1 else ""


def _listed(folder: Path) -> list[str]:
    """Return the names in metadata.yaml; [] where it is missing or damaged."""
    try:
        with (folder / "metadata.yaml").open("rb") as stream:
            match = _LISTED.search(stream.read(_METADATA_LIMIT))
    except OSError:
        return []
    lines = match[1].decode(errors="replace").splitlines() if match else []
    # Old bags list "folder/file".
    return [line.strip()[1:].strip(" \t\"'").rpartition("/")[2] for line in lines]


def _missing_files(path: Path, files: list[Path]) -> list[str]:
    if not path.is_dir():
        return []
    there = {_bare(file.name) for file in files}
    listed = [name for name in _listed(path) if storage_suffix(name)]
    return [name for name in listed if _bare(name) not in there]


def _bare(name: str) -> str:
    """Return the name without ".zstd"; disks of other systems change the case of names."""
    return name.lower().removesuffix(".zstd")


def _without_copies(files: list[Path], folder: Path) -> list[Path]:
    """Leave out one of x.db3 and x.db3.zstd where both are there.

    Playing a compressed bag unpacks its files beside the compressed ones; a crash while recording
    leaves the compressed one unfinished, but then metadata.yaml does not list it yet.
    """
    names = {file.name for file in files}
    doubled = {name for name in names if f"{name}.zstd" in names}
    if not doubled:
        return files
    listed = _listed(folder)
    left_out = {name if f"{name}.zstd" in listed else f"{name}.zstd" for name in doubled}
    return [file for file in files if file.name not in left_out]


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sort rec_10.mcap after rec_9.mcap."""
    parts = re.split(r"([0-9]{1,18})", path.name)
    return [(int(part) if part.isdecimal() else -1, part) for part in parts]
