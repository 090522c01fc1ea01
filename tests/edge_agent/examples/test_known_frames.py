"""A second round over the same recordings, for every kind of recording that there is."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.data.frames.source import IMAGE_SUFFIXES
from edge_agent.data.label_formats.data_set import FORMATS, open_format
from edge_agent.data.labels import LabelSettings, labelled_frames
from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from edge_agent.examples import signatures
from edge_agent.examples.frame_index import FrameIndex
from edge_agent.examples.known_frames import KnownFrames
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

pytestmark = pytest.mark.base

LABELS = ["star", "circle", "", "star", "circle", "star"]
HOLDS_FRAMES = (*IMAGE_SUFFIXES, ".mcap", ".db3", ".db3-wal", ".bag", ".zstd", "tfrecord")
RECORDINGS = ["mcap", "sqlite3", "zstd", "bare", "ros1", *FORMATS]
_opened: list[str] | None = None


def _hear(event, arguments):
    if event == "open" and _opened is not None:
        _opened.append(os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else "")


sys.addaudithook(_hear)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Return a list that gains the name of every file below tmp_path that is opened."""
    names: list[str] = []

    def look():
        found = [name for name in names if Path(name).is_relative_to(tmp_path / "data")]
        names.clear()
        return [Path(name).relative_to(tmp_path / "data").as_posix() for name in found]

    monkeypatch.setitem(globals(), "_opened", names)
    # The files of a test are younger than any that a robot trusts.
    monkeypatch.setattr(signatures, "_TICK_NS", 0)
    return look


@pytest.fixture
def recording(tmp_path, bags, picture_bytes, ros1_bag):
    """Return a writer of one recording of a kind, with a box in every third frame."""
    data = tmp_path / "data"

    def data_set(kind):
        form, out, rows = open_format(kind), data / kind, []
        for index, label in enumerate(LABELS):
            box = Box(label=label, x0=1.5, y0=2.0, x1=20.1, y1=12.0)
            boxes = (box,) if label and index % 3 == 0 else ()
            row = ManifestRow(
                file=f"{index}.jpg", topic="/c", stamp_ns=bags.START_NS + index, source="r1",
                label=label, boxes=boxes, seen=index in (2, 4), width=32, height=24,
            )  # fmt: skip
            rows.append(replace(row, file=form.path_of(row)))
            (out / rows[-1].file).parent.mkdir(parents=True, exist_ok=True)
            (out / rows[-1].file).write_bytes(picture_bytes(index))
        form.finish(out, rows)
        write_manifest(out / MANIFEST, rows)
        return out

    def write(kind):
        if kind in FORMATS:
            return data_set(kind)
        data.mkdir(exist_ok=True)
        if kind == "ros1":
            return ros1_bag(data / "r1.bag", LABELS)
        if kind == "zstd":
            return bags.drive(data / "r1", LABELS, storage="sqlite3", mode="FILE")
        path = bags.drive(data / "r1", LABELS, storage="mcap" if kind == "bare" else kind)
        return path / "r1.mcap" if kind == "bare" else path

    return write


@pytest.fixture
def ros1_bag(bags, picture_bytes):
    def write(path, labels):
        from rosbags.rosbag1 import Writer
        from rosbags.typesys import Stores, get_typestore

        store = get_typestore(Stores.ROS1_NOETIC)
        image, text = "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
        with Writer(path) as writer:
            camera = writer.add_connection(bags.CAMERA, image, typestore=store)
            label_topic = writer.add_connection(bags.LABELS, text, typestore=store)
            for index, label in enumerate(labels):
                stamp = bags.START_NS + index * 10**9
                header = store.types["std_msgs/msg/Header"](
                    0, store.types["builtin_interfaces/msg/Time"](*divmod(stamp, 10**9)), "camera"
                )
                picture = bags.jpeg(stamp, picture_bytes(index))
                message = store.types[image](header, "jpeg", picture.data)
                writer.write(camera, stamp, store.serialize_ros1(message, image))
                if label:
                    said = store.serialize_ros1(store.types[text](label), text)
                    writer.write(label_topic, stamp, said)
        return path

    return write


@pytest.fixture
def listed(tmp_path, bags):
    """Return a lister as a new process is one: what it yields as values, and the damage."""

    def run(path, index=tmp_path / "index", **settings):
        known, damage = KnownFrames(FrameIndex(index)), DamageLog()
        settings = LabelSettings(**({"label_topic": bags.LABELS} | settings))
        found = list(known.labelled(path, settings, damage))
        known.end()
        return found, damage.all()

    return run


def values(found):
    return [
        (f.source, f.topic, f.stamp_ns, f.format, f.width, f.height, label, boxes, seen)
        for f, label, boxes, seen in found
    ]


