"""Data sets as extraction lays them out, and what is in them."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_agent.data.label_formats.data_set import open_format
from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

START_NS = 1_760_000_000_000_000_000


def picture(index, suffix=".jpg", shape=(24, 32, 3), dtype=np.uint8):
    """Return the bytes of a small picture of noise."""
    top = 255 if dtype == np.uint8 else 65535
    pixels = np.random.default_rng(index).integers(0, top, shape).astype(dtype)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def box(label="bin", x0=1.5, y0=2.25, x1=10.1, y1=20.3):
    return Box(label=label, x0=x0, y0=y0, x1=x1, y1=y1)


class DataSetWriter:
    """Writes data sets in the way of extraction: place, images, finish, manifest."""

    def __init__(self, root):
        self.root = root

    def row(self, index=0, **fields):
        made = {
            "file": f"run-{START_NS + index}.jpg",
            "topic": "/camera",
            "stamp_ns": START_NS + index,
            "source": "run",
            "width": 32,
            "height": 24,
        }
        return ManifestRow(**(made | fields))

    def write(self, form, rows, name="set", pictures=None, manifest=True):
        """Return the directory and the rows as placed."""
        out, kind = self.root / name, open_format(form)
        placed = [replace(row, file=kind.path_of(row)) for row in rows]
        for index, row in enumerate(placed):
            (out / row.file).parent.mkdir(parents=True, exist_ok=True)
            content = pictures[index] if pictures else picture(index)
            (out / row.file).write_bytes(content)
        kind.finish(out, placed)
        if manifest:
            write_manifest(out / MANIFEST, placed)
        return out, placed


def load(form, path, damage=None):
    """Return every labelled frame of a data set; without a DamageLog there must be no damage."""
    log = DamageLog() if damage is None else damage
    found = [entry.load() for entry in open_format(form).entries(path, log)]
    lost = {each.kind for each in log.all()} - {"box mostly outside the picture"}  # it stays
    assert damage is not None or not lost, log.sentence()
    return found


@pytest.fixture
def data_sets(tmp_path):
    return DataSetWriter(tmp_path)


@pytest.fixture
def make_picture():
    return picture


@pytest.fixture
def make_box():
    return box


@pytest.fixture
def load_all():
    return load
