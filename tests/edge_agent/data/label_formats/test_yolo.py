import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.label_formats.data_set import open_format
from edge_agent.data.label_formats.yolo.layout import find_layout, label_files
from edge_agent.data.labels import LabelSettings, labelled_frames
from edge_agent.data.manifest import ManifestRow
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

pytestmark = pytest.mark.base

LINE = "1 0.5 0.5 0.25 0.5\n"  # of 32 x 24 pixels
BOX = Box(label="cup", x0=12.0, y0=6.0, x1=20.0, y1=18.0)


@pytest.fixture
def write(tmp_path, make_picture):
    """Return a writer of name -> content; None is a picture."""

    def write_files(files):
        for number, (name, content) in enumerate(files.items()):
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            data = make_picture(number) if content is None else content
            data = data if isinstance(data, bytes) else data.encode()
            (tmp_path / "set" / name).write_bytes(data)
        return tmp_path / "set"

    return write_files


@pytest.mark.parametrize(
    "files",
    [
        {  # Ultralytics
            "data.yaml": "path: ../datasets/set\ntrain: images/train\nnames: {0: bin, 1: cup}\n",
            "images/train/a.jpg": None,
            "labels/train/a.txt": LINE,
        },
        {  # Roboflow
            "data.yaml": "train: ../train/images\nnc: 2\nnames: ['bin', 'cup']\n",
            "train/images/a.jpg": None,
            "train/labels/a.txt": LINE,
        },
        {  # another machine's folders, a list of files
            "coco.yaml": "path: /home/x/set\ntrain: train.txt\nnames:\n  - bin\n  - cup\n",
            "train.txt": "./images/a.jpg\n\n",
            "images/a.jpg": None,
            "labels/a.txt": LINE,
        },
        {  # labelImg, darknet
            "classes.txt": "bin\ncup\n",
            "a.jpg": None,
            "a.txt": LINE,
        },
        {"classes.txt": "\ufeffbin\r\ncup\r\n", "images/a.jpg": None, "images/a.txt": LINE},
        {"images/classes.txt": "bin\ncup\n", "images/a.jpg": None, "images/a.txt": LINE},
        {"voc.names": "bin\ncup", "VOC/JPEGImages/a.jpg": None, "VOC/labels/a.txt": LINE},
        {"train/_darknet.labels": "bin\ncup\n", "train/a.jpg": None, "train/a.txt": LINE},
        {  # CVAT
            "obj.data": "classes = 2\nnames = data/obj.names\n",
            "obj.names": "bin\ncup\n",
            "obj_train_data/a.jpg": None,
            "obj_train_data/a.txt": LINE,
        },
        {"data.yaml": "names: [bin, cup]\n", "images/a.jpg": None, "labels/a.txt": LINE},
        {"data.yaml": "train: .\nnames: [bin, cup]\n", "a.jpg": None, "a.txt": "\ufeff" + LINE},
    ],
    ids=[
        *("ultralytics", "roboflow", "listed", "darknet", "marked", "labelImg in images"),
        *("JPEGImages", "Roboflow darknet", "CVAT", "no splits", "whole folder"),
    ],
)
def test_the_layouts_of_common_tools_are_read(write, load_all, files):
    path = write(files)
    assert open_format("yolo").recognizes(path)
    (found,) = load_all("yolo", path)
    assert (found.label, found.boxes) == ("cup", (BOX,))


def test_all_splits_are_read_in_their_order_and_no_image_twice(write, load_all):
    path = write(
        {
            "data.yaml": "val: images/val\ntrain: [images/train, images/val]\nnames: [a]\n",
            "images/train/z.jpg": None,
            "images/val/a.jpg": None,
            "images/other/b.jpg": None,
        }
    )
    found = [labelled.frame.topic for labelled in load_all("yolo", path)]
    assert found == ["images/train/z.jpg", "images/val/a.jpg"]


def test_without_names_a_class_is_its_number(write, load_all):
    path = write({"images/a.jpg": None, "labels/a.txt": LINE, "images/b.jpg": None})
    found = load_all("yolo", path)
    assert [labelled.label for labelled in found] == ["1", ""]


def test_folders_of_classes_stay_that_beside_a_list_of_classes(write):
    path = write({"classes.txt": "bin\ncup\n", "bin/a.jpg": None, "notes.txt": "x"})
    assert not open_format("yolo").recognizes(path)
    path = write({"images/a.jpg": None, "labels/b.jpg": None, "labels/x.txt": LINE})
    assert not open_format("yolo").recognizes(path)


