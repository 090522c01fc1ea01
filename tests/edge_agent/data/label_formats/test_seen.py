"""Whether anybody has said which things are in a frame: what is no example of nothing."""

import json
from dataclasses import replace

import pytest

from edge_agent.data.label_formats.data_set import FORMATS, open_format
from edge_agent.data.labels import LabelSettings, labelled_frames
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base


@pytest.fixture
def rows(data_sets, make_box):
    """Return five frames: what was said of them, and whether that says which things are there."""
    return [
        data_sets.row(0, seen=True),  # nothing is there
        data_sets.row(1),  # nobody has looked
        data_sets.row(2, boxes=(make_box(),), label="bin"),
        data_sets.row(3, label="hall"),  # a label of the whole picture alone
        data_sets.row(4, label="hall", seen=True),
    ]


SEEN = [True, False, True, False, True]


def said(path, damage=None):
    """Return (seen, number of boxes) of every frame."""
    log = DamageLog() if damage is None else damage
    found = [(each.seen, len(each.boxes)) for each in labelled_frames(path, LabelSettings(), log)]
    assert damage is not None or not log, log.sentence()
    return found


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_reads_back_what_was_looked_at(data_sets, rows, load_all, form):
    path, _ = data_sets.write(form, rows)
    assert [each.seen for each in load_all(form, path)] == SEEN
    assert [len(each.boxes) for each in load_all(form, path)] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("form", ["tfds", "coco"])
def test_tfds_and_coco_hold_it_even_without_the_manifest(data_sets, rows, load_all, form):
    path, _ = data_sets.write(form, rows, manifest=False)
    assert [each.seen for each in load_all(form, path)] == SEEN


def test_yolo_has_a_label_file_only_where_somebody_looked(data_sets, rows, load_all):
    path, placed = data_sets.write("yolo", rows, manifest=False)
    files = {file.name: file.read_text() for file in (path / "labels").iterdir()}
    names = [f"{row.file.removeprefix('images/')[:-4]}.txt" for row in placed]
    assert sorted(files) == [names[0], names[2], names[4]]
    assert files[names[0]] == files[names[4]] == ""
    assert [each.seen for each in load_all("yolo", path)] == SEEN
    unseen = [replace(row, seen=False, boxes=()) for row in placed]
    open_format("yolo").finish(path, unseen)
    assert list((path / "labels").iterdir()) == []


def test_the_manifest_decides_for_empty_files_of_earlier_releases(data_sets, rows, load_all):
    path, placed = data_sets.write("yolo", rows)
    for row in placed:
        (path / "labels" / f"{row.file[7:-4]}.txt").touch()
    assert [each.seen for each in load_all("yolo", path)] == SEEN


def test_a_tool_that_removes_the_boxes_says_that_nothing_is_there(data_sets, rows, load_all):
    path, placed = data_sets.write("yolo", rows)
    (path / "labels" / f"{placed[2].file[7:-4]}.txt").write_text("")
    assert load_all("yolo", path)[2][1:] == ("", (), True)


@pytest.mark.parametrize(
    "text",
    ["0 0.5 0.5 0.1\n", "7 0.5 0.5 0.1 0.1\n", "0 3.5 3.5 0.1 0.1\n", "0 0.5 0.5 0 0\n"],
    ids=["bad line", "unknown class", "outside", "no area"],
)
def test_a_picture_whose_boxes_are_all_lost_is_no_example_of_nothing(data_sets, make_box, text):
    row = data_sets.row(boxes=(make_box(),), label="bin")
    path, (placed,) = data_sets.write("yolo", [row], manifest=False)
    file = path / "labels" / f"{placed.file[7:-4]}.txt"
    file.write_text(text)
    assert said(path, DamageLog()) == [(False, 0)]
    file.write_text("0 0.5 0.5 0.1 0.1\n" + text)
    assert said(path, DamageLog()) == [(True, 1)]
    file.write_text(" \n")
    assert said(path) == [(True, 0)]


def test_a_folder_and_its_manifest(data_sets, make_box, picture_bytes):
    lost = make_box(x0=50.0, x1=60.0)  # the picture is 32 pixels wide
    rows = [data_sets.row(0, seen=True), data_sets.row(1, boxes=(lost,)), data_sets.row(2)]
    path, _ = data_sets.write("folder", rows)
    (path / "circle").mkdir()
    (path / "circle" / "new.jpg").write_bytes(picture_bytes(9))
    assert said(path, DamageLog()) == [(True, 0), (False, 0), (False, 0), (False, 0)]


