"""The images of a data set and what its manifest.csv says about them."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edge_agent.data.frames.folder import read_image
from edge_agent.data.frames.source import FrameFacts, Place
from edge_agent.data.label_formats.data_set import (
    LabelledEntry,
    LabelledFrame,
    inside,
    largest_label,
)
from edge_agent.data.label_formats.marks import Mark
from edge_agent.data.manifest import MANIFEST, DataSetManifest, ManifestRow
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import unreadable
from fleet_model.pictures.image_file import image_frame
from fleet_model.types import Box

_MOSTLY = 0.5  # of a box's area


class ImageRow(NamedTuple):
    """One image of a data set."""

    name: str  # relative to the data set, with "/"
    time_ns: int  # stamp of the manifest, else the time the file was last written
    row: ManifestRow | None  # None: the manifest does not know it, or there is none
    size: tuple[int, int] = (0, 0)  # width and height that the labels are for; 0 is not known

    @property
    def moved(self) -> bool:
        """Whether somebody moved the image since the manifest was written."""
        return self.row is not None and self.row.file != self.name


def image_rows(root: Path, names: Iterable[str], damage: DamageLog) -> Iterator[ImageRow]:
    """Yield the images `names`: those of the manifest in its order, then the others in theirs.

    Images that the manifest lists and that are not there are added to `damage`, unless an image
    of the same bare name lies elsewhere: then that one has its row.
    """
    others = dict.fromkeys(names)
    missing: dict[str, ManifestRow] = {}
    for row in _rows(root, damage):
        if row.file in others:
            del others[row.file]
            yield ImageRow(row.file, row.stamp_ns, row)
        elif _is_safe(root, row.file, damage):
            missing[row.file.rpartition("/")[2]] = row
    for name in others:
        moved = missing.pop(name.rpartition("/")[2], None)
        if moved:
            yield ImageRow(name, moved.stamp_ns, moved)
            continue
        try:
            yield ImageRow(name, (root / name).stat().st_mtime_ns, None)
        except OSError as error:
            unread = unreadable(f"{root.name}/{name}", error)
            damage.add(unread.reason, str(unread))
    for row in missing.values():
        damage.add("missing file", f"{root.name}/{row.file}, which {MANIFEST} lists")


def entry_of(root: Path, image: ImageRow, mark: Callable[[FrameFacts], Mark]) -> LabelledEntry:
    """Return the entry of an image: the frame that it was when the manifest was written."""
    row = image.row
    source, topic = (row.source, row.topic) if row else ("", "")
    given = source or root.name, topic or image.name, image.time_ns
    return LabelledEntry(
        image.time_ns,
        partial(_load, root, image, given, mark),
        row.topic if row else "",
        image.name,
        Place(root / image.name, 0, given),
        mark,
    )


def mark_of(
    boxes: tuple[Box, ...], row: ManifestRow | None, label: str = "", *, seen: bool
) -> Mark:
    """Return the mark of a frame with the boxes that its label file has.

    What the manifest says counts as long as its boxes are the label file's: somebody who draws
    other boxes with another tool does not edit the manifest. Then, and without a manifest, the
    label is `label`, or else the largest box's, and without boxes the frame is `seen`.
    """
    if row is not None:
        same = row.boxes == boxes
        label, seen = (row.label, row.seen) if same else ("", seen)
    return Mark(label or largest_label(boxes), boxes, seen or bool(boxes))


def sized_boxes(
    boxes: Iterable[Box],
    size: tuple[int, int],
    facts: FrameFacts,
    where: str,
    damage: DamageLog,
) -> tuple[Box, ...]:
    """Return `sound_boxes`, or none where the label file is about a picture of another `size`."""
    boxes, real = tuple(boxes), (facts.width, facts.height)
    if boxes and all(size) and all(real) and size != real:
        labelled, has = (f"{width} x {height}" for width, height in (size, real))
        damage.add("boxes of another size", f"{where}: labelled as {labelled}, has {has} pixels")
        return ()
    return sound_boxes(boxes, *real, where, damage)


def sound_boxes(
    boxes: Iterable[Box], width: int, height: int, where: str, damage: DamageLog
) -> tuple[Box, ...]:
    """Return the boxes that have an area in the picture, unchanged; the others go to `damage`.

    A box that leans over the edge stays as it is; one that lies mostly outside stays, too, and is
    counted: perhaps its numbers mean something else. A size of 0 is not known and not checked.
    """
    sound = []
    for box in boxes:
        if 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height:
            sound.append(box)
            continue
        corners = (box.x0, box.y0, box.x1, box.y1)
        if not all(map(math.isfinite, corners)) or box.x0 >= box.x1 or box.y0 >= box.y1:
            damage.add("bad box", f"{where}: {box.label} {corners} has no area")
        elif (
            box.x1 <= 0
            or box.y1 <= 0
            or (width and box.x0 >= width)
            or (height and box.y0 >= height)
        ):
            damage.add(
                "box outside the picture",
                f"{where}: {box.label} {corners} in {width} x {height} pixels",
            )
        else:
            sound.append(box)
            if width and height and _share_inside(box, width, height) < _MOSTLY:
                damage.add(
                    "box mostly outside the picture",
                    f"{where}: {box.label} {corners} in {width} x {height} pixels",
                )
    return tuple(sound)


def _share_inside(box: Box, width: int, height: int) -> float:
    inside_x = min(box.x1, width) - max(box.x0, 0.0)
    inside_y = min(box.y1, height) - max(box.y0, 0.0)
    return inside_x / (box.x1 - box.x0) * (inside_y / (box.y1 - box.y0))


def _load(
    root: Path,
    image: ImageRow,
    given: tuple[str, str, int],
    mark: Callable[[FrameFacts], Mark],
) -> LabelledFrame:
    """Read an image: as stored if it was extracted from a bag, else upright, as tools show it."""
    where = f"{root.name}/{image.name}"
    content = read_image(root / image.name, where)
    frame = image_frame(content, *given, where, upright=image.row is None)
    is_square = frame.width == frame.height
    if not is_square and image.size == (frame.height, frame.width):  # a tool that does not turn
        frame = image_frame(content, *given, where)
    return LabelledFrame(frame, *mark(frame))


def _rows(root: Path, damage: DamageLog) -> Iterator[ManifestRow]:
    manifest = root / MANIFEST
    if not manifest.is_file():
        return
    try:
        yield from DataSetManifest(manifest, damage)
    except FrameError as error:
        damage.add("damaged manifest", f"{root.name}/{error}")


def _is_safe(root: Path, name: str, damage: DamageLog) -> bool:
    try:
        inside(root, name)
    except FrameError as error:
        damage.add(error.reason, f"{error}, in {MANIFEST}")
        return False
    return True
