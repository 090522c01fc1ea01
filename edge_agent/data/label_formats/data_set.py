"""A directory of labelled images in a format that others know: the seam and its table."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, cast

from edge_agent.data.frames.source import FrameFacts, Place
from edge_agent.data.label_formats.marks import Mark
from edge_agent.data.manifest import ManifestRow
from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog
from fleet_model.loading import load_plugin
from fleet_model.types import Box, Frame

# In the order in which a directory is looked at: "folder" takes whatever holds images.
FORMATS = {
    "tfds": "edge_agent.data.label_formats.tfds.tfds:TfdsFormat",
    "coco": "edge_agent.data.label_formats.coco.coco:CocoFormat",
    "yolo": "edge_agent.data.label_formats.yolo.yolo:YoloFormat",
    "folder": "edge_agent.data.label_formats.folder:FolderFormat",
}


class LabelledFrame(NamedTuple):
    """A frame with the label that was given to it on this robot."""

    frame: Frame
    label: str  # "" where there is none; of a frame with boxes, the largest one's
    boxes: tuple[Box, ...]
    seen: bool  # see Mark


class LabelledEntry(NamedTuple):
    """One labelled frame that was not yet read."""

    time_ns: int  # bag time, stamp of the manifest, else the file's: ranges and rates go by it
    load: Callable[[], LabelledFrame]  # raises FrameError (with `reason`) as Entry.load does
    topic: str = ""  # where it is known without reading the frame
    name: str = ""  # of the image in its data set
    place: Place | None = None  # None: nothing shows whether the frame was read before
    # The label of a frame that was read before; it reads label files, but no frame. None: only
    # `load` finds it.
    mark: Callable[[FrameFacts], Mark] | None = None


class DataSetFormat(Protocol):
    """Reads and writes one format. Built without arguments."""

    # True: the index holds the pictures' bytes. Once `finish` has returned, the image files
    # that it was made from are not needed to read the data set and may be removed.
    embeds_images: bool
    # True: other tools that read the format look for boxes and find no label of a whole picture.
    holds_boxes_only: bool

    def recognizes(self, path: Path) -> bool:
        """Return whether `path` is a data set of this format. May raise OSError."""
        ...

    def entries(self, path: Path, damage: DamageLog) -> Iterator[LabelledEntry]:
        """Yield every frame, the same ones in the same order at every call.

        Labels that cannot be read are added to `damage` with file and line, when the frame they
        belong to is loaded at the latest; the frame is yielded with the rest of its labels.

        Raises:
            FrameError: nothing can be read.
        """
        ...

    def path_of(self, row: ManifestRow) -> str:
        """Return where the image belongs, relative to the data set; `row.file` is its bare name.

        Different names never get the same place.
        """
        ...

    def finish(self, out: Path, rows: Iterable[ManifestRow]) -> None:
        """Write the index files of images that already lie at their `file`, durably.

        The manifest.csv is the caller's. Called again with the same rows it leaves the same bytes.

        Args:
            out: root of the data set.
            rows: iterated more than once, so a `Manifest` or a list, no generator.

        Raises:
            FrameError: an image is missing or its size is not known.
            OSError: the disk is full or read-only.
        """
        ...


def open_format(name: str) -> DataSetFormat:
    """Return a format by its name in FORMATS or as "module:attribute"; raises SettingsError."""
    kind = load_plugin(FORMATS, name)
    try:
        return cast("DataSetFormat", kind())
    except TypeError as error:
        raise SettingsError(f"{name!r} is no data-set format ({error})") from None


def inside(root: Path, name: str) -> Path:
    """Return the file that a data set calls `name`.

    Raises:
        FrameError: the name leads out of the data set ("unsafe path").
    """
    parts = PurePosixPath(name).parts
    try:
        possible = bool(parts) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # JSON may spell halves of characters
        possible = False
    if not possible or name.startswith("/") or ".." in parts:
        raise FrameError(
            f"{root.name}: the name {name[:80]!r} leads out of it or to nowhere", "unsafe path"
        )
    return root.joinpath(*parts)


def largest_label(boxes: Iterable[Box]) -> str:
    """Return the label of the largest box, the first of equals; "" without boxes."""
    return max(boxes, key=lambda box: (box.x1 - box.x0) * (box.y1 - box.y0), default=_NO_BOX).label


def clean_text(text: str) -> str:
    """Return a label that every format can hold: halves of characters and NUL are replaced."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


_NO_BOX = Box(label="", x0=0.0, y0=0.0, x1=0.0, y1=0.0)
