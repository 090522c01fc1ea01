"""Images in a folder for each label, e.g. circle/0001.jpg, or beside files that label them."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edge_agent.data.frames.folder import image_names
from edge_agent.data.frames.source import FrameFacts, image_files
from edge_agent.data.label_formats.annotations.read import UNREAD, read_annotations
from edge_agent.data.label_formats.annotations.told import PictureLabels, Told, labels_by_image
from edge_agent.data.label_formats.class_folders import UNLABELED, FolderLabels, folder_labels
from edge_agent.data.label_formats.data_set import LabelledEntry
from edge_agent.data.label_formats.image_rows import ImageRow, entry_of, image_rows, sound_boxes
from edge_agent.data.label_formats.marks import Mark, is_seen
from edge_agent.data.label_formats.table import BY_FILE, told_by_table
from edge_agent.data.manifest import MANIFEST, ManifestRow
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

LABELS = "labels.csv"  # by hand: file,label[,x0,y0,x1,y1]; counts more than the manifest
_PICTURES, _LABELS_BESIDE = ("images", "img", "JPEGImages"), ("labels", "ann", "Annotations")
_LONGEST_NAME = 200  # bytes; file systems hold 255


class FolderFormat:
    """Labels by labels.csv, else by other annotation files, by manifest.csv, by folders.

    An image that was moved into another label's folder since the manifest was written has that
    label: sorting images by hand is how people correct labels. Without a manifest a folder's name
    is a label where `class_folders` says so and no annotation files lie around, read or not.
    """

    embeds_images = False
    holds_boxes_only = False

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
        names = image_names(path, damage)
        sources = _sources(root, names, path.is_dir(), damage)
        for image in image_rows(root, names, damage):
            said = sources.said_of(image)
            image = image._replace(size=said.size) if said else image
            yield entry_of(root, image, partial(_mark, root, image, sources, damage))

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


class _Sources(NamedTuple):
    """Where labels come from; image -> what is said of it."""

    by_hand: Mapping[str, PictureLabels]
    by_tool: Mapping[str, PictureLabels]
    by_folder: Mapping[str, str]

    def said_of(self, image: ImageRow) -> PictureLabels | None:
        """Return what people or tools say of an image."""
        return self.by_hand.get(image.name) or self.by_tool.get(image.name)


def _sources(root: Path, names: list[str], is_whole: bool, damage: DamageLog) -> _Sources:
    """Look for labels; of one picture, only labels.csv beside it is looked at."""
    lost = damage if is_whole else DamageLog()  # it names other pictures as well
    by_hand = labels_by_image(root.name, names, _told_by_hand(root, damage), lost)
    if not is_whole:
        return _Sources(by_hand, {}, {})
    annotations = read_annotations(root, names, (LABELS, MANIFEST), damage)
    folders = FolderLabels({})
    if not annotations.files:
        folders = folder_labels(names)
    beside = next((each for each in _LABELS_BESIDE if (root.parent / each).is_dir()), "")
    if root.name in _PICTURES and beside:
        damage.add(UNREAD, f"{root.name}: {beside}, which lies beside it; name the folder of both")
    if folders.unclear and not (root / MANIFEST).is_file():
        expected = f"expected LABEL/picture or {LABELS} with {BY_FILE}"
        damage.add("labels not clear", f"{root.name}/{folders.unclear}: {expected}")
    return _Sources(by_hand, annotations.labels, folders.labels)


def _told_by_hand(root: Path, damage: DamageLog) -> Iterator[Told]:
    if not (root / LABELS).is_file():
        return
    try:
        yield from told_by_table(root / LABELS, LABELS, damage)
    except FrameError as error:
        damage.add("bad label file", f"{root.name}/{error}")


def _mark(
    root: Path, image: ImageRow, sources: _Sources, damage: DamageLog, facts: FrameFacts
) -> Mark:
    where, row = f"{root.name}/{image.name}", image.row
    said = sources.said_of(image)
    if said:
        return said.mark(facts, where, damage)
    told = row.boxes if row else ()
    boxes = sound_boxes(told, facts.width, facts.height, where, damage)
    seen = row is not None and is_seen(told, boxes, row.seen)
    if row and not image.moved:
        return Mark(row.label, boxes, seen)
    folder = PurePosixPath(image.name).parent.name if row else sources.by_folder.get(image.name, "")
    return Mark("" if folder == UNLABELED else folder, boxes, seen)
