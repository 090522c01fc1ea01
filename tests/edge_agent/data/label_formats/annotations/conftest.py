"""Data sets as tools write them, and what is read of them."""

import pytest

from edge_agent.data.labels import LabelSettings, labelled_frames
from fleet_model.files.damage import DamageLog


@pytest.fixture
def read_set(tmp_path, make_picture):
    """Write name -> content below "set"; None is a picture of 32 x 24. Return what is read.

    That is image name -> (label, corners of the boxes), and kind -> count of the damage.
    """

    def read(files, path="set"):
        for number, (name, content) in enumerate(files.items()):
            file = tmp_path / "set" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            data = make_picture(number) if content is None else content
            file.write_bytes(data if isinstance(data, bytes) else data.encode())
        damage = DamageLog()
        found = {
            each.frame.topic: (each.label, [(b.label, b.x0, b.y0, b.x1, b.y1) for b in each.boxes])
            for each in labelled_frames(tmp_path / path, LabelSettings(), damage)
        }
        read.damage = {each.kind: (each.count, each.begins) for each in damage.all()}
        return found

    return read
