"""Whether tables lie at a path, or frames."""

from pathlib import Path

from edge_agent.data.frames.source import IMAGE_SUFFIXES, VIDEO_SUFFIXES, storage_suffix
from fleet_model.files.folders import files_below
from fleet_model.tables.find import counts, table_suffix


def is_tables(path: Path) -> bool:
    """Return whether a table lies there, or a folder with tables and nothing that has frames."""
    if not path.is_dir():
        return bool(table_suffix(path.name)) and path.is_file()
    found = False
    for file in files_below(path, lambda *_: None):
        name = file.name.lower()
        if (
            name.endswith((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
            or storage_suffix(name)
            or "tfrecord" in name
        ):
            return False
        found = found or counts(file.relative_to(path).as_posix())
    return found
