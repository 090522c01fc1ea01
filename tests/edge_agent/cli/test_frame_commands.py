"""edge-agent extract and inspect as a person types them: outputs, exit codes, one line of error."""

import json
import os
import pty
import re
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from mcap.writer import Writer

pytestmark = pytest.mark.base

T0 = 1_760_000_000_000_000_000
CAMERA = "/camera/image/compressed"
# A CompressedImage of the format "h264": stamp, frame_id, format, data.
H264 = b"\0\1\0\0" + struct.pack("<iII4xI8sI8s", 1, 0, 1, 5, b"h264", 8, b"\0\0\0\1\x67ab\0")


def type_(*words, here, code=0):
    """Run in the folder `here`; return (stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert str(here) not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def damaged(bags, tmp_path, picture_bytes):
    """A bag of six frames, the second of which is cut."""
    contents = [picture_bytes(i) for i in range(6)]
    contents[1] = contents[1][:-20]
    step = 100_000_000
    messages = [
        (CAMERA, T0 + i * step, bags.jpeg(T0 + i * step, c)) for i, c in enumerate(contents)
    ]
    return bags.write(tmp_path / "r1", messages)


def test_extract_goes_into_a_folder_named_after_the_bag(bags, tmp_path):
    bags.drive(tmp_path / "r1", ["star", "circle"])
    out, said = type_("extract", "r1", "--labels", "/camera/label", here=tmp_path)
    assert out == "2 of 2 frames in r1.frames, 2 with a label\n"
    assert said == ""
    assert len(list((tmp_path / "r1.frames").rglob("*.jpg"))) == 2
    out, _ = type_("extract", "r1", "--label-topic", "/camera/label", here=tmp_path)
    assert out == "2 of 2 frames in r1.frames, 2 with a label\n  2 were already there\n"


def test_json_ends_with_the_counts_and_a_damaged_frame_that_nobody_wanted_is_no_loss(
    damaged, tmp_path
):
    words = ["extract", "r1", "--every-n", "1", "--rate-hz", "5", "--out", "o", "--json"]
    out, said = type_(*words, here=tmp_path)
    assert json.loads(out.splitlines()[-1]) == {
        "out": "o",
        "frames_seen": 6,
        "frames_written": 3,
        "frames_labelled": 0,
        "already_there": 0,
        "skipped": {"rate": 3},
        "left_out": [],
        "damage": [],
    }
    assert said == ""


def test_losses_end_with_13_and_say_where_they_begin(damaged, tmp_path):
    out, said = type_("extract", "r1", "--json", here=tmp_path, code=13)
    summary = json.loads(out)
    assert (summary["frames_seen"], summary["frames_written"]) == (6, 5)
    assert summary["skipped"] == {"cut jpeg": 1}
    (damage,) = summary["damage"]
    assert (damage["kind"], damage["count"]) == ("cut jpeg", 1)
    assert said.startswith("edge-agent: done, with losses: 1 x cut jpeg, first r1")
    assert said.count("\n") == 1


def test_bags_without_the_label_topic_are_named_counted_and_end_with_13(bags, tmp_path):
    for name, labels in {"r1": [""] * 4, "r2": ["star"] * 3, "r3": [""] * 2}.items():
        bags.drive(tmp_path / name, labels)
    words = ("extract", "r1", "r2", "r3", "--labels", bags.LABELS, "--out", "o")
    out, said = type_(*words, here=tmp_path, code=13)
    assert out.splitlines() == [
        "3 of 9 frames in o, 3 with a label",
        "  6 left out: no label topic",
        "  nothing of r1, r3",
    ]
    assert said.startswith(
        "edge-agent: done, with losses: 6 x no label topic, first r1: no label topic /camera/label;"
    )
    summary = json.loads(type_(*words, "--json", here=tmp_path, code=13)[0])
    assert (summary["skipped"], summary["left_out"]) == ({"no label topic": 6}, ["r1", "r3"])
    out, said = type_("extract", "r1", "r3", *words[4:-1], "p", here=tmp_path, code=5)
    assert said.startswith("edge-agent: r1: no label topic /camera/label; it has none")
    assert not (tmp_path / "p").exists()


def test_start_and_end_are_seconds_or_times(damaged, tmp_path):
    words = ["--start", "0.15", "--end", "2025-10-09T08:53:20.45Z", "--json"]
    out, _ = type_("extract", "r1", *words, here=tmp_path)
    assert json.loads(out)["skipped"] == {"time range": 3}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["extract", "ros:/camera/image"], 5, "ros:/camera/image: needs ROS 2"),
        (["extract", "ros:/a", "r1"], 2, "ros:/a: is live and does not end; extract it alone"),
        (["extract", "ros:/a", "--labels", "/l"], 5, "ros:/a: is live and has no labels"),
        (["inspect", "rtsp://u:pw@cam/a"], 5, "rtsp://cam/a: is live; record a bag or extract"),
        (["extract", "gone"], 5, "gone: no such file"),
        (["extract", "r1", "--start", "noon"], 2, "--start noon: expected seconds"),
        (["extract", "r1", "--format", "voc"], 2, "choose coco, folder, tfds, yolo"),
        (["extract", "r1", "--image-format", "gif"], 2, "expected keep, jpeg, png"),
        (["extract", "pictures", "--labels", "typo.csv"], 2, "typo.csv: no such file"),
        (["extract", "r1", "--topic", "/x"], 5, "no camera topic /x"),
        (["extract", "r1", "--out", "r1"], 2, "r1: lies in r1, which is read"),
        (["inspect", "gone"], 5, "gone: no such file"),
    ],
)
def test_errors_are_one_line_with_the_next_step(
    damaged, image_folder, tmp_path, words, code, message
):
    image_folder("pictures", {"star": 1})
    _, said = type_(*words, here=tmp_path, code=code)
    assert message in said
    assert said.count("\n") == 1


def test_a_folder_around_bags_with_a_label_topic_names_the_bags(bags, tmp_path):
    bags.drive(tmp_path / "hall" / "r1", ["star"])
    words = ("extract", "hall", "--labels", bags.LABELS, "--out", "set")
    _, said = type_(*words, here=tmp_path, code=5)
    assert said == "edge-agent: hall: holds bags but is none; name one of them: r1\n"


def test_label_topics_that_nobody_named_are_told(bags, tmp_path):
    bags.drive(tmp_path / "r1", ["star", "circle"])
    out, said = type_("extract", "r1", here=tmp_path)
    assert out == "2 of 2 frames in r1.frames, 0 with a label\n"
    hint = f"labels may be in {bags.LABELS}: add --labels {bags.LABELS}"
    assert said == f"edge-agent: {hint}\n"


def test_inspect_shows_a_table_and_draws_a_contact_sheet(bags, tmp_path):
    bags.drive(tmp_path / "r1", ["star"] * 4)
    out, said = type_("inspect", "r1", "--contact-sheet", "a.png", here=tmp_path)
    assert said == ""
    title, camera, label, labels, sheet = out.splitlines()
    columns = ["topic", "type", "messages", "rate", "from", "(UTC)", "seconds", "gaps"]
    assert title.split() == columns
    assert camera.split()[5:7] == ["2025-10-09", "08:53:20.009"]
    assert labels == f"labels of {bags.LABELS}, 4 frames: star 4, 0 without a label"
    assert camera.split()[:5] == [CAMERA, "sensor_msgs/CompressedImage", "4", "2.00", "Hz"]
    assert label.split()[0] == "/camera/label"
    assert sheet == "contact sheet: a.png"
    assert cv2.imread(str(tmp_path / "a.png")).shape[1] == 1636


def test_on_a_narrow_terminal_inspect_shows_a_line_for_each_cell(bags, tmp_path, monkeypatch):
    bags.drive(tmp_path / "r1", ["star"] * 4)
    monkeypatch.setenv("FORCE_COLOR", "1")  # stdout counts as a terminal
    monkeypatch.setenv("COLUMNS", "60")
    out, _ = type_("inspect", "r1", here=tmp_path)
    lines = out.splitlines()
    assert max(map(len, lines)) <= 60
    assert [line.split()[-1] for line in lines[:3]] == [CAMERA, "sensor_msgs/CompressedImage", "4"]
    assert lines.count(f"topic       {bags.LABELS}") == 1


def test_inspect_says_which_pictures_are_video_or_not_read(tmp_path):
    (tmp_path / "av.py").write_text("raise ImportError")  # as without the extra
    with (tmp_path / "a.mcap").open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        for kind, encoding, data in (
            ("foxglove.RawImage", "flatbuffer", b"any"),
            ("foxglove.CompressedVideo", "protobuf", b"any"),
            ("sensor_msgs/msg/CompressedImage", "cdr", H264),
        ):
            schema = writer.register_schema(kind, encoding, b"")
            channel = writer.register_channel(f"/{kind[:12]}", encoding, schema)
            writer.add_message(channel, T0, data, T0)
        writer.finish()
    out, said = type_("inspect", "a.mcap", here=tmp_path)
    assert said == ""
    assert sorted(line for line in out.splitlines() if " is a " in line) == [
        "not read: /foxglove.Raw is a foxglove.RawImage (flatbuffer)",
        "video: /foxglove.Com is a foxglove.CompressedVideo (protobuf); "
        "pip install 'fleetlearn[video]'",
        "video: /sensor_msgs/ is a sensor_msgs/CompressedImage (cdr); "
        "pip install 'fleetlearn[video]'",
    ]


def test_inspect_as_json_with_damage_ends_with_13(damaged, tmp_path):
    words = ["--json", "--contact-sheet", "a.png"]
    out, said = type_("inspect", "r1", *words, here=tmp_path, code=13)
    answer = json.loads(out)
    (topic,) = answer["topics"]
    assert topic == {
        "name": CAMERA,
        "type": "sensor_msgs/CompressedImage",
        "messages": 6,
        "rate_hz": 10.0,
        "first_ns": T0,
        "last_ns": T0 + 500_000_000,
        "gaps": [],
        "encoding": "cdr",
        "pictures": "read",
    }
    assert [(d["kind"], d["count"]) for d in answer["damage"]] == [("cut jpeg", 1)]
    assert answer["contact_sheet"] == "a.png"
    assert (tmp_path / "a.png").exists()
    assert "with losses" in said


def test_a_sheet_that_cannot_be_written_hides_neither_the_rest_nor_the_losses(damaged, tmp_path):
    words = ["--json", "--contact-sheet", "/proc/a.png"]
    out, said = type_("inspect", "r1", *words, here=tmp_path, code=12)
    assert json.loads(out)["topics"][0]["messages"] == 6
    assert json.loads(out)["contact_sheet"] is None
    assert "a.png: cannot be written (No such file or directory); losses: 1 x cut jpeg, " in said


@pytest.mark.parametrize("words", [[], ["--no-contact-sheet"]], ids=["", "as before"])
def test_no_contact_sheet_is_drawn_unless_one_is_asked_for(bags, tmp_path, words):
    bags.drive(tmp_path / "r1", ["star"])
    out, _ = type_("inspect", "r1", *words, "--json", here=tmp_path)
    assert json.loads(out)["contact_sheet"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["r1"]


def test_a_place_that_cannot_be_written_is_12(bags, tmp_path):
    bags.drive(tmp_path / "r1", ["star"])
    (tmp_path / "file").write_text("")
    out, said = type_("inspect", "r1", "--contact-sheet", "file/a.png", here=tmp_path, code=12)
    first = [line.split()[0] for line in out.splitlines()]
    assert first == ["topic", CAMERA, "/camera/label", "labels"]
    assert said == "edge-agent: file/a.png: cannot be written (Not a directory)\n"
    type_("extract", "r1", "--out", "file/out", here=tmp_path, code=12)


def test_a_picture_of_no_known_format_is_refused_before_the_bag_is_read(bags, tmp_path):
    bags.drive(tmp_path / "r1", ["star"])
    out, said = type_("inspect", "r1", "--contact-sheet", "sheet.pdf", here=tmp_path, code=2)
    assert (out, said) == (
        "",
        "edge-agent: --contact-sheet sheet.pdf: the name must end with .png\n",
    )
    out, said = type_("inspect", "r1", "--contact-sheet", "-", here=tmp_path, code=2)
    assert "stdout has the table already" in said


def see(*words, here):
    """Run on a terminal; return (stdout, what the terminal shows)."""
    own, shown = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.cli", *words],
        stdout=subprocess.PIPE,
        stderr=shown,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "TERM": "xterm"},
    )
    os.close(shown)
    out = process.stdout.read()
    said = b""
    try:
        while block := os.read(own, 65536):
            said += block
    except OSError:  # how a terminal ends
        pass
    os.close(own)
    assert process.wait() == 0
    return out, said.decode()


@pytest.mark.parametrize("command", ["extract", "inspect"])
def test_a_terminal_sees_progress_on_stderr_only(bags, tmp_path, command):
    bags.drive(tmp_path / "r1", ["star"] * 80)
    out, said = see(command, "r1", "--json", here=tmp_path)
    json.loads(out)
    assert "/s" in said


@pytest.mark.parametrize("options", [[], ["--every-n", "2"], ["--every-n", "7"]])
def test_the_bar_moves_whichever_frames_are_chosen(bags, tmp_path, options):
    bags.drive(tmp_path / "r1", ["star"] * 80)
    _, said = see("extract", "r1", *options, here=tmp_path)
    assert max(int(done) for done in re.findall(r"(\d+)/80", said)) >= 60


def test_a_data_set_has_a_total_too(bags, tmp_path):
    bags.drive(tmp_path / "r1", ["star"] * 80)
    type_("extract", "r1", "--out", "set", here=tmp_path)
    _, said = see("extract", "set", "--every-n", "2", "--out", "again", here=tmp_path)
    assert re.search(r"[4-9]\d/80", said)
