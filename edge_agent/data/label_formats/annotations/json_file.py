"""Labels in JSON: read once, then whoever knows such content says what it means."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from edge_agent.data.label_formats.annotations.createml import told_by_createml
from edge_agent.data.label_formats.annotations.fiftyone import told_by_fiftyone
from edge_agent.data.label_formats.annotations.label_studio import told_by_label_studio
from edge_agent.data.label_formats.annotations.polygons import told_by_labelme, told_by_supervisely
from edge_agent.data.label_formats.annotations.told import Told
from fleet_model.files.damage import DamageLog
from fleet_model.files.text import read_text

# Each gets the content, the file's name in the data set, and the damage, which gets what of it
# cannot be read; it returns None for a file that is not its own.
Reader: TypeAlias = Callable[[Any, str, DamageLog], Iterator[Told] | None]
_READERS: tuple[Reader, ...] = (
    told_by_createml,
    told_by_label_studio,
    told_by_fiftyone,
    told_by_supervisely,
    told_by_labelme,
)


def told_by_json(path: Path, file: str, damage: DamageLog) -> Iterator[Told] | None:
    """Return what a JSON file says; None if nobody here knows it.

    Args:
        path: the file.
        file: its name in the data set.
        damage: gets what of it cannot be read.

    Raises:
        FrameError: it cannot be read.
    """
    try:
        content = json.loads(read_text(path, path.name, damage).lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return None
    told = (reader(content, file, damage) for reader in _READERS)
    return next((each for each in told if each is not None), None)