def coco(path, picture_bytes, annotations, *images, **more):
    """Write a COCO file of two images, and a third one that it does not list."""
    for name in "abc":
        (path / f"{name}.jpg").write_bytes(picture_bytes(ord(name)))
    listed = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    content = {
        "images": [{**one, **more} for one in listed],
        "annotations": [{"id": n, "category_id": 1, **one} for n, one in enumerate(annotations)],
        "categories": [{"id": 1, "name": "bin"}],
    }
    (path / "instances.json").write_text(json.dumps(content))
    return path


A_BOX = {"image_id": 1, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ([A_BOX], [(True, 1), (True, 0), (False, 0)]),
        ([], [(True, 0), (True, 0), (False, 0)]),
        ([{"image_id": 1}], [(False, 0), (False, 0), (False, 0)]),  # labels of whole pictures
        ([A_BOX, {"image_id": 2}], [(True, 1), (False, 0), (False, 0)]),
        ([A_BOX, {"image_id": 2, "bbox": [1, 2]}], [(True, 1), (False, 0), (False, 0)]),
        ([A_BOX, {"image_id": 2, "bbox": [1, 2, 3, 4], "category_id": 9}],
         [(True, 1), (False, 0), (False, 0)]),
        ([A_BOX, {"image_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 1}],
         [(True, 1), (False, 0), (False, 0)]),
        ([A_BOX, {"image_id": 2, "bbox": [1, 2, 0, 0]}], [(True, 1), (False, 0), (False, 0)]),
    ],
    ids=["a box", "nothing", "whole", "both", "unreadable", "unknown class", "crowd", "no area"],
)  # fmt: skip
def test_coco_lists_the_images_that_were_looked_at(tmp_path, picture_bytes, annotations, expected):
    path = coco(tmp_path, picture_bytes, annotations)
    assert said(path, DamageLog()) == expected


def test_a_coco_file_that_was_cut_says_of_no_image_that_it_is_empty(tmp_path, picture_bytes):
    path = coco(tmp_path, picture_bytes, [A_BOX])
    file = path / "instances.json"
    content = file.read_text()
    file.write_text(content[: content.index('"bbox"')] + ' "categories"')
    assert said(path, DamageLog()) == [(False, 0)] * 3


def test_a_box_of_a_coco_file_of_ours_that_is_lost_is_something(tmp_path, picture_bytes):
    path = coco(tmp_path, picture_bytes, [{"image_id": 2, "bbox": [1, 2, 0, 0]}], seen=True)
    assert said(path, DamageLog()) == [(True, 0), (False, 0), (False, 0)]


def test_a_coco_file_with_a_label_of_ours_says_nothing_of_things(tmp_path, picture_bytes):
    path = coco(tmp_path, picture_bytes, [], label="hall")
    assert said(path) == [(False, 0)] * 3


def test_tfds_without_our_mark_is_as_earlier_releases_wrote_it(
    data_sets, rows, load_all, monkeypatch
):
    from edge_agent.data.label_formats.tfds import record

    monkeypatch.setattr(record, "_integer", lambda example, name, otherwise: otherwise)
    path, _ = data_sets.write("tfds", rows)
    assert [each.seen for each in load_all("tfds", path)] == [False, False, True, False, False]


TAG, SHAPE = '<tag label="hall"/>', '<points label="bin" points="1,2"/>'


def cvat(shapes, others=""):
    one = '<image id="{}" name="{}.jpg" width="32" height="24">{}</image>'
    return f"<annotations>{one.format(0, 'a', shapes)}{one.format(1, 'b', others)}</annotations>"


def label_studio(*regions):
    return json.dumps([{"data": {"image": "a.jpg"}, "annotations": [{"result": list(regions)}]}])


def fiftyone(value):
    return json.dumps({"samples": [{"filepath": "a.jpg", "truth": value}]})


def labelme(shapes, **flags):
    return json.dumps({"imagePath": "a.jpg", "shapes": shapes, "flags": flags})


CHOICE = {"type": "choices", "value": {"choices": ["hall"]}}
BRUSH = {"type": "brushlabels", "value": {"brushlabels": ["bin"]}}


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("a.xml", "<annotation></annotation>", True),
        ("a.xml", "<annotation><object><name>bin</name></object></annotation>", False),
        ("c.xml", cvat(""), True),
        ("c.xml", cvat("", SHAPE), True),
        ("c.xml", cvat("", TAG), False),  # a task of tags
        ("c.xml", cvat(TAG, SHAPE), False),
        ("c.xml", cvat(SHAPE), False),  # there is something, but it is no box
        ("c.json", '[{"image": "a.jpg", "annotations": []}]', True),
        ("c.json", '[{"image": "a.jpg", "annotation": "hall"}]', False),
        ("c.json", '[{"image": "a.jpg", "annotations": [{"label": "hall"}]}]', False),
        ("s.json", label_studio(), True),
        ("s.json", label_studio(CHOICE), False),
        ("s.json", label_studio(BRUSH), False),
        ("samples.json", fiftyone({"_cls": "Detections", "detections": []}), True),
        ("samples.json", fiftyone({"_cls": "Classification", "label": "hall"}), False),
        ("samples.json", fiftyone(None), False),
        ("labels.json", '{"classes": [], "labels": {"a": []}}', True),
        ("labels.json", '{"classes": [], "labels": {"a": "hall"}}', False),
        ("a.json", labelme([]), True),
        ("a.json", labelme([], hall=True), False),
        ("a.json", labelme([{"label": "bin", "shape_type": "line", "points": []}]), False),
        ("_classes.csv", "filename,hall\na.jpg,0\n", False),
        ("labels.csv", "file,label\na.jpg,\n", False),
        ("labels.csv", "file,label,x0,y0,x1,y1\na.jpg,,,,,\n", True),
        ("labels.csv", "file,label,x0,y0,x1,y1\na.jpg,hall,,,,\n", False),
        ("labels.csv", "file,label,x0,y0,x1,y1\na.jpg,bin,1,2,3,4\n", True),
    ],
)  # fmt: skip
def test_what_annotation_files_say(tmp_path, picture_bytes, name, content, seen):
    (tmp_path / "a.jpg").write_bytes(picture_bytes(1))
    (tmp_path / name).write_text(content)
    (found,) = said(tmp_path, DamageLog())
    assert found[0] is seen


