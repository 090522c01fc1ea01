"""Roboflow's `_classes.csv`: a column for each class, 1 where a picture is of it."""

from collections.abc import Iterator
from pathlib import Path

from edge_agent.data.label_formats.annotations.told import Told
from edge_agent.data.manifest import read_table
from fleet_model.files.damage import DamageLog

NAME = "_classes.csv"


def told_by_one_hot(path: Path, file: str, damage: DamageLog) -> Iterator[Told]:
    """Yield what a table of classes says: of several classes of one picture, each one.

    Args:
        path: the table.
        file: its name in the data set.
        damage: gets the lines that say nothing.

    Raises:
        FrameError: it has no column filename.
    """
    for line, cells in read_table(path, ("filename",), damage):
        classes = {name: cell.strip() for name, cell in cells.items() if name != "filename"}
        if not set(classes.values()) <= {"0", "1"}:
            damage.add("bad label line", f"{path.name} line {line}: expected 0 or 1 for each class")
            continue
        yield Told((cells["filename"],), file, line)
        for name, cell in classes.items():
            if cell == "1":
                yield Told((cells["filename"],), file, line, name)
