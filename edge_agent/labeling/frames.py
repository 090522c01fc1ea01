"""Which frames of this robot a person may be asked about."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from edge_agent.data.frames.damage import WRONG_LABEL_TOPIC
from edge_agent.data.frames.source import is_live
from edge_agent.data.labels import LabelSettings
from edge_agent.examples.frame_index import FrameIndex
from edge_agent.examples.known_frames import KnownFrames, KnownLabelled, recordings_in
from edge_agent.examples.lazy_frame import LazyFrame
from edge_agent.examples.spool.kept_examples import KeptExamples
from edge_agent.examples.spool.recordings import POWER_LOSS_S, Recording, find_recordings
from edge_agent.examples.spool.watch import FOLDER as KEPT
from edge_agent.labeling.answer import FrameName
from edge_agent.robot.settings import FRAMES, AgentSettings
from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

MOST = 4000  # that are looked at: at 20 ms each the model has seen them in 80 s
INDEX = "known-frames"  # beside the answers


class Candidate(NamedTuple):
    """A frame that a person may be asked about."""

    name: FrameName
    frame: LazyFrame
    label: str = ""  # that its recording gives it
    boxes: tuple[Box, ...] = ()


class KeptFrames:
    """The frames in the robot's data folders, its spool and its own store."""

    def __init__(
        self,
        settings: AgentSettings,
        index: Path,
        *,
        boxes: bool,
        everything: bool = False,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Keep what to read; nothing is opened yet.

        Args:
            settings: of this robot.
            index: folder that remembers what is known of frames, so that they are read once.
            boxes: whether boxes are wanted: a frame that has only a label is then one without.
            everything: also frames that have what is wanted already.
            now_s: Unix time.
        """
        self._settings, self._index = settings, index
        self._boxes, self._everything, self._now_s = boxes, everything, now_s
        self.problems: list[str] = []  # recordings that the last listing could not read

    def listed(self) -> Iterator[Candidate]:
        """Yield the frames that lack what is wanted, each once, recording by recording."""
        self.problems = []
        known, seen = KnownFrames(FrameIndex(self._index)), set[FrameName]()
        for path, labels in self._recordings():
            try:
                for found in self._of(known, path, labels):
                    name = name_of(found.frame)
                    if name not in seen and self._is_wanted(found):
                        seen.add(name)
                        yield Candidate(name, found.frame, found.label, found.boxes)
            except FrameError as error:
                self.problems.append(str(error))
        known.end()

    def _of(self, known: KnownFrames, path: Path, labels: LabelSettings) -> Iterator[KnownLabelled]:
        try:
            yield from known.labelled(path, labels, DamageLog())
        except FrameError as error:
            if error.reason != WRONG_LABEL_TOPIC:
                raise
            yield from known.labelled(path, labels._replace(label_topic=""), DamageLog())

    def _is_wanted(self, found: KnownLabelled) -> bool:
        has = found.seen if self._boxes else found.label
        return self._everything or not has

    def _recordings(self) -> Iterator[tuple[Path, LabelSettings]]:
        examples = self._settings.examples
        labels = LabelSettings(examples.topic, examples.label_topic, examples.tolerance_s)
        for path in examples.paths:
            if is_live(path):
                continue
            try:
                yield from ((recording, labels) for recording in recordings_in(path))
            except OSError as error:
                self.problems.append(f"{path.name}: {error.strerror}")
        if examples.spool is None:
            return
        for batch in KeptExamples(self._settings.state / KEPT).batches():
            yield batch, LabelSettings()
        try:
            complete = filter(self._is_complete, find_recordings(examples.spool))
            yield from ((recording.path, labels) for recording in complete)
        except OSError as error:
            self.problems.append(f"{examples.spool.name}: {error.strerror}")

    def _is_complete(self, recording: Recording) -> bool:
        """Return whether a bag of the spool is no longer written, as far as its age tells."""
        newest = max(mtime_ns for _, _, mtime_ns in recording.signature) / 1e9
        least_s = POWER_LOSS_S if recording.cut_off else self._settings.store.settle_s
        return self._now_s() - newest >= least_s


def require_frames(settings: AgentSettings, words: str) -> None:
    """Raise SettingsError unless this robot has frames; `words` says what is done with them."""
    if settings.examples.source != FRAMES:
        raise SettingsError(
            f"examples come from the source {settings.examples.source}; {words} frames "
            "of examples.paths and examples.spool"
        )
    if not settings.examples.wanted:
        raise SettingsError(
            "agent.toml names no frames: name bags or data sets in examples.paths, or a folder in "
            "examples.spool"
        )


def name_of(frame: LazyFrame) -> FrameName:
    """Return what names a frame here and in the log of answers."""
    return FrameName(frame.source, frame.topic, frame.stamp_ns)


def thinned(found: Iterable[Candidate], most: int = MOST) -> tuple[list[Candidate], int]:
    """Return at most `most` frames, evenly taken, and how many there were; in bounded memory."""
    kept: list[Candidate] = []
    step, count = 1, 0
    for number, candidate in enumerate(found):
        count = number + 1
        if number % step:
            continue
        kept.append(candidate)
        if len(kept) > most:
            kept, step = kept[::2], 2 * step
    return kept, count


def spread_order(count: int) -> list[int]:
    """Return 0 .. count - 1 such that every beginning lies evenly: 0, 4, 2, 6, 1, 5, 3, 7.

    By the bits of each number in reverse, as in van der Corput's sequence.
    """
    bits = max(count - 1, 0).bit_length()
    reverse = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [number for number in reverse if number < count] if count else []
