"""Read a bag as the library and as the command do; compare every pixel with what was recorded."""

import contextlib
import csv
import io
import json
import sys
from collections import Counter
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from corpus_bags import CAMERA, PERIOD_NS, SLOW_NS, START_NS
from corpus_files import read_png, read_tiff

from edge_agent.cli import main
from edge_agent.data.frames.bag import BagFrames
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

LOSSES = 13  # exit code


class Losses(NamedTuple):
    """What must be missing, and what must be said about it."""

    frames: frozenset[int] = frozenset()  # by number, all that are missing
    skipped: dict[str, int] = {}  # noqa: RUF012  reason -> frames whose place is known
    kinds: frozenset[str] = frozenset()  # of damage that has no frame of its own


def check_reading(path, pictures, losses, stamps=None):
    """Compare what BagFrames yields; frames are known by their stamps."""
    expected = _expected(pictures, losses, stamps)
    damage, read, reasons = DamageLog(), [], Counter()
    for entry in BagFrames(path).entries(damage):
        try:
            frame = entry.load()
        except FrameError as error:
            reasons[error.reason] += 1
            continue
        assert frame.topic == CAMERA
        read.append(frame.stamp_ns)
        picture = expected[len(read) - 1][1]
        _compare(frame.pixels(), picture.pixels, picture)
        if picture.rgb is not None:
            _compare(frame.decode(), picture.rgb, picture)
        else:
            _require_no_picture(frame)
        assert (frame.height, frame.width) == picture.pixels.shape[:2]
        if picture.file:
            assert bytes(frame.data) == picture.file
    assert read == [stamp for stamp, _ in expected]
    assert dict(reasons) == losses.skipped, damage.sentence()
    assert {d.kind for d in damage.all()} == losses.kinds, damage.sentence()
    _check_positions(path, [d.begins for d in damage.all()])


def check_extracting(path, pictures, losses, out, stamps=None):
    """Compare what `edge-agent extract` writes and says."""
    expected = _expected(pictures, losses, stamps)
    code, summary = run_extract(path, out)
    has_losses = bool(losses.frames or losses.kinds)
    assert code == (LOSSES if has_losses else 0), summary
    assert summary["skipped"] == losses.skipped
    assert summary["frames_written"] == len(expected)
    assert summary["frames_seen"] == len(expected) + sum(losses.skipped.values())
    counts = {d["kind"]: d["count"] for d in summary["damage"]}
    assert set(counts) == losses.kinds | set(losses.skipped)
    for reason, count in losses.skipped.items():
        assert counts[reason] == count + (reason in losses.kinds)
    _check_positions(path, [d["begins"] for d in summary["damage"]])
    with (out / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["stamp_ns"]) for row in rows] == [stamp for stamp, _ in expected]
    assert len({row["file"] for row in rows}) == len(rows)
    for row, (_, picture) in zip(rows, expected, strict=True):
        assert (row["topic"], row["source"]) == (CAMERA, path.name)
        assert (int(row["height"]), int(row["width"])) == picture.pixels.shape[:2]
        _check_file(out / row["file"], picture)
    images = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert {name for name in images if not name.startswith(".")} == {
        *(row["file"] for row in rows),
        "manifest.csv",
    }


def run_extract(path, out):
    """Run the command in this process; return its exit code and the JSON of its last line."""
    words = ["edge-agent", "extract", str(path), "--out", str(out), "--json"]
    printed = io.StringIO()
    with patch.object(sys, "argv", words), contextlib.redirect_stdout(printed):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return code, json.loads(printed.getvalue().splitlines()[-1])


def _expected(pictures, losses, stamps):
    """Return (stamp, picture) of the frames that must come out, in their order."""
    stamps = stamps or [START_NS + i * PERIOD_NS - SLOW_NS for i in range(len(pictures))]
    kept = [i for i in range(len(pictures)) if i not in losses.frames]
    return [(stamps[i], pictures[i]) for i in kept]


def _check_file(file, picture):
    content = file.read_bytes()
    if picture.file:
        assert content == picture.file
    elif picture.pixels.dtype not in (np.uint8, np.uint16) or picture.pixels.shape[2:] > (4,):
        _compare(read_tiff(content), picture.pixels, picture)
    else:
        pixels = read_png(content)
        if picture.pixels.ndim == 3 and picture.pixels.shape[2] == 2:  # two channels as R=G=B, A
            assert np.array_equal(pixels[..., 0], pixels[..., 1])
            assert np.array_equal(pixels[..., 0], pixels[..., 2])
            pixels = pixels[..., [0, 3]]
        _compare(pixels, picture.pixels, picture)


def _compare(pixels, expected, picture):
    assert (pixels.shape, pixels.dtype) == (expected.shape, expected.dtype)
    if pixels.dtype.kind == "f":
        assert np.array_equal(pixels, expected, equal_nan=True)
        return
    inside = slice(picture.border, -picture.border or None)
    difference = pixels[inside, inside].astype(int) - expected[inside, inside]
    assert abs(difference).max() <= picture.tolerance


def _require_no_picture(frame):
    with pytest.raises(FrameError) as caught:
        frame.decode()
    assert caught.value.reason == "not a color picture"


def _check_positions(path, begins):
    """Every place names the bag or its file, and no directory of this machine."""
    for position in begins:
        assert str(path.parent) not in position
        assert position.startswith(path.name.partition(".")[0]), position
