"""Images in a folder for each label, e.g. circle/0001.jpg."""

from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.frames.folder import image_names
from edge_agent.data.frames.source import FrameFacts, image_files
from edge_agent.data.label_formats.data_set import LabelledEntry
from edge_agent.data.label_formats.image_rows import (
    ImageRow,
    entry_of,
    image_rows,
    sound_boxes,
)
from edge_agent.data.label_formats.marks import Mark
from edge_agent.data.label_formats.table import Labels, labels_by_file
from edge_agent.data.manifest import ManifestRow
from fleet_model.errors import FrameError
from fleet_model.types import Box

LABELS = "labels.csv"  # by hand: file,label[,x0,y0,x1,y1]; counts more than the manifest
UNLABELED = "unlabeled"
_LONGEST_NAME = 200  # bytes; file systems hold 255


class FolderFormat:
    """Labels by labels.csv, else by manifest.csv, else by the name of an image's folder.

    An image that was moved into another label's folder since the manifest was written has that
    label: sorting images by hand is how people correct labels.
    """

    embeds_images = False

    def recognizes(self, path: Path) -> bool:
        """Return whether there is an image; a folder in `path` that cannot be listed has none."""

        def unlisted(folder: Path, error: OSError) -> None:
            if folder == path:
                raise error

        return next(image_files(path, unlisted), None) is not None

    def entries(self, path: Path, damage: DamageLog) -> Iterator[LabelledEntry]:
        """Yield every image; see DataSetFormat."""
        path = path.resolve()
        root = path if path.is_dir() else path.parent
        table = _table(root, damage)
        for image in image_rows(root, image_names(path, damage), damage):
            yield entry_of(root, image, partial(_mark, root, image, table.get(image.name), damage))

    def path_of(self, row: ManifestRow) -> str:
        """Return label/name."""
        return f"{folder_of(row.label)}/{row.file}"

    def finish(self, out: Path, rows: Iterable[ManifestRow]) -> None:
        """Do nothing: a folder has no index but the manifest."""


def folder_of(label: str) -> str:
    """Return the name of a label's folder: the label itself wherever a file system allows it."""
    if not label:
        return UNLABELED
    bad = {character for character in label if character in "/%" or not character.isprintable()}
    name = "".join(_percent(c) if c in bad else c for c in label)
    if name.startswith("."):  # hidden, or the folder above
        name = _percent(".") + name[1:]
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
        cut = name.encode("utf-8", "surrogatepass")[: _LONGEST_NAME - 40]
        digest = blake2b(label.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        name = f"{cut.decode(errors='ignore')}%{digest}"
    return name


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _table(root: Path, damage: DamageLog) -> dict[str, Labels]:
    if not (root / LABELS).is_file():
        return {}
    try:
        return labels_by_file(root / LABELS, damage)
    except FrameError as error:
        damage.add("bad label file", f"{root.name}/{error}")
        return {}


def _mark(
    root: Path, image: ImageRow, by_hand: Labels | None, damage: DamageLog, facts: FrameFacts
) -> Mark:
    label, boxes = _labels_of(root, image, by_hand)
    where = f"{root.name}/{image.name}"
    return Mark(label, sound_boxes(boxes, facts.width, facts.height, where, damage))


def _labels_of(root: Path, image: ImageRow, by_hand: Labels | None) -> tuple[str, tuple[Box, ...]]:
    if by_hand is not None:
        return by_hand.label, by_hand.boxes
    if image.row is not None and not image.moved:
        return image.row.label, image.row.boxes
    folder = (PurePosixPath(root.name) / image.name).parent.name
    label = "" if folder == UNLABELED else folder
    return label, image.row.boxes if image.row else ()
