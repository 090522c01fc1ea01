"""Labelled frames kept on the robot; they never leave it."""

import logging
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge_agent.frames.source import find_bags
from edge_agent.held_out import HeldOutSplit, Moment
from edge_agent.labels import TOLERANCE_S, LabelledFrame, LabelSettings, labelled_frames
from fleet_model.errors import FrameError
from fleet_model.types import Example

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """What a store holds."""

    examples: int  # both kinds
    held_out: int
    labels: Mapping[str, int]  # every label that was asked for -> examples
    skipped: Mapping[str, int]  # reason -> frames, or bags and folders for "unreadable source"


class ExampleStore:
    """The examples in bags and image folders, read anew at every call: recordings may be added.

    Examples are streamed; what stays in memory is a key and a stamp for each. A path may also be a
    directory of bags, at any depth. Frames without a label of `labels` are skipped and counted,
    and so are recordings that cannot be read; `HeldOutSplit` tells how a share is held out.

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
        held_out: float = 0.2,
        segment_s: float = 10.0,
        tolerance_s: float = TOLERANCE_S,
    ) -> None:
        """Keep what to read; nothing is opened yet.

        Args:
            paths: bags, image folders with a folder for each label, directories of bags.
            topic: camera topic; "" takes the only one of each bag.
            label_topic: std_msgs/String topic of the bags.
            labels: those of the workload.
            held_out: share of the examples to measure with, 0 to 0.5.
            segment_s: length of a time segment that is held out as a whole.
            tolerance_s: how far a label may lie from its frame.

        Raises:
            SettingsError: held_out or segment_s is out of its range.
        """
        self._paths = tuple(paths)
        self._settings = LabelSettings(topic, label_topic, tolerance_s)
        self._labels = tuple(labels)
        self._held_out, self._segment_s = held_out, segment_s
        self._reported: set[str] = set()
        HeldOutSplit((), held_out, segment_s)  # raises before the first round, not in it

    def examples(self) -> Iterator[Example]:
        """Yield the examples, recording by recording. All are looked at first, to split them.

        A damaged picture inside a readable message is yielded: decoding it raises FrameError.

        Raises:
            FrameError: there are recordings, and none of them can be read.
        """
        split = self._scan().split
        for labelled, key in self._labelled(Counter()):
            moment = _moment(labelled)
            yield Example(
                raw=labelled.frame,
                label=labelled.label,
                key=key,
                held_out=split.holds_out(moment),
            )

    def summary(self) -> StoreSummary:
        """Count what `examples` would yield now; raises as it does."""
        moments, split, skipped = self._scan()
        counts = Counter(moment.label for moment in moments)
        return StoreSummary(
            examples=len(moments),
            held_out=sum(map(split.holds_out, moments)),
            labels={label: counts[label] for label in self._labels},
            skipped=dict(skipped),
        )

    def _scan(self) -> "_Scan":
        skipped = Counter[str]()
        moments = [_moment(labelled) for labelled, _ in self._labelled(skipped)]
        if skipped:
            listed = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
            self._report(f"{len(moments)} examples; skipped: {listed}")
        return _Scan(moments, HeldOutSplit(moments, self._held_out, self._segment_s), skipped)

    def _labelled(self, skipped: Counter[str]) -> Iterator[tuple[LabelledFrame, str]]:
        """Yield the frames that are examples with their keys; count the others by reason."""
        keys: set[str] = set()
        for labelled in self._frames(skipped):
            if not labelled.label:
                skipped["without a label"] += 1
                continue
            if labelled.label not in self._labels:
                skipped[f"labelled {labelled.label!r}, which is not learned"] += 1
                continue
            key = _key(labelled)
            if key in keys:
                skipped["a copy of another frame"] += 1
                continue
            keys.add(key)
            yield labelled, key

    def _frames(self, skipped: Counter[str]) -> Iterator[LabelledFrame]:
        frames, failures = 0, []
        for path in self._paths:
            try:
                recordings = find_bags(path) or [path]
            except OSError as error:
                failures.append(FrameError(f"{path.name}: {error.strerror}"))
                continue
            for recording in recordings:
                try:
                    for labelled in labelled_frames(recording, self._settings):
                        frames += 1
                        yield labelled
                except FrameError as error:
                    failures.append(error)
        for failure in failures:
            skipped["unreadable source"] += 1
            self._report(str(failure))
        if failures and not frames:
            raise FrameError(f"no frame of any recording can be read: {failures[0]}")

    def _report(self, text: str) -> None:
        """Log once: the same recordings are read in every round."""
        if text not in self._reported:
            self._reported.add(text)
            log.warning("%s", text)


class _Scan(NamedTuple):
    moments: list[Moment]
    split: HeldOutSplit
    skipped: Counter[str]


def _moment(labelled: LabelledFrame) -> Moment:
    frame = labelled.frame
    return Moment(frame.stamp_ns, f"{frame.source}/{frame.topic}", labelled.label)


def _key(labelled: LabelledFrame) -> str:
    frame = labelled.frame
    name = f"{frame.source}/{frame.topic.lstrip('/')}"
    return f"{name}/{frame.stamp_ns}-{zlib.crc32(frame.data):08x}"