def read_from(names):
    return [name for name in names if name.endswith(HOLDS_FRAMES) or "tfrecord" in name]


@pytest.mark.parametrize("kind", RECORDINGS)
def test_it_lists_what_labelled_frames_lists_and_the_second_time_reads_no_frame(
    kind, recording, listed, opened, bags
):
    path = recording(kind)
    damage = DamageLog()
    expected = list(labelled_frames(path, LabelSettings(label_topic=bags.LABELS), damage))
    opened()
    first, first_damage = listed(path)
    assert read_from(opened())
    second, second_damage = listed(path)
    assert read_from(opened()) == []
    assert values(first) == values(second) == values(expected)
    assert [f.label for f in second] == LABELS
    assert first_damage == second_damage == damage.all() == ()
    for known, frame in zip(second, expected, strict=True):
        assert known.frame.data == frame.frame.data
        assert (known.frame.decode() == frame.frame.decode()).all()
        assert (known.frame.pixels() == frame.frame.pixels()).all()
    assert read_from(opened())


@pytest.mark.parametrize("kind", RECORDINGS)
def test_frames_are_found_again_in_any_order(kind, recording, listed, opened):
    found, _ = listed(recording(kind))
    forward = [bytes(known.frame.data) for known in found]
    assert [bytes(known.frame.data) for known in reversed(found)] == forward[::-1]
    assert len(set(forward)) == len(LABELS)


@pytest.mark.parametrize("kind", RECORDINGS)
def test_a_recording_that_is_replaced_is_read_again(kind, recording, listed, opened, tmp_path):
    path = recording(kind)
    before, _ = listed(path)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")  # equal in all but inodes and times
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "copy").rename(tmp_path / "data")
    opened()
    after, _ = listed(path)
    assert read_from(opened())
    assert values(after) == values(before)
    listed(path)
    assert read_from(opened()) == []


LABEL_CHANGES = {
    "folder": ("labels.csv", "file,label\n{name},circle\n"),
    "yolo": ("labels/0.txt", "0 0.5 0.5 0.5 0.5\n"),
    "coco": ("annotations/instances.json", None),
}


@pytest.mark.parametrize("kind", LABEL_CHANGES)
def test_a_label_that_is_corrected_is_seen_though_no_picture_is_read(
    kind, recording, listed, opened
):
    path = recording(kind)
    before, _ = listed(path)
    file, text = LABEL_CHANGES[kind]
    if text is None:
        text = (path / file).read_text().replace("[1.5,", "[3.5,")
    (path / file).write_text(text.replace("{name}", "star/0.jpg"))
    opened()
    after, _ = listed(path)
    names = opened()
    assert file in [name.partition("/")[2] for name in names]
    assert read_from(names) == []
    expected = list(labelled_frames(path, LabelSettings(), DamageLog()))
    assert values(after) == values(expected) != values(before)


def test_labels_of_another_file_are_looked_up_in_every_round(recording, listed, opened, tmp_path):
    path, table = recording("mcap"), tmp_path / "labels.csv"
    frames, _ = listed(path, label_topic="")
    stamp_ns = frames[2].frame.stamp_ns
    table.write_text(f"stamp_ns,label\n{stamp_ns},tree\n")
    first, _ = listed(path, label_topic=str(table))
    table.write_text(f"stamp_ns,label\n{stamp_ns},bush\n")
    opened()
    second, _ = listed(path, label_topic=str(table))
    assert opened() == []
    assert [f.label for f in first] == ["", "", "tree", "", "", ""]
    assert [f.label for f in second] == ["", "", "bush", "", "", ""]


def test_the_pictures_of_a_data_set_that_labels_a_bag_are_read_once_too(
    recording, listed, opened, bags
):
    bag, data_set = recording("mcap"), recording("yolo")
    stamps = [f.frame.stamp_ns for f in listed(bag, label_topic="")[0]]
    rows = [
        ManifestRow(file=f"images/{i}.jpg", topic=bags.CAMERA, stamp_ns=stamp, source="r1")
        for i, stamp in enumerate(stamps)
    ]
    write_manifest(data_set / MANIFEST, rows)
    first, _ = listed(bag, label_topic=str(data_set))
    assert first[0].boxes
    opened()
    second, _ = listed(bag, label_topic=str(data_set))
    assert read_from(opened()) == []
    assert values(second) == values(first)


