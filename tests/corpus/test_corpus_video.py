"""Video in every storage and container: the truth is the number that is painted into a picture."""

import csv
from itertools import cycle

import numpy as np
import pytest
from corpus_bags import PERIOD_NS, SLOW_NS, START_NS, STORAGES, camera_records
from corpus_checks import run_extract
from corpus_files import read_png
from corpus_pictures import compressed
from loaded_frames import frames_of
from video_clips import number_in, packets, write_clip

from edge_agent.data.frames.bag import BagFrames
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.slow

COUNT, GROUP = 12, 10  # pictures; the second key frame is picture 10
STREAMS = [("h264", 0), ("h265", 0), ("h264", 2), ("h265", 2)]
FORMS = {"h264": ["h264", "H264"], "h265": ["h265", "hevc"]}
OPTIONS = {
    "libx264": {"bf": "2"},
    "libx265": {"x265-params": "bframes=2:log-level=none"},
    "mpeg4": {},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
CLIPS = [(name, codec) for name in ("a.mp4", "a.MOV", "a.mkv") for codec in ("libx264", "libx265")]
CLIPS += [("a.m4v", "libx264"), ("a.avi", "mpeg4"), ("b.AVI", "mpeg4"), ("a.webm", "libvpx-vp9")]


@pytest.fixture(scope="module")
def clip():
    made = {}

    def of(codec, b_frames):
        if (codec, b_frames) not in made:
            made[codec, b_frames] = packets(codec, COUNT, b_frames)
        return made[codec, b_frames]

    return of


@pytest.mark.parametrize(
    ("storage", "stream", "first"),
    list(zip(STORAGES, cycle(STREAMS), cycle([0, 3, 0, 3, 3, 0, 3, 0]))),
    ids=str,
)
def test_every_picture_of_a_stream_has_its_stamp(clip, storage, stream, first, tmp_path):
    codec, b_frames = stream
    sent = clip(codec, b_frames)[first:]
    forms = cycle(FORMS[codec])
    messages = [compressed(next(forms), data) for _, data in sent]
    stamps = [START_NS + number * PERIOD_NS - SLOW_NS for number, _ in sent]
    path = STORAGES[storage](tmp_path / "bag", camera_records(messages, stamps))
    damage = DamageLog()
    frames = list(frames_of(BagFrames(path), damage))
    right = [number for number, _ in sent if not first or number >= GROUP]
    assert [(f.stamp_ns, number_in(f.decode())) for f in frames] == [
        (START_NS + number * PERIOD_NS - SLOW_NS, number) for number in right
    ]
    lost = len(sent) - len(right)
    assert [(loss.kind, loss.count) for loss in damage.all()] == (
        [("before the first key frame", lost)] if lost else []
    )


@pytest.mark.parametrize(("name", "codec"), CLIPS)
def test_every_picture_of_a_file_is_extracted_with_its_stamp(tmp_path, name, codec):
    steps = np.random.default_rng(len(name) + len(codec)).integers(20, 200, COUNT)
    times_ms = [int(ms) for ms in np.cumsum(steps)]
    if name.lower().endswith(".avi"):
        times_ms = [number * 1000 / 30 for number in range(COUNT)]
    path = write_clip(tmp_path / name, times_ms, codec, **OPTIONS[codec])
    code, summary = run_extract(path, tmp_path / "out")
    assert code == 0, summary
    with (tmp_path / "out/manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows):
        assert number_in(read_png((tmp_path / "out" / row["file"]).read_bytes())) == number
        assert int(row["stamp_ns"]) / 1e6 == pytest.approx(times_ms[number], abs=0.51)
    assert len(rows) == COUNT