def test_the_yaml_file_itself_may_be_named(write, load_all):
    path = write({"my.yaml": "train: images\nnames: [bin, cup]\n", "images/a.jpg": None})
    assert open_format("yolo").recognizes(path / "my.yaml")
    assert len(load_all("yolo", path / "my.yaml")) == 1


def test_names_are_taken_as_they_are_spelled(write):
    names = 'names: {0: no, 1: 1.0, 2: null, 3: "a: b", 4: 2024-01-01}\n'
    layout = find_layout(write({"data.yaml": f"train: images\n{names}", "images/a.jpg": None}))
    assert [layout.label(number, "a.txt") for number in "01234"] == [
        "no",
        "1.0",
        "null",
        "a: b",
        "2024-01-01",
    ]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True))
def test_any_class_name_survives_the_yaml_file(tmp_path_factory, names):
    out = tmp_path_factory.mktemp("names")
    rows = [
        ManifestRow(file="a", topic="", stamp_ns=0, source="", label=name, width=1, height=1)
        for name in names
    ]
    open_format("yolo").finish(out, rows)
    layout = find_layout(out / "data.yaml")
    assert [layout.label(str(number), "a.txt") for number in range(len(names))] == [
        name.replace("\0", "\ufffd") for name in sorted(names)
    ]


def test_a_split_finds_the_names_in_the_data_yaml_above_it(write, load_all):
    files = {
        "data.yaml": "train: ../train/images\nval: ../valid/images\nnames: ['bin', 'cup']\n",
        "train/images/a.jpg": None,
        "train/labels/a.txt": LINE,
    }
    (found,) = load_all("yolo", write(files) / "train")
    assert (found.label, found.boxes) == ("cup", (BOX,))


def test_each_folder_has_its_own_list_of_classes_or_there_is_only_one(write, load_all):
    files = {
        "train/_darknet.labels": "bin\ncup\n",
        "train/a.jpg": None,
        "train/a.txt": LINE,
        "valid/_darknet.labels": "cup\nbin\n",
        "valid/b.jpg": None,
        "valid/b.txt": LINE,
    }
    path = write(files)
    assert [labelled.label for labelled in load_all("yolo", path)] == ["cup", "bin"]
    write({"test/c.jpg": None, "test/c.txt": LINE})
    damage = DamageLog()
    assert [each.label for each in load_all("yolo", path, damage)] == ["", "cup", "bin"]
    assert damage.sentence() == "1 x unknown class, first set/test/c.txt line 1: class 1"
    (path / "valid/_darknet.labels").write_text("bin\ncup\n")
    assert [each.label for each in load_all("yolo", path)] == ["cup", "cup", "cup"]


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ("[5, 3]", "0.42 0.47 2 0.58 0.47 2 0.58 0.53 2 0.42 0.53 2 0.5 0.5 0"),
        ("[4, 3]", "0.42 0.47 2 0.58 0.47 2 0.58 0.53 2 0.42 0.53 2"),
        ("[2, 2]", "0.42 0.47 0.58 0.53"),
        ("[1, 2]", "0.42 0.47"),
        ("[1, 2]", "0.42 0.47 0.93"),
        ("[1, 2]", "0.42 0.47 0.93 7"),
        ("[4, 3]", ""),
        ("[4, 3]", "0.9"),
    ],
)
def test_key_points_are_told_from_outlines_by_their_shape(write, load_all, shape, numbers):
    files = {
        "data.yaml": f"kpt_shape: {shape}\nnames: [bin, cup]\n",
        "images/a.jpg": None,
        "labels/a.txt": f"{LINE.strip()} {numbers}\n",
    }
    (found,) = load_all("yolo", write(files))
    assert found.boxes == (BOX,)


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ("0.9 0.1 2 0.5 0.5 2 0.5 0.5", "12 numbers"),  # with [5, 3] above: too few
        ("1 2 3", "7 numbers"),
        (" ".join(["0.5"] * 18), "22 numbers"),
    ],
)
def test_key_points_that_do_not_fit_their_shape_are_bad_lines(write, load_all, numbers, why):
    files = {
        "data.yaml": "kpt_shape: [5, 3]\nnames: [bin, cup]\n",
        "images/a.jpg": None,
        "labels/a.txt": f"{LINE.strip()} {numbers}\n",
    }
    damage = DamageLog()
    (found,) = load_all("yolo", write(files), damage)
    assert found.boxes == ()
    assert f"line 1: {why}, expected 4 and 5 key points" in damage.sentence()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ("0.91 7", BOX),  # a score, the number of a track
        ("7", BOX),
        ("0.91 1", "three corners of an outline, or a box, a score and the number 1 of a track"),
        ("7 0.91", "no outline: a number is above 1"),
        ("7 9", "no outline: a number is above 1"),
        ("0.42 0.47 2 0.58 0.47 2", "no outline: a number is above 1; key points need kpt_shape"),
        ("0.42 0.47 2", "7 numbers"),
        ("0.42 0.47 0.93", "7 numbers"),
    ],
)
def test_what_more_numbers_mean_is_never_guessed_by_their_count(write, load_all, numbers, expected):
    files = {"classes.txt": "bin\ncup", "a.jpg": None, "a.txt": f"{LINE.strip()} {numbers}\n"}
    damage = DamageLog()
    (found,) = load_all("yolo", write(files), damage)
    assert found.boxes == ((BOX,) if expected is BOX else ())
    assert bool(damage) == (expected is not BOX)
    assert expected is BOX or expected in damage.sentence()


