"""What `enroll` and `doctor` say of examples before the first round: real bags and folders."""

import os
import re
from pathlib import Path

import pytest

from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from edge_agent.examples.look import look_at_examples
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink

pytestmark = pytest.mark.base

LABELS = ("circle", "square", "star")
DRIVE = ["circle", "square", "star"] * 40


@pytest.fixture
def look(tmp_path, bags):
    """Return (states, all text) of a robot with these paths."""

    def call(*paths, labels=LABELS, boxes=False, **examples):
        given = {"paths": paths, "label_topic": bags.LABELS, **examples}
        settings = AgentSettings(
            server=ServerLink(address="localhost:1"),
            state=tmp_path / "state",
            examples=ExampleSettings(**given),
        )
        found = look_at_examples(settings, labels, boxes=boxes)
        assert all(one.subject == "examples" for one in found)
        assert all(bool(one.next_step) == (one.state != "ok") for one in found)
        call.steps = [one.next_step for one in found if one.next_step]
        return [one.state for one in found], "\n".join(one.text for one in found)

    return call


def test_a_good_recording_is_told_with_topics_and_counts_per_label(bags, tmp_path, look):
    bag = bags.drive(tmp_path / "r1", DRIVE)
    states, text = look(bag, labels=(*LABELS, "moon"))
    assert states == ["ok", "ok"]
    first, verdict = text.splitlines()
    assert first.startswith(f"{bag}: 1")
    assert f"camera {bags.CAMERA}, labels {bags.LABELS}" in first
    assert verdict.startswith("can train: ")
    assert verdict.endswith(" circle, 40 square, 39 star, 0 moon; none of moon") or (
        " circle, " in verdict and verdict.endswith("0 moon; none of moon")
    )


def test_frames_that_a_person_has_labelled_here_count_once(bags, tmp_path, look, picture_bytes):
    frames = tmp_path / "state" / "labels" / "frames"
    frames.mkdir(parents=True)
    rows = [
        ManifestRow(file=f"{n}.jpg", topic="/c", stamp_ns=n, source="r1", label="circle")
        for n in range(3)
    ]
    for row in rows:
        (frames / row.file).write_bytes(picture_bytes(row.stamp_ns))
    write_manifest(frames / MANIFEST, rows)
    bag = bags.drive(tmp_path / "r1", DRIVE)
    states, text = look(bag)
    assert states == ["ok", "ok", "ok"]
    of_bag, of_person, verdict = text.splitlines()
    assert of_person == f"{frames}: 3 examples"
    counted = [int(number) for number in re.findall(r"\d+", verdict)]
    assert counted[0] + counted[1] == int(of_bag.split(": ")[1].split()[0]) + 3


def test_boxes_are_counted_with_the_pictures_that_show_nothing(tmp_path, look, picture_bytes):
    lines = ["file,label,x0,y0,x1,y1"]
    for index in range(40):
        (tmp_path / f"{index}.jpg").write_bytes(picture_bytes(index))
        if index < 24:
            lines += [f"{index}.jpg,circle,1,2,9,8", f"{index}.jpg,star,1,2,20,8"]
        elif index < 30:
            lines.append(f"{index}.jpg,,,,,")
        elif index < 33:
            lines.append(f"{index}.jpg,Star,1,2,9,8")
    (tmp_path / "labels.csv").write_text("\n".join([*lines, ""]))
    states, text = look(tmp_path, boxes=True, label_topic="", held_out=0.5)
    first, verdict, *others = text.splitlines()
    assert ": 30 examples; left out: " in first
    assert "7 in which nobody has said what is there" in first
    assert "3 labelled 'Star', which is not learned (did you mean 'star'?)" in first
    assert first.endswith("; 6 show nothing")
    assert verdict.startswith("can train: 15 to learn from, 15 held out; 24 circle, 0 square, ")
    assert verdict.endswith("24 star; none of square")
    assert [one.partition(",")[0] for one in others] == ["fewer than 20 held-out examples"]
    assert states == ["ok", "ok", "warn"]


def test_where_it_is_not_known_what_the_fleet_learns_a_picture_may_be_without_a_label(
    tmp_path, look, picture_bytes
):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(picture_bytes(index))
    lines = ["0.jpg,circle,1,2,9,8", "0.jpg,star,1,2,20,8", "1.jpg,circle,1,2,9,8", "2.jpg,,,,,"]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,x0,y0,x1,y1", *lines, ""]))
    _, text = look(tmp_path, labels=(), label_topic="")
    assert "1 show several labels, the largest box's counts unless the fleet learns boxes" in text
    assert "labels: 1 without a label, 1 circle, 1 star; not compared" in text


