"""What label files say about pictures, brought together picture by picture."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from edge_agent.data.frames.source import FrameFacts
from edge_agent.data.label_formats.data_set import largest_label
from edge_agent.data.label_formats.image_finder import Written, find_images
from edge_agent.data.label_formats.image_rows import sized_boxes
from edge_agent.data.label_formats.marks import Mark, is_seen
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box


class Told(NamedTuple):
    """What one place of a label file says about one picture."""

    names: tuple[str, ...]  # of the picture, as spelled there; the first that is there counts
    file: str  # the label file, relative to the data set, with "/"
    line: int = 0  # 0: the file as a whole
    label: str = ""  # of the whole picture
    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] = (0, 0)  # the picture's width and height, in pixels; 0 is not said
    shares: bool = False  # the boxes' corners are shares of the picture, no pixels
    seen: bool = False  # without boxes: it says that nothing is in the picture

    @property
    def where(self) -> str:
        """The place, for damage."""
        return f"{self.file} line {self.line}" if self.line else self.file


@dataclass(slots=True)
class PictureLabels:
    """Everything that is said about one picture."""

    label: str = ""  # of the whole picture
    boxes: list[Box] = field(default_factory=list)
    shares: list[Box] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    labels: set[str] = field(default_factory=set)  # several: nobody knows which one is meant
    seen: bool = False  # see Told

    def mark(self, facts: FrameFacts, where: str, damage: DamageLog) -> Mark:
        """Return the picture's mark; boxes that cannot be right are added to the damage."""
        boxes = [*self.boxes, *(_scaled(box, facts.width, facts.height) for box in self.shares)]
        sound = sized_boxes(boxes, self.size, facts, where, damage)
        return Mark(self.label or largest_label(sound), sound, is_seen(boxes, sound, self.seen))


def labels_by_image(
    root: str, images: Iterable[str], told: Iterable[Told], damage: DamageLog
) -> Mapping[str, PictureLabels]:
    """Return image -> what is said about it.

    Args:
        root: name of the data set, before the names of its label files in damage; "" for none.
        images: names of all its pictures, relative to it.
        told: in any order; several of one picture are one for each box.
        damage: gets what is said about pictures that are not there, or not clear ("unknown image").
    """
    listed, names, prefix = list(told), list(images), f"{root}/" if root else ""
    found: dict[int, str] = {}
    for alternative in range(max((len(each.names) for each in listed), default=0)):
        open_ones = {
            number: Written(each.names[alternative], each.file)
            for number, each in enumerate(listed)
            if number not in found and alternative < len(each.names)
        }
        taken = set(found.values())
        images_of = find_images(names, open_ones.values())
        for number, written in open_ones.items():
            image = images_of.get(written)
            if image and image not in taken:
                found[number] = image
    by_image: dict[str, PictureLabels] = {}
    for number, each in enumerate(listed):
        if number in found:
            _note(by_image.setdefault(found[number], PictureLabels()), each, prefix, damage)
        else:
            bare = PurePosixPath(each.names[0].replace("\\", "/")).name[:80]
            damage.add("unknown image", f"{prefix}{each.where}: {bare!r}")
    return by_image


def _note(labels: PictureLabels, told: Told, prefix: str, damage: DamageLog) -> None:
    (labels.shares if told.shares else labels.boxes).extend(told.boxes)
    labels.size = told.size if all(told.size) else labels.size
    labels.seen = labels.seen or told.seen
    if told.label:
        labels.labels.add(told.label)
        labels.label = told.label if len(labels.labels) == 1 else ""
        if not labels.label:
            damage.add("several labels", f"{prefix}{told.where}: {told.label!r}")


def _scaled(box: Box, width: int, height: int) -> Box:
    x0, y0, x1, y1 = box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height
    return Box(label=box.label, x0=x0, y0=y0, x1=x1, y1=y1)
