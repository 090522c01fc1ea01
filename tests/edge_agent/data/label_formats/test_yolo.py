import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.label_formats.data_set import open_format
from edge_agent.data.label_formats.yolo.layout import find_layout, label_file
from edge_agent.data.labels import LabelSettings, labelled_frames
from edge_agent.data.manifest import ManifestRow
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
            data = make_picture(number) if content is None else content.encode()
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
        {"data.yaml": "names: [bin, cup]\n", "images/a.jpg": None, "labels/a.txt": LINE},
        {"data.yaml": "train: .\nnames: [bin, cup]\n", "a.jpg": None, "a.txt": "\ufeff" + LINE},
    ],
    ids=["ultralytics", "roboflow", "listed", "darknet", "no splits", "whole folder"],
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
    assert list(map(layout.label, "01234")) == ["no", "1.0", "null", "a: b", "2024-01-01"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True))
def test_any_class_name_survives_the_yaml_file(tmp_path_factory, names):
    out = tmp_path_factory.mktemp("names")
    rows = [
        ManifestRow(file="a", topic="", stamp_ns=0, source="", label=name, width=1, height=1)
        for name in names
    ]
    open_format("yolo").finish(out, rows)
    layout = find_layout(out / "data.yaml")
    assert [layout.label(str(number)) for number in range(len(names))] == [
        name.replace("\0", "\ufffd") for name in sorted(names)
    ]


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
    texts = path / label_file(placed[1].file)
    texts.write_text(texts.read_text() + "1 0.5 0.5 1 1\n")
    (path / label_file(placed[2].file)).unlink()
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
        ("unsafe path", 2),
        ("missing file", 2),
    }


@pytest.mark.parametrize("text", ["names: [", "&a [*a]", "- x", "names: 3", "\0"])
def test_a_yaml_file_without_names_is_none(write, text):
    path = write({"data.yaml": text, "a.jpg": None})
    assert not open_format("yolo").recognizes(path)
    assert not open_format("yolo").recognizes(path / "data.yaml")


def test_the_label_file_lies_where_ultralytics_looks():
    assert label_file("images/train/a.b.jpg") == "labels/train/a.b.txt"
    assert label_file("images/x/images/a.png") == "images/x/labels/a.txt"
    assert label_file("a.png") == "a.txt"
    assert label_file("images.jpg") == "images.txt"


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