def test_one_label_of_boxes_is_no_concern_and_empty_pictures_are_examples(
    tmp_path, look, picture_bytes
):
    for index in range(60):
        (tmp_path / f"{index}.jpg").write_bytes(picture_bytes(index))
    lines = [f"{index}.jpg,{'circle,1,2,9,8' if index % 2 else ',,,,'}" for index in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,x0,y0,x1,y1", *lines, ""]))
    states, text = look(tmp_path, labels=["circle"], boxes=True, label_topic="", held_out=0.5)
    assert states == ["ok", "ok"], text
    lines = [f"{index}.jpg,,,,," for index in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,x0,y0,x1,y1", *lines, ""]))
    states, text = look(tmp_path, labels=["circle"], boxes=True, label_topic="", held_out=0.5)
    assert text.splitlines()[0].endswith(": 60 examples; 60 show nothing")
    assert text.splitlines()[1].startswith("can train: 30 to learn from, 30 held out; 0 circle")


def test_labels_by_aliases_count_as_the_fleets_and_are_told(bags, tmp_path, look):
    bag = bags.drive(tmp_path / "r1", [*DRIVE[:60], *["Circle"] * 60])
    states, text = look(bag, aliases={"Circle": "circle"})
    assert states == ["ok", "ok"]
    assert "; by aliases: " in text
    assert " 'Circle' as 'circle'" in text
    assert "which is not learned" not in text


def test_pictures_with_several_labels_are_counted_for_one_of_them_is_learned(
    tmp_path, look, picture_bytes
):
    for folder in ("images", "labels"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    (tmp_path / "set" / "data.yaml").write_text("names: [circle, square]\n")
    for name, boxes in (("a", "01"), ("b", "00"), ("c", "10"), ("d", "1")):
        (tmp_path / "set" / "images" / f"{name}.png").write_bytes(picture_bytes(ord(name), ".png"))
        lines = [f"{one} .5 .5 .{n + 2} .{n + 2}" for n, one in enumerate(boxes)]
        (tmp_path / "set" / "labels" / f"{name}.txt").write_text("\n".join(lines) + "\n")

    _, text = look(tmp_path / "set")

    assert "4 examples; 2 show several labels, the largest box's counts" in text
    assert "2 circle, 2 square" in text


def test_misspelt_labels_are_named_with_the_nearest(bags, tmp_path, look):
    bag = bags.drive(tmp_path / "r1", [*DRIVE[:60], *["Circle"] * 60])
    states, text = look(bag)
    assert states[-1] == "warn"
    assert "60 labelled 'Circle', which is not learned (did you mean 'circle'?)" in text
    assert "many labels that this fleet does not learn, so look at their spelling (60 of" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_topic": "/terrain"}, "/camera/label"),
        ({"topic": "/front"}, "/camera/image/compressed"),
    ],
)
def test_a_wrong_topic_fails_with_the_topics_that_there_are(bags, tmp_path, look, options, words):
    bag = bags.drive(tmp_path / "r1", DRIVE)
    states, text = look(bag, **options)
    assert states == ["fail"]
    assert words in text
    assert "no example has a label" not in text


def test_a_bag_without_the_label_topic_beside_one_with_it_is_a_warning(
    bags, image_folder, tmp_path, look
):
    good, lacking = bags.drive(tmp_path / "r1", DRIVE), bags.drive(tmp_path / "r2", [""] * 5)
    states, text = look(lacking, good)
    assert states == ["warn", "ok", "ok"]
    assert f"{lacking}: no frame of any recording can be read: r2: no label topic" in text
    assert look.steps == ["its frames teach nothing: label them, or remove it"]
    assert look(good, lacking)[0] == ["ok", "warn", "ok"]
    # A data set has no topics: the name may be wrong for every bag.
    states, _ = look(lacking, image_folder("pictures", dict.fromkeys(LABELS, 10)))
    assert states[:2] == ["fail", "ok"]


def test_two_cameras_fail_and_say_that_one_must_be_named(bags, tmp_path, look, picture_bytes):
    stamp = bags.START_NS
    picture = bags.jpeg(stamp, picture_bytes(0))
    bag = bags.write(tmp_path / "r1", [("/left", stamp, picture), ("/right", stamp, picture)])
    states, text = look(bag)
    assert states[0] == "fail"
    assert "/left" in text
    assert "/right" in text


def test_no_label_of_the_fleet_fails(bags, tmp_path, look):
    states, text = look(bags.drive(tmp_path / "r1", ["water"] * 9))
    assert states == ["ok", "fail"]
    assert "cannot train: no example has a label of the fleet" in text


def test_without_the_fleets_labels_those_of_the_recordings_are_counted(bags, tmp_path, look):
    states, text = look(bags.drive(tmp_path / "r1", DRIVE), labels=())
    assert states == ["ok", "warn"]
    assert "labels: " in text
    assert " circle, " in text


def test_paths_that_are_not_there_or_not_readable_are_told(tmp_path, look, monkeypatch):
    locked = tmp_path / "locked"
    locked.mkdir()
    access = os.access  # root may read everything
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and access(path, mode))
    states, text = look(tmp_path / "nope", locked)
    assert states == ["warn", "fail"]
    assert f"{tmp_path}/nope: no such file or folder yet" in text
    assert f"{locked}: this user may not read it" in text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"hello", "notes.txt: neither a bag nor an image; expected a rosbag2 folder"),
        ("a.mcap", b"", "a.mcap: is empty"),
        ("a.db3", b"", "a.db3: has 0 bytes, less than one page; the recording never began"),
        ("a.bag", b"#ROSBAG V2.0\nxx", "a.bag: holds no topic; it ends too early"),
    ],
)
def test_files_that_are_no_recording_are_named_with_what_is_wrong(
    tmp_path, look, name, content, words
):
    (tmp_path / name).write_bytes(content)
    states, text = look(tmp_path / name)
    assert states == ["fail"]
    assert f"no frame of any recording can be read: {words}" in text


