"""Predict over video files and a camera."""

import csv
import io

import pytest
from rtsp_server import RtspServer
from video_clips import packets, write_clip

from edge_agent.data.frames.source import source_path
from edge_agent.models.predict import run_predict
from edge_agent.models.predict_options import PredictOptions


@pytest.fixture
def rows(tmp_path, gray_engine):
    """Return what predict writes over a path."""

    def predicted(path, **options):
        stdout = io.StringIO()
        wanted = PredictOptions(path=path, bundle=tmp_path / "bundle", **options)
        run_predict(wanted, stdout, lambda bundle, precision: gray_engine(["clear", "blocked"]))
        return list(csv.DictReader(io.StringIO(stdout.getvalue())))

    return predicted


def test_each_frame_of_a_video_has_a_row_with_its_stamp_and_truth(tmp_path, rows):
    path = write_clip(tmp_path / "a.mp4", [1000, 1040, 1500])
    (tmp_path / "a.csv").write_text("start_s,label\n1.2,blocked\n")
    assert [(r["file"], r["topic"], r["stamp_ns"], r["truth"]) for r in rows(path)] == [
        ("a.mp4", "a.mp4", "1000000000", ""),
        ("a.mp4", "a.mp4", "1040000000", ""),
        ("a.mp4", "a.mp4", "1500000000", "blocked"),
    ]


def test_a_camera_is_named_in_full_but_for_the_password(rows):
    server = RtspServer([[data for _, data in packets("h264", 5)]] * 9, "me", "s3cret")
    try:
        found = rows(source_path(f"rtsp://me:s3cret@127.0.0.1:{server.port}/live"), limit=7)
    finally:
        server.close()
    assert {row["file"] for row in found} == {f"rtsp://127.0.0.1:{server.port}/live"}
    assert len(found) == 7
