"""Extract from a camera: until the end that was asked for, or until Ctrl-C."""

import csv
import os
import signal
from itertools import repeat

import pytest
from rtsp_server import RtspServer
from video_clips import packets

from edge_agent.data.extraction.extract import ExtractOptions, extract
from edge_agent.data.extraction.selection import Selection, TimeLimit
from edge_agent.data.frames.source import source_path
from fleet_model.errors import SettingsError


@pytest.fixture
def camera():
    server = RtspServer(repeat([data for _, data in packets("h264", 20)]))
    yield source_path(f"rtsp://me:s3cret@127.0.0.1:{server.port}/live")
    server.close()


def interrupted_after(count):
    """Return what sends one Ctrl-C when so many frames were seen."""
    sent = []

    def progress(done):
        if done.seen >= count and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    return progress


def test_ctrl_c_ends_with_a_whole_data_set(camera, tmp_path):
    options = ExtractOptions(paths=(camera,), out=tmp_path / "out", image_format="jpeg")
    summary = extract(options, interrupted_after(10))
    assert summary.frames_written == summary.frames_seen >= 10
    with (tmp_path / "out/manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == summary.frames_written
    assert all((tmp_path / "out" / row["file"]).is_file() for row in rows)
    assert {row["source"] for row in rows} == {camera_name(camera)}
    texts = [file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert not any(b"s3cret" in text for text in texts)
    again = "live from .* choose another --out"
    with pytest.raises(SettingsError, match=again) as caught:
        extract(options)
    assert "s3cret" not in str(caught.value)


def camera_name(path):
    return f"rtsp://127.0.0.1:{os.fspath(path).rpartition(':')[2]}"


def test_the_end_is_counted_from_the_first_frame(camera, tmp_path):
    end = Selection(end=TimeLimit(300_000_000, absolute=False))
    summary = extract(ExtractOptions(paths=(camera,), out=tmp_path / "out", selection=end))
    with (tmp_path / "out/manifest.csv").open(newline="") as stream:
        stamps = [int(row["stamp_ns"]) for row in csv.DictReader(stream)]
    assert stamps[-1] - stamps[0] < 300_000_000
    assert summary.frames_seen == len(stamps)