def test_an_empty_folder_is_no_success_and_one_warning_is_enough(tmp_path, look):
    (tmp_path / "bags").mkdir()
    assert look(tmp_path / "bags") == (["warn"], f"{tmp_path / 'bags'}: no examples in it yet")


def test_labels_that_are_like_none_of_the_fleets_may_be_added_to_it(bags, tmp_path, look):
    look(bags.drive(tmp_path / "r1", [*DRIVE[:60], *["deep water"] * 60]))
    learn = "to learn them, on the server run `cloud-server labels add DIR 'deep water'`"
    assert learn in look.steps
    assert "correct the spelling" not in look.steps
    look(bags.drive(tmp_path / "r2", ["water"] * 9))
    assert look.steps[0].endswith("run `cloud-server labels add DIR water`")
    look(bags.drive(tmp_path / "r3", [*DRIVE[:60], *["Circle"] * 60]))
    assert "correct the spelling" in look.steps


def test_a_robot_without_examples_is_told_that_it_never_trains(look):
    assert look() == (["warn"], "none are named: this robot never trains")


def test_a_spool_with_nothing_in_it_yet_is_as_it_should_be(tmp_path, look):
    assert look(spool=tmp_path / "in") == (["ok"], f"none yet: they come from {tmp_path / 'in'}")


def test_a_source_of_ones_own_is_not_opened(look):
    assert look(source="mine:Gauges") == (["ok"], "from the source mine:Gauges; not opened here")


def test_nothing_is_written(bags, tmp_path, look):
    look(bags.drive(tmp_path / "r1", DRIVE))
    assert not Path(tmp_path / "state").exists()


@pytest.fixture
def tickets(tmp_path):
    path = tmp_path / "tickets.csv"
    rows = [f'"ticket number {n}, please",{("circle", "square", "star")[n % 3]}' for n in range(90)]
    path.write_text("\n".join(["body,queue", *rows, "no label,", "mistyped,Circle", '"bad,star']))
    return path


def test_a_table_of_texts_is_told_with_its_columns_and_first_rows(tickets, look):
    states, text = look(tickets, source="texts")
    table, verdict, concern = text.splitlines()
    assert table == (
        f"{tickets}: 90 examples, text in 'body' (by its name), labels in 'queue' (by the fleet's "
        "labels); left out: 1 without a label (first tickets.csv line 92), 1 labelled 'Circle', "
        "which is not learned (did you mean 'circle'?) (first tickets.csv line 93), 1 damaged row "
        "(first tickets.csv line 94)"
    )
    assert verdict.startswith("can train: 7")
    assert verdict.endswith("held out; 30 circle, 30 square, 30 star")
    assert concern.startswith("fewer than 20 held-out examples")
    assert states == ["ok", "ok", "warn"]


def test_texts_that_cannot_be_read_are_told_with_what_to_correct(tickets, tmp_path, look):
    states, text = look(tickets, source="texts", options={"text": "boddy"})
    assert states == ["fail"]
    assert text.endswith("tickets.csv: has no column 'boddy'; it has 'body', 'queue'")
    assert look.steps == ["correct examples.paths or examples.options in agent.toml"]
    states, text = look(tickets, source="texts", boxes=True)
    assert states == ["fail"]
    assert "this fleet learns boxes in pictures" in text
    states, _ = look(tickets)  # as agent.toml has it by default
    assert states == ["fail"]
    assert look.steps == ['texts are read with source = "texts" in [examples] of agent.toml']
    states, text = look(source="texts")
    assert (states, look.steps) == (["warn"], ["name tables in examples.paths"])