@pytest.mark.parametrize("form", ["folder", "yolo", "coco"])
def test_a_frame_that_is_found_empty_meanwhile_is_so_though_no_picture_is_read(
    recording, listed, opened, form
):
    path = recording(form)
    before, _ = listed(path)
    assert [each.seen for each in before] == [True, False, True, True, True, False]
    manifest = path / MANIFEST
    manifest.write_text(
        manifest.read_text().replace("r1,circle,,32,24,\n", "r1,circle,,32,24,[]\n")
    )
    opened()
    for _ in range(2):  # what was kept of the first listing is right, too
        after, _ = listed(path)
        assert [each.seen for each in after] == [True, True, True, True, True, False]
        assert read_from(opened()) == []


def test_one_more_picture_is_the_only_one_that_is_read(recording, listed, opened, picture_bytes):
    path = recording("folder")
    (path / MANIFEST).unlink()
    before, _ = listed(path)
    (path / "star" / "9.jpg").write_bytes(picture_bytes(9))
    opened()
    after, _ = listed(path)
    assert read_from(opened()) == ["folder/star/9.jpg"]
    assert len(after) == len(before) + 1
    listed(path)
    assert read_from(opened()) == []


def test_one_more_file_of_a_split_bag_is_the_only_one_whose_frames_are_read(
    bags, listed, tmp_path, opened, monkeypatch
):
    folder = tmp_path / "data" / "split"
    folder.mkdir(parents=True)
    for part in range(2):
        name = f"part_{part}"
        bags.drive(tmp_path / name, ["star"] * 3, start_ns=bags.START_NS + part * 60 * 10**9)
    shutil.move(tmp_path / "part_0" / "part_0.mcap", folder)
    listed(folder)
    shutil.move(tmp_path / "part_1" / "part_1.mcap", folder)
    loaded = []
    original = bags_load()
    monkeypatch.setattr(
        "edge_agent.data.frames.bag._load_frame",
        lambda stored, source: loaded.append(stored.bag_ns) or original(stored, source),
    )
    found, _ = listed(folder)
    assert [f.label for f in found] == ["star"] * 6
    assert min(loaded) >= bags.START_NS + 60 * 10**9
    assert len(loaded) == 3


def bags_load():
    from edge_agent.data.frames import bag

    return bag._load_frame


def test_damage_is_told_in_every_round_and_a_disk_that_refuses_is_asked_again(
    bags, recording, listed, opened, monkeypatch
):
    path = recording("mcap")
    file = path / "r1.mcap"
    file.write_bytes(file.read_bytes()[:-40])
    _, first = listed(path)
    opened()
    _, second = listed(path)
    assert opened() == []
    assert [loss.kind for loss in first] == ["cut file"]
    assert first == second

    def refuse(stored, source):
        raise FrameError("Input/output error")

    os.utime(file)
    monkeypatch.setattr("edge_agent.data.frames.bag._load_frame", refuse)
    frames, _ = listed(path)
    monkeypatch.undo()
    assert frames == []
    monkeypatch.setattr(signatures, "_TICK_NS", 0)
    frames, _ = listed(path)
    assert len(frames) == 6


def test_a_picture_that_is_replaced_while_it_is_used_is_refused(
    recording, listed, opened, picture_bytes
):
    path = recording("folder")
    found, _ = listed(path)
    first = path / "star" / "0.jpg"
    first.write_bytes(picture_bytes(77))
    with pytest.raises(FrameError, match=r"r1/c at .*: was replaced while it was used"):
        found[0].frame.decode()
    first.unlink()
    with pytest.raises(FrameError, match=r"star/0.jpg: No such file"):
        found[0].frame.decode()


def test_a_manifest_that_gives_another_stamp_gives_another_key(recording, listed, opened, bags):
    path = recording("folder")
    before, _ = listed(path)
    rows = [
        ManifestRow(
            file=f"star/{i}.jpg",
            topic="/c",
            stamp_ns=bags.START_NS + 77 + i,
            source="r1",
            label="star",
        )
        for i in (0, 3, 5)
    ]
    write_manifest(path / MANIFEST, rows)
    after, _ = listed(path)
    stamps = {known.frame.stamp_ns for known in after}
    assert {bags.START_NS + 77, bags.START_NS + 80, bags.START_NS + 82} <= stamps
    assert values(after) == values(list(labelled_frames(path, LabelSettings(), DamageLog())))
    assert len(before) == len(after)


def test_a_data_set_that_one_of_its_files_names_is_looked_at_in_full(recording, listed, opened):
    path = recording("coco")
    named = path / "annotations" / "instances.json"
    before, _ = listed(named)
    (path / "images" / "0.jpg").write_bytes((path / "images" / "1.jpg").read_bytes())
    opened()
    after, _ = listed(named)
    assert read_from(opened()) == ["coco/images/0.jpg"]
    assert after[0].frame.data == after[1].frame.data
    assert len(after) == len(before)
