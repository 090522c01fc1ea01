"""What the writers of several formats ask of the rows: picture sizes and the list of classes."""

from collections.abc import Iterable
from pathlib import Path

from edge_agent.data.frames.folder import read_image
from edge_agent.data.label_formats.data_set import inside
from edge_agent.data.manifest import DataSetManifest, ManifestRow
from fleet_model.pictures.image_file import image_frame


def size_of(out: Path, row: ManifestRow) -> tuple[int, int]:
    """Return width and height in pixels; looks into the image if the row does not know.

    Raises:
        FrameError: the row does not know and the image cannot be read.
    """
    if row.width > 0 and row.height > 0:
        return row.width, row.height
    content = read_image(inside(out, row.file), row.file)
    frame = image_frame(content, row.source, row.topic, row.stamp_ns, row.file)
    return frame.width, frame.height


def class_names(rows: Iterable[ManifestRow]) -> list[str]:
    """Return every label of frames and boxes, sorted: a class's number is its place."""
    if isinstance(rows, DataSetManifest):
        labels: Iterable[set[str]] = rows.labels()
    else:
        labels = ({row.label, *(box.label for box in row.boxes)} for row in rows)
    return sorted(set[str]().union(*labels) - {""})
