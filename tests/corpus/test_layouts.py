"""Data sets of every layout that people have, against labels computed beside them."""

import csv
import json
import zlib

import numpy as np
import pytest

pytest.importorskip("mcap", reason="needs the mcap library")

from corpus_checks import LOSSES, run_extract
from corpus_exports import EXPORTS, episodes
from corpus_layouts import LAYOUTS, picture, scenes_of

pytestmark = pytest.mark.base


@pytest.mark.parametrize("what", LAYOUTS | EXPORTS)
def test_every_picture_has_the_labels_that_somebody_gave_it_and_no_other(what, tmp_path):
    layout = (LAYOUTS | EXPORTS)[what](scenes_of(np.random.default_rng(zlib.crc32(what.encode()))))
    pictures = {name: picture(number) for number, name in enumerate(layout.truth)}
    for name, content in (layout.files | pictures).items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "set" / name).write_bytes(data)
    out = tmp_path / "out"
    code, told = run_extract(tmp_path / "set", out)
    assert {each["kind"]: each["count"] for each in told["damage"]} == layout.damage
    assert code == (LOSSES if layout.damage else 0)
    rows = list(csv.DictReader((out / "manifest.csv").open(encoding="utf-8")))
    assert {row["topic"]: (row["label"], _boxes(row["boxes"])) for row in rows} == layout.truth
    for row in rows:
        assert (out / row["file"]).read_bytes() == pictures[row["topic"]]


def test_every_picture_of_an_episode_is_a_frame(tmp_path):
    files, pictures = episodes()
    out = tmp_path / "frames"
    for name, content in files.items():
        (tmp_path / "arm").mkdir(exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "arm" / name).write_bytes(data)
    code, told = run_extract(tmp_path / "arm", out)
    assert (code, told["frames_seen"], told["frames_written"]) == (0, 8, 8)
    rows = list(csv.DictReader((out / "manifest.csv").open(encoding="utf-8")))
    assert [(row["topic"], (out / row["file"]).read_bytes()) for row in rows] == pictures


def _boxes(text):
    corners = ("label", "x0", "y0", "x1", "y1")
    return tuple(tuple(box[name] for name in corners) for box in json.loads(text or "[]"))
