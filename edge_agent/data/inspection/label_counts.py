"""How many frames have which label: what there is to know before training."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.source import is_bag
from edge_agent.data.label_formats.label_topic import has_topic, label_topics
from edge_agent.data.labels import LabelSettings, labelled_frames
from fleet_model.files.damage import Damage, DamageLog


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """What was counted in one bag, video or data set."""

    source: str  # label topic or file; "": the data set's own labels
    frames: int  # that can be read
    by_label: Mapping[str, int]  # of frames with one, the most first
    boxes: Mapping[str, int]  # the same of boxes
    damage: tuple[Damage, ...]

    @property
    def unlabelled(self) -> int:
        """Return the number of frames without a label."""
        return self.frames - sum(self.by_label.values())


def count_labels(
    path: Path, settings: LabelSettings, progress: Callable[[int], None] = lambda _: None
) -> LabelCounts:
    """Read every frame with its label, but no pixel; raises FrameError as `labelled_frames`.

    `progress` is told the number of frames, often.
    """
    labels, boxes, damage, frames = Counter[str](), Counter[str](), DamageLog(), 0
    for _, label, found, _ in labelled_frames(path, settings, damage):
        frames += 1
        labels.update([label] if label else [])
        boxes.update(box.label for box in found)
        progress(frames)
    by_label, by_box = dict(labels.most_common()), dict(boxes.most_common())
    return LabelCounts(settings.label_topic, frames, by_label, by_box, damage.all())


def topics_to_count(path: Path, usual: str) -> list[str]:
    """Return the label topics of a bag that may be meant; none where labels need no topic.

    Args:
        path: bag, video or data set.
        usual: label topic of this robot's own bags; alone if the bag has it.

    Raises:
        FrameError: the bag cannot be read.
    """
    if not is_bag(path):
        return []
    bag = BagFrames(path)
    if usual and has_topic(bag, usual):
        return [usual]
    return [topic.name for topic in label_topics(bag)]
