"""Labelled frames kept on the robot; they never leave it."""

import logging
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from edge_agent.data.frames.damage import NO_LABEL_TOPIC, WRONG_LABEL_TOPIC
from edge_agent.data.frames.source import IMAGE_SUFFIXES, has_pictures, is_live, shown
from edge_agent.data.label_formats.data_set import largest_label
from edge_agent.data.labels import TOLERANCE_S, LabelSettings, count_frames
from edge_agent.examples.frame_index import FrameIndex
from edge_agent.examples.held_out import HeldOutSplit, Moment
from edge_agent.examples.known_frames import KnownFrames, KnownLabelled, recordings_in
from edge_agent.examples.lazy_frame import LazyFrame
from edge_agent.examples.left_out import (
    ANSWERED,
    COPY,
    TOO_NEAR,
    UNLABELLED,
    UNSEEN,
    unknown_label,
)
from edge_agent.examples.spool.kept_examples import KeptExamples
from edge_agent.examples.taught import Said
from edge_agent.examples.trained_moments import TrainedMoments
from edge_agent.examples.unlabelled import Truth, Unlabelled
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box, Example

_UNREADABLE = "unreadable source"  # counts recordings
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """What a store holds."""

    examples: int  # both kinds
    held_out: int
    labels: Mapping[str, int]  # every label that was asked for -> examples
    # reason -> frames; recordings for "unreadable source"; places for damage that hides frames
    skipped: Mapping[str, int]
    renamed: Mapping[str, int]  # "'Brick' as 'brick'" -> frames, see `aliases`