def test_boxes_for_a_picture_of_another_size_say_nothing(tmp_path, picture_bytes):
    (tmp_path / "a.jpg").write_bytes(picture_bytes(1))
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    (tmp_path / "boxes.csv").write_text(f"{header}a.jpg,99,99,bin,1,2,3,4\n")
    assert said(tmp_path, DamageLog()) == [(False, 0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stamp_ns,label\n0,bin\n", [False, False]),
        ("stamp_ns,label,x0,y0,x1,y1\n0,,,,,\n", [True, False]),
        ("stamp_ns,label,x0,y0,x1,y1\n0,bin,50,2,60,4\n", [False, False]),  # outside
    ],
)
def test_corrections_say_it_of_the_frames_that_they_are_about(data_sets, tmp_path, text, expected):
    rows = [data_sets.row(0), data_sets.row(10**9)]
    path, _ = data_sets.write("folder", rows)
    (tmp_path / "t.csv").write_text(text.replace("\n0,", f"\n{rows[0].stamp_ns},"))
    settings = LabelSettings(label_topic=str(tmp_path / "t.csv"))
    found = labelled_frames(path, settings, DamageLog())
    assert [each.seen for each in found] == expected


def test_a_data_set_that_labels_another_says_it_too(data_sets, make_box):
    path, _ = data_sets.write("folder", [data_sets.row(0), data_sets.row(10**9)])
    truth = [data_sets.row(0, seen=True), data_sets.row(10**9)]
    labels, _ = data_sets.write("yolo", truth, "labels")
    found = labelled_frames(path, LabelSettings(label_topic=str(labels)), DamageLog())
    assert [each.seen for each in found] == [True, False]


def test_a_text_labels_a_frame_as_a_whole(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", ["star", ""])
    for topic in ("", bags.LABELS):
        found = labelled_frames(path, LabelSettings(label_topic=topic), DamageLog())
        assert [each.seen for each in found] == [False, False]
