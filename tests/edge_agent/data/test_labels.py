from dataclasses import replace

import pytest

from edge_agent.data.label_formats.data_set import FORMATS, open_format
from edge_agent.data.labels import LabelSettings, labelled_entries, labelled_frames
from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

pytestmark = pytest.mark.base


def frames(path, damage=None, **settings):
    """Return every labelled frame; without a DamageLog there must be no damage."""
    log = DamageLog() if damage is None else damage
    found = list(labelled_frames(path, LabelSettings(**settings), log))
    assert damage is not None or not log, log.sentence()
    return found


def labels(path, **settings):
    return [labelled.label for labelled in frames(path, **settings)]


def test_every_frame_of_a_bag_gets_the_label_that_was_given_to_it(bags, tmp_path):
    given_labels = ["circle", "circle", "", "star"]
    path = bags.drive(tmp_path / "r1", given_labels)
    assert labels(path, label_topic=bags.LABELS) == given_labels


def test_a_wide_tolerance_fills_gaps_and_a_narrow_one_leaves_everything_unlabelled(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", ["circle", "", "", "star"])
    wide = {"label_topic": bags.LABELS, "tolerance_s": 0.6}
    assert labels(path, **wide) == ["circle"] * 2 + ["star"] * 2
    assert set(labels(path, label_topic=bags.LABELS, tolerance_s=0.001)) == {""}


def test_header_stamps_match_where_the_recorder_was_late(bags, tmp_path, picture_bytes):
    start, late = bags.START_NS, 700_000_000
    messages = []
    for index, label in enumerate(["circle", "star"]):
        stamp = start + index * 1_000_000_000
        messages.append((bags.LABELS, stamp + 1000, bags.text(f" {label}\n")))
        messages.append((bags.CAMERA, stamp + late, bags.jpeg(stamp, picture_bytes(index))))
    path = bags.write(tmp_path / "r1", messages)
    assert labels(path, label_topic=bags.LABELS) == ["circle", "star"]


def test_a_bag_time_match_wins_over_the_header_stamp(bags, tmp_path, picture_bytes):
    start = bags.START_NS
    messages = [
        (bags.LABELS, start, bags.text("previous")),
        (bags.CAMERA, start + 100_000_000, bags.jpeg(start, picture_bytes(0))),
        (bags.LABELS, start + 101_000_000, bags.text("own")),
    ]
    path = bags.write(tmp_path / "r1", messages)
    assert labels(path, label_topic=bags.LABELS) == ["own"]


def test_without_a_label_topic_frames_have_no_label_and_a_wrong_one_is_an_error(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", ["star"])
    assert labels(path) == [""]
    with pytest.raises(FrameError, match=rf"no label topic /sign; it has {bags.LABELS} \(1 mess"):
        frames(path, label_topic="/sign")
    with pytest.raises(FrameError, match="is a sensor_msgs/CompressedImage, no label topic"):
        frames(path, label_topic=bags.CAMERA)


def test_the_folder_names_the_label(image_folder):
    folder = image_folder("signs", {"star": 1, "circle": 2, "unlabeled": 1})
    assert labels(folder) == ["circle", "circle", "star", ""]
    assert labels(folder / "star") == labels(folder / "star/000.png") == [""]  # named by nothing


def test_listing_reads_no_message_and_entries_come_again_in_the_same_order(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", ["circle", "", "star"])
    settings, damage = LabelSettings(label_topic=bags.LABELS), DamageLog()
    first = list(labelled_entries(path, settings, damage))
    again = list(labelled_entries(path, settings, damage))
    assert [entry.time_ns for entry in first] == [entry.time_ns for entry in again]
    assert first[2].load().label == again[2].load().label == "star"


def test_a_picture_that_does_not_load_is_damage_and_the_others_come(bags, tmp_path, picture_bytes):
    messages = [
        (bags.CAMERA, bags.START_NS + i, bags.jpeg(bags.START_NS + i, content))
        for i, content in enumerate(
            [picture_bytes(0), b"", picture_bytes(1)[:-9], picture_bytes(2)]
        )
    ]
    damage = DamageLog()
    assert len(frames(bags.write(tmp_path / "r1", messages), damage)) == 2
    assert {(each.kind, each.count) for each in damage.all()} == {("empty", 1), ("cut jpeg", 1)}


@pytest.fixture
def extracted(bags, tmp_path, picture_bytes):
    """Return a bag and a writer of its frames as a data set in which every frame is labelled."""
    path = bags.drive(tmp_path / "r1", ["star"] * 3)
    boxes = (Box(label="bin", x0=1.1, y0=2.0, x1=9.7, y1=1 / 3 + 8),)

    def write(form):
        out, kind, rows = tmp_path / form, open_format(form), []
        for index, (frame, *_) in enumerate(frames(path)):
            row = ManifestRow(
                file=f"{index}.jpg",
                topic=frame.topic,
                stamp_ns=frame.stamp_ns,
                source=frame.source,
                label="bin" if index else "",
                width=frame.width,
                height=frame.height,
                boxes=boxes * index,
            )
            rows.append(replace(row, file=kind.path_of(row)))
            (out / rows[-1].file).parent.mkdir(parents=True, exist_ok=True)
            (out / rows[-1].file).write_bytes(frame.data)
        kind.finish(out, rows)
        write_manifest(out / MANIFEST, rows)
        return out

    return path, write, boxes


@pytest.mark.parametrize("form", FORMATS)
def test_a_data_set_that_was_extracted_and_labelled_labels_the_bag_it_came_from(extracted, form):
    path, write, boxes = extracted
    found = frames(path, label_topic=str(write(form)))
    assert [labelled.label for labelled in found] == ["", "bin", "bin"]
    assert [labelled.boxes for labelled in found] == [(), boxes, boxes * 2]


def test_a_table_by_stamp_labels_a_bag(extracted, bags, tmp_path):
    path, _, _ = extracted
    stamps = [labelled.frame.stamp_ns for labelled in frames(path)]
    table = tmp_path / "labels.csv"
    lines = [
        f"{stamps[0]},star,,,,",
        f"{stamps[2] + 5},bin,1,2,3.5,4",
        f"{stamps[2] + 5},bin,0,0,9,9",
    ]
    table.write_text("stamp_ns,label,x0,y0,x1,y1\n" + "\n".join(lines) + "\n")
    found = frames(path, label_topic=str(table))
    assert [labelled.label for labelled in found] == ["star", "", "bin"]
    assert found[2].boxes == (
        Box(label="bin", x0=1.0, y0=2.0, x1=3.5, y1=4.0),
        Box(label="bin", x0=0.0, y0=0.0, x1=9.0, y1=9.0),
    )
    assert labels(path, label_topic=str(table), tolerance_s=0.0) == ["star", "", ""]


def test_a_table_of_files_is_no_label_source_of_a_bag_and_neither_is_a_bag(extracted, tmp_path):
    path, _, _ = extracted
    (tmp_path / "labels.csv").write_text("file,label\na.jpg,b\n")
    with pytest.raises(FrameError, match=r"names files, .* expected stamp_ns,label"):
        frames(path, label_topic=str(tmp_path / "labels.csv"))
    with pytest.raises(FrameError, match="is a bag; labels of a bag come from its own topics"):
        frames(path, label_topic=str(path))


def test_a_live_topic_has_no_labels(bags, tmp_path, monkeypatch):
    from edge_agent.data.frames import ros_topic
    from edge_agent.data.frames.bag import BagFrames

    path = bags.drive(tmp_path / "r1", ["star"])
    monkeypatch.setattr(ros_topic, "open_topic", lambda _, topic: BagFrames(path, topic))
    assert labels(type(path)("ros:/camera/image")) == [""]
    with pytest.raises(FrameError, match="ros:/camera/image: is live and has no labels"):
        frames(type(path)("ros:/camera/image"), label_topic="/labels")


def test_a_data_set_without_stamps_is_no_label_source(extracted, image_folder):
    path, _, _ = extracted
    with pytest.raises(FrameError, match="nothing says when its frames were taken"):
        frames(path, label_topic=str(image_folder("signs", {"star": 1})))


def test_a_manifest_of_two_cameras_gives_each_its_own_labels(bags, tmp_path, picture_bytes):
    stamp = bags.START_NS
    messages = [(topic, stamp, bags.jpeg(stamp, picture_bytes(1))) for topic in ("/a", "/b")]
    path = bags.write(tmp_path / "r1", messages)
    rows = [
        ManifestRow(file=f"{t[1]}.jpg", topic=t, stamp_ns=stamp, source="r1", label=f"of {t}")
        for t in ("/a", "/b")
    ]
    write_manifest(tmp_path / "m.csv", rows)
    source = str(tmp_path / "m.csv")
    assert labels(path, topic="/a", label_topic=source) == ["of /a"]
    assert labels(path, topic="/b", label_topic=source) == ["of /b"]


def test_labels_beside_a_data_set_replace_its_own(extracted, tmp_path):
    _, write, _ = extracted
    path = write("folder")
    (tmp_path / "files.csv").write_text("file,label\nbin/1.jpg,cup\n")
    assert labels(path, label_topic=str(tmp_path / "files.csv")) == ["", "cup", "bin"]
    stamp = frames(path)[2].frame.stamp_ns
    (tmp_path / "stamps.csv").write_text(f"stamp_ns,label\n{stamp},cup\n")
    assert labels(path, label_topic=str(tmp_path / "stamps.csv")) == ["", "bin", "cup"]
    assert labels(path, label_topic="/camera/label") == ["", "bin", "bin"]  # for bags beside it


@pytest.mark.parametrize("form", ["folder", "yolo", "coco"])
def test_a_table_finds_the_pictures_of_a_data_set_however_it_spells_them(extracted, tmp_path, form):
    _, write, _ = extracted
    path = write(form)
    names = [str(each.name) for each in labelled_entries(path, LabelSettings(), DamageLog())]
    spelled = ["C:\\set\\" + names[0].replace("/", "\\"), names[1].upper(), names[2][:-4]]
    rows = "".join(f"{name};{label}\n" for name, label in zip(spelled, "abc", strict=True))
    table = tmp_path / "files.csv"
    table.write_bytes(("file;label\n" + rows + "none.jpg;d\n").encode("utf-16"))
    damage = DamageLog()
    found = labelled_frames(path, LabelSettings(label_topic=str(table)), damage)
    assert [each.label for each in found] == ["a", "b", "c"]
    assert damage.sentence() == "1 x unknown image, first files.csv line 5: 'none.jpg'"


@pytest.mark.parametrize("first", ["a.jpg,star", "name,label", "file,labels"])
def test_a_table_without_the_columns_says_which_a_data_set_needs_and_which_a_bag(
    extracted, tmp_path, first
):
    bag, write, _ = extracted
    (tmp_path / "t.csv").write_text(first + "\n")
    expected = r"expected file,label\[,x0,y0,x1,y1\], or stamp_ns,label\[,x0,y0,x1,y1\]$"
    with pytest.raises(FrameError, match=expected):
        frames(write("folder"), label_topic=str(tmp_path / "t.csv"))
    with pytest.raises(FrameError, match=r"expected stamp_ns,label\[,x0,y0,x1,y1\]$"):
        frames(bag, label_topic=str(tmp_path / "t.csv"))


def test_a_topic_picks_frames_of_a_data_set_that_knows_topics(extracted, image_folder, bags):
    _, write, _ = extracted
    path = write("coco")
    assert len(frames(path, topic=bags.CAMERA)) == 3
    with pytest.raises(FrameError, match=f"no frame of /other; it has frames of {bags.CAMERA}"):
        frames(path, topic="/other")
    assert labels(image_folder("signs", {"star": 1}), topic="/camera") == ["star"]


def test_what_is_no_source_is_an_error_that_says_what_is_there(tmp_path, bags):
    with pytest.raises(FrameError, match="nothing: no such file"):
        frames(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(FrameError, match="neither a bag nor an image"):
        frames(tmp_path / "notes.txt")
    bags.drive(tmp_path / "all/r1", ["star"])
    with pytest.raises(FrameError, match="holds bags but is none; name one of them: r1"):
        frames(tmp_path / "all")


def test_a_cut_bag_whose_labels_are_gone_gives_its_frames_and_says_so(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", [""] * 4)  # nobody had answered yet
    with pytest.raises(FrameError, match="no label topic"):
        frames(path, label_topic=bags.LABELS)
    (file,) = path.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-20])
    damage = DamageLog()
    found = frames(path, damage, label_topic=bags.LABELS)
    assert [labelled.label for labelled in found] == [""] * 4
    assert {loss.kind for loss in damage.all()} == {"missing labels", "cut file"}