class ExampleStore:
    """The examples in bags, data sets and the robot's own store, listed again at every call.

    A path may also be a directory of bags, at any depth. Frames without a label of `labels` are
    skipped and counted, and so is whatever is damaged; `HeldOutSplit` decides which share is held
    out. The bytes of a frame are read once: later calls list what is known of it, see KnownFrames.

    With `boxes`, frames in which nobody has said what is there are left out in place of those
    without a label, and one with a box of another label is left out, too: nobody may learn that the
    thing in it is nothing.

    `Example.key` is source, topic, stamp and a checksum of the frame's bytes: it stays the same
    wherever the recording lies and whatever is recorded beside it, and a picture that replaces
    another has a new one. A second copy of a frame has the same key and is skipped.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        topic: str,
        label_topic: str,
        labels: Iterable[str],
        *,
        kept: Path | None = None,
        answered: Path | None = None,
        trained: Path | None = None,
        index: Path | None = None,
        held_out: float = 0.2,
        segment_s: float = 10.0,
        tolerance_s: float = TOLERANCE_S,
        trains: bool = True,
        read_only: bool = False,
        aliases: Mapping[str, str] | None = None,
        boxes: bool = False,
        pseudo: Mapping[str, Any] | None = None,
        taught: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep what to read; nothing is opened yet.

        Args:
            paths: bags; data sets as folders with a folder for each label, YOLO, COCO, TFDS;
                directories of bags.
            topic: camera topic of bags; "" takes the only one of each.
            label_topic: topic of the bags with labels, or a CSV file or data set that has them.
            labels: those of the workload; none takes every frame, with a label or without.
            kept: folder of KeptExamples, read as well; it may be empty or not there yet.
            answered: data set of the frames that a person has labelled (edge_agent/labeling); their
                labels count more than any other of the same frames. It may not be there yet.
            trained: file that remembers what was trained on, so that it is never held out.
            index: folder that remembers which frames were read; without it they are read in every
                call.
            held_out: share of the examples to measure with, 0 to 0.5.
            segment_s: length of a time segment that is held out as a whole.
            tolerance_s: how far a label may lie from its frame.
            trains: whether the training examples count as trained on once they are listed.
            read_only: `trained` and `index` are read and never written; nothing counts as trained.
            aliases: other word for a label -> the label.
            boxes: whether boxes are learned, and no labels of whole frames.
            pseudo: also yield frames without a label, see Unlabelled; None: leave them out.
            taught: what teachers have said of these, see Unlabelled. A frame that one has labelled
                is never held out, also once a person has labelled it.

        Raises:
            SettingsError: held_out or segment_s is out of its range.
        """
        self._paths, self._kept, self._answered = tuple(paths), kept, answered
        self._pseudo, self._taught = pseudo, taught
        self._unlabelled = Unlabelled(None)  # of the last listing
        self._settings = LabelSettings(topic, label_topic, tolerance_s)
        self._labels, self._boxes = tuple(labels), boxes
        self._known = KnownFrames(FrameIndex(index, read_only=read_only))
        self._skipped, self._renamed = Counter[str](), Counter[str]()
        self._aliases = dict(aliases or {})
        self._held_out, self._segment_s = held_out, segment_s
        self._trains = trains and not read_only
        self._reported: set[str] = set()
        HeldOutSplit((), held_out, segment_s)  # raises before the first round, not in it
        self._trained = TrainedMoments(trained, segment_s)

    def examples(self) -> Iterator[Example]:
        """Yield the examples, recording by recording. All are listed first, to split them.

        A picture whose damage only decoding shows is yielded: `decode` raises FrameError.

        Raises:
            FrameError: there are recordings, and none of them can be read.
        """
        found, split = self._scan()
        training = [each.moment for each in found if not split.holds_out(each.moment)]
        if self._trains:
            # One that is trained on for its teacher alone says nothing of those before it.
            self._trained.add(sorted(moment for moment in training if not split.picks(moment)))
        for one in found:
            if split.between(one.moment):
                continue
            yield Example(
                raw=one.frame,
                label=one.label or None,
                key=one.key,
                held_out=split.holds_out(one.moment),
                boxes=one.boxes,
                seen=one.seen,
            )
        labelled = {one.key for one in found}
        people = None if self._boxes else Counter(moment.label for moment in training)
        yield from self._unlabelled.examples(split, labelled, self._truth_of, people)
        self._skipped.subtract(self._unlabelled.used)

    @property
    def left_out(self) -> Mapping[str, int]:
        """Reason -> frames that the last listing has left out; see StoreSummary."""
        return dict(+self._skipped)

    @property
    def renamed(self) -> Mapping[str, int]:
        """Return what the last listing has taken for another label -> frames."""
        return dict(self._renamed)

    def summary(self) -> StoreSummary:
        """Count what `examples` would yield now; raises as it does."""
        found, split = self._scan()
        kept = [each for each in found if not split.between(each.moment)]
        counts = Counter(each.moment.label for each in kept)
        return StoreSummary(
            examples=len(kept),
            held_out=sum(split.holds_out(each.moment) for each in kept),
            labels={label: counts[label] for label in self._labels or sorted(counts)},
            skipped=self.left_out,
            renamed=self.renamed,
        )

    def _scan(self) -> "tuple[list[_Found], HeldOutSplit]":
        skipped = self._skipped = Counter[str]()
        self._renamed = Counter[str]()
        self._unlabelled = Unlabelled(self._pseudo, self._taught)
        found = list(self._labelled(skipped))
        moments = [each.moment for each in found]
        taught = {each.moment for each in found if self._unlabelled.is_taught(each.key)}
        split = HeldOutSplit(moments, self._held_out, self._segment_s, self._trained, taught)
        if between := sum(map(split.between, moments)):
            skipped[TOO_NEAR] = between
        if split.near:
            self._report(
                f"{', '.join(sorted(split.near))}: too short a recording to measure with; the "
                "frames held out are neighbors of those trained on, so scores will be too good"
            )
        return found, split

    def _labelled(self, skipped: Counter[str]) -> "Iterator[_Found]":
        """Yield the frames that are examples with their keys; count the others by reason."""
        keys: set[str] = set()
        for frame, word, told, seen in self._frames(skipped):
            boxes = tuple(map(self._named, told)) if self._aliases else told
            words = {box.label for box in told} if self._boxes else {word}
            label = largest_label(boxes) if self._boxes else self._name(word)
            if reason := self._refusal(words, seen):
                skipped[reason] += 1
                if reason in (UNLABELLED, UNSEEN):
                    self._leave(frame, reason)
                continue
            key = _key(frame)
            if key in keys:
                skipped[COPY] += 1
                continue
            keys.add(key)
            for other in words:
                if (name := self._name(other)) != other:
                    self._renamed[f"{other!r} as {name!r}"] += 1
            yield _Found(frame, label, boxes, seen, key, _moment(frame, label))

    def _refusal(self, words: set[str], seen: bool) -> str:
        """Return why a frame is no example; "" where it is one.

        Args:
            words: of its label or, where boxes are learned, of its boxes.
            seen: whether anybody has said which things are there.
        """
        if self._boxes and not seen:
            return UNSEEN
        strange = set(map(self._name, words)).difference(self._labels)
        if not self._labels or not strange:
            return ""
        return UNLABELLED if strange == {""} else unknown_label(min(strange), self._labels)

    def _name(self, word: str) -> str:
        return self._aliases.get(word, word)

    def _named(self, box: Box) -> Box:
        return replace(box, label=self._name(box.label))

    def _frames(self, skipped: Counter[str]) -> Iterator[KnownLabelled]:
        """Yield every frame that can be read; damage is counted by its kind."""
        frames, failures, damage = 0, list[FrameError](), DamageLog()
        answered = set[tuple[str, str, int]]()
        for recording, settings in self._recordings(failures):
            try:
                for labelled in self._known.labelled(recording, settings, damage):
                    frames += 1
                    place = labelled.frame.source, labelled.frame.topic, labelled.frame.stamp_ns
                    if recording == self._answered:
                        # A class that a person chose does not stand in for boxes.
                        answered.update([place] if labelled.seen or not self._boxes else [])
                    elif place in answered:
                        skipped[ANSWERED] += 1
                        continue
                    yield labelled
            except FrameError as error:
                failures.append(error)
                skipped.update(_left_out(recording, settings, error))
                if self._unlabelled.wanted and error.reason == WRONG_LABEL_TOPIC:
                    self._leave_all(recording, settings, answered)
        for failure in failures:
            self._report(str(failure))
        for loss in damage.all():
            skipped[loss.kind] += loss.count
            self._report(f"{loss.kind}: {loss.begins}")
        self._known.end()
        if failures and not frames:
            words = f"no frame of any recording can be read: {failures[0]}"
            reasons = {failure.reason for failure in failures}
            raise FrameError(words, *(reasons if len(reasons) == 1 else ()))

    def _leave_all(
        self, recording: Path, settings: LabelSettings, answered: Container[tuple[str, str, int]]
    ) -> None:
        """Leave the frames of a bag that has no labels to the model."""
        bare = settings._replace(label_topic="")
        with suppress(FrameError):  # what is damaged is counted with the bag
            for frame, *_ in self._known.labelled(recording, bare, DamageLog()):
                if (frame.source, frame.topic, frame.stamp_ns) not in answered:
                    self._leave(frame, NO_LABEL_TOPIC)

    def _leave(self, frame: LazyFrame, reason: str) -> None:
        if self._unlabelled.wanted:
            self._unlabelled.add(_key(frame), frame, _moment(frame, ""), reason)

    def _truth_of(self, said: Said) -> Truth | None:
        """Return what a teacher's words are here; None where they are nothing that is learned."""
        words = {box.label for box in said.boxes} if self._boxes else {said.label}
        boxes = tuple(map(self._named, said.boxes))
        label = largest_label(boxes) if self._boxes else self._name(said.label)
        return None if not label or self._refusal(words, bool(boxes)) else (label, boxes)

    def _recordings(self, failures: list[FrameError]) -> Iterator[tuple[Path, LabelSettings]]:
        if self._answered and has_pictures(self._answered):
            yield self._answered, LabelSettings()
        for path in self._paths:
            if is_live(path):
                come_once = "is live: its frames come once and nobody labels them; record bags"
                failures.append(FrameError(f"{shown(path)}: {come_once} into examples.spool"))
                self._skipped[_UNREADABLE] += 1
                continue
            try:
                found = recordings_in(path)
            except OSError as error:
                failures.append(FrameError(f"{path.name}: {error.strerror}"))
                self._skipped[_UNREADABLE] += 1
                continue
            for recording in found:
                yield recording, self._settings
        for batch in KeptExamples(self._kept).batches() if self._kept else ():
            yield batch, LabelSettings()

    def _report(self, text: str) -> None:
        """Log once: the same recordings are read in every round."""
        if text not in self._reported:
            self._reported.add(text)
            log.warning("%s", text)


class _Found(NamedTuple):
    """A frame that is an example."""

    frame: LazyFrame
    label: str
    boxes: tuple[Box, ...]
    seen: bool
    key: str
    moment: Moment


def _left_out(recording: Path, settings: LabelSettings, error: FrameError) -> Mapping[str, int]:
    """Return what is counted of a recording that gives no examples."""
    if error.reason == WRONG_LABEL_TOPIC:
        with suppress(FrameError):
            return +Counter({NO_LABEL_TOPIC: count_frames(recording, settings.topic)})
    return {_UNREADABLE: 1}


def _moment(frame: LazyFrame, label: str) -> Moment:
    name = intern(f"{frame.source}/{frame.topic}")
    # Bags that follow each other have one camera; a picture that is its own topic has none.
    camera = "" if frame.topic.lower().endswith(IMAGE_SUFFIXES) else frame.topic
    return Moment(frame.stamp_ns, name, label, camera)


def _key(frame: LazyFrame) -> str:
    name = f"{frame.source}/{frame.topic.lstrip('/')}"
    return f"{name}/{frame.stamp_ns}-{frame.checksum:08x}"