def test_outlines_may_be_rounded_past_the_edge(write, load_all):
    lines = "1 -0.001 0.25 0.5 0.25 0.5 1.002 0.2 0.3\n1 0.1 0.1 0.9 0.1 0.5 0.9\n"
    path = write({"classes.txt": "bin\ncup", "a.jpg": None, "a.txt": lines})
    (found,) = load_all("yolo", path)
    assert [(box.x1, box.y0) for box in found.boxes] == [(16.0, 6.0), (28.8, 2.4)]


def test_a_box_that_is_mostly_outside_is_kept_and_counted(write, load_all):
    lines = "1 0.9 0.5 0.35 0.5\n1 1 0.5 0.5 0.5\n1 1.1 0.5 0.3 0.5\n1 0.5 0.5 2 2\n"
    path = write({"classes.txt": "bin\ncup", "a.jpg": None, "a.txt": lines})
    damage = DamageLog()
    (found,) = load_all("yolo", path, damage)
    assert len(found.boxes) == 4
    (loss,) = damage.all()
    assert (loss.kind, loss.count) == ("box mostly outside the picture", 2)
    assert loss.begins.startswith("set/a.txt line 3: cup")


def test_lists_with_names_of_another_machine_are_followed_within_the_set(write, load_all):
    files = {
        "data.yaml": "path: /home/u/set\ntrain: train.txt\nval: val.txt\nnames: [bin, cup]\n",
        "train.txt": "/home/u/set/images/train/a.jpg\ndata/images/train/b.jpg\n",
        "val.txt": b"\xff\xfe" + "C:\\u\\images\\val\\a.jpg\r\nX.jpg\r\n".encode("utf-16-le"),
        **{f"images/{name}.jpg": None for name in ("train/a", "train/b", "val/a", "val/c")},
    }
    damage = DamageLog()
    found = [each.frame.topic for each in load_all("yolo", write(files), damage)]
    assert found == ["images/train/a.jpg", "images/train/b.jpg", "images/val/a.jpg"]
    assert damage.sentence() == "1 x unknown image, first set/val.txt line 2: 'X.jpg'"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-16-le"])
def test_label_files_of_any_encoding_are_read(write, load_all, encoding):
    files = {
        "classes.txt": "bin\ncup".encode(encoding),
        "a.jpg": None,
        "a.txt": LINE.encode(encoding),
    }
    (found,) = load_all("yolo", write(files))
    assert (found.label, found.boxes) == ("cup", (BOX,))


def test_polygons_and_scores_are_read_as_boxes(write, load_all):
    lines = "1 0.5 0.5 0.25 0.5 0.93\n1 0.375 0.25 0.625 0.5 0.5 0.75\n"
    path = write({"classes.txt": "bin\ncup", "images/a.jpg": None, "labels/a.txt": lines})
    (found,) = load_all("yolo", path)
    assert found.boxes == (BOX, BOX)


def test_the_largest_box_names_the_frame_and_of_equals_the_first(write, load_all):
    lines = "2 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.25 0.5\n0 0.5 0.5 0.25 0.5\n"
    path = write({"classes.txt": "a\nb\nc", "images/a.jpg": None, "labels/a.txt": lines})
    (found,) = load_all("yolo", path)
    assert (found.label, len(found.boxes)) == ("b", 3)


def test_damaged_lines_are_named_with_file_and_line_and_the_rest_is_read(write, load_all):
    lines = [
        LINE.strip(),
        "7 0.5 0.5 0.25 0.5",
        "1 0.5 0.5 0.25",
        "1 0.5 x 0.25 0.5",
        "1 1e999999999 0.5 0.25 0.5",
        "1 nan 0.5 0.25 0.5",
        "1 0.5 0.5 0 0.5",
        "1 3.5 0.5 0.1 0.5",
        "",
        "1.0 0.5 0.5 0.25 0.5",
    ]
    path = write(
        {"classes.txt": "bin\ncup", "images/a.jpg": None, "labels/a.txt": "\n".join(lines)}
    )
    damage = DamageLog()
    (found,) = load_all("yolo", path, damage)
    assert found.boxes == (BOX, BOX)
    assert [(each.kind, each.count) for each in damage.all()] == [
        ("unknown class", 1),
        ("bad label line", 4),
        ("bad box", 1),
        ("box outside the picture", 1),
    ]
    assert damage.all()[0].begins == "set/labels/a.txt line 2: class 7"


def test_boxes_that_somebody_edited_count_and_their_largest_names_the_frame(
    data_sets, load_all, make_box
):
    path, placed = data_sets.write(
        "yolo", [data_sets.row(i, label="scene", boxes=(make_box(),)) for i in range(3)]
    )
    texts = path / label_files(placed[1].file)[0]
    texts.write_text(texts.read_text() + "1 0.5 0.5 1 1\n")
    (path / label_files(placed[2].file)[0]).unlink()
    damage = DamageLog()
    found = load_all("yolo", path, damage)
    assert [labelled.label for labelled in found] == ["scene", "scene", "scene"]
    assert [len(labelled.boxes) for labelled in found] == [1, 2, 1]
    assert [each.kind for each in damage.all()] == ["missing label file"]
    assert [labelled.frame.stamp_ns for labelled in found] == [row.stamp_ns for row in placed]
    texts.write_text("0 0.5 0.5 1 1\n")
    assert load_all("yolo", path, DamageLog())[1].label == "bin"


def test_paths_that_lead_out_are_not_followed(write, load_all, make_picture):
    path = write(
        {
            "data.yaml": "train: [list.txt, ../../other, /etc]\nnames: [a]\n",
            "list.txt": "../out.jpg\n/etc/x.jpg\nimages/a.jpg\n",
            "images/a.jpg": None,
        }
    )
    (path.parent / "out.jpg").write_bytes(make_picture(3))
    damage = DamageLog()
    found = load_all("yolo", path, damage)
    assert [labelled.frame.topic for labelled in found] == ["images/a.jpg"]
    assert {(each.kind, each.count) for each in damage.all()} == {
        ("unknown image", 2),
        ("missing file", 2),
    }


@pytest.mark.parametrize("text", ["names: [", "&a [*a]", "- x", "names: 3", "\0"])
def test_a_yaml_file_without_names_is_none(write, text):
    path = write({"data.yaml": text, "a.jpg": None})
    assert not open_format("yolo").recognizes(path)
    assert not open_format("yolo").recognizes(path / "data.yaml")


def test_the_label_file_lies_where_ultralytics_looks_or_beside_the_image_or_in_labels():
    assert label_files("images/train/a.b.jpg")[0] == "labels/train/a.b.txt"
    assert label_files("images/x/images/a.png")[0] == "images/x/labels/a.txt"
    assert label_files("a.png") == ["a.txt"]
    assert label_files("images.jpg") == ["images.txt"]
    assert label_files("images/a.jpg") == ["labels/a.txt", "images/a.txt"]
    assert label_files("v/JPEGImages/a.jpg") == ["v/JPEGImages/a.txt", "v/labels/a.txt"]


def test_a_folder_that_cannot_be_listed_hides_no_other(write, monkeypatch):
    names = ("a/1", "b/2")
    path = write({f"images/{name}.jpg": None for name in names})
    write({f"labels/{name}.txt": LINE for name in names})
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("images/a"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    damage = DamageLog()
    (found,) = labelled_frames(path, LabelSettings(), damage)
    assert (found.frame.topic, found.boxes) == (
        "images/b/2.jpg",
        (dataclasses.replace(BOX, label="1"),),
    )
    assert damage.sentence() == "1 x unreadable, first set/images/a: Permission denied"
