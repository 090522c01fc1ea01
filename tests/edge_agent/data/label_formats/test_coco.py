import json

import pytest

from edge_agent.data.label_formats.data_set import open_format
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

pytestmark = pytest.mark.base

BOX = Box(label="cup", x0=10.1, y0=2.0, x1=15.3, y1=4.5)


def content(names, **more):
    """Return a COCO file with one cup in every image."""
    return {
        "info": {},
        "images": [
            {"id": i, "file_name": name, "width": 32, "height": 24} for i, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 7,
                "bbox": [10.1, 2, 5.2, 2.5],
                "iscrowd": 0,
                "segmentation": [[1, 2, 3, 4, 5.5, 6]],
            }
            for i in range(len(names))
        ],
        "categories": [{"id": 7, "name": "cup", "supercategory": "kitchen"}],
    } | more


@pytest.fixture
def write(tmp_path, make_picture):
    """Return a writer of name -> JSON content; None is a picture."""

    def write_files(files):
        for number, (name, content) in enumerate(files.items()):
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content)
            data = make_picture(number) if content is None else text.encode()
            (tmp_path / "set" / name).write_bytes(data)
        return tmp_path / "set"

    return write_files


@pytest.mark.parametrize(
    ("annotations", "image"),
    [
        ("annotations/instances_train2017.json", "train2017/a.jpg"),
        ("annotations/instances.json", "images/a.jpg"),
        ("annotations/instances_val.json", "images/val/a.jpg"),
        ("train/_annotations.coco.json", "train/a.jpg"),
        ("train/annotations.json", "train/a.jpg"),
        ("ds0/annotations/instances.json", "ds0/images/a.jpg"),
        ("labels.json", "data/a.jpg"),
        ("result.json", "images/a.jpg"),
        ("ann.json", "img/a.jpg"),
    ],
)
@pytest.mark.parametrize(
    "name", ["a.jpg", "images\\a.jpg", "..\\..\\media\\4\\a.jpg", "https://host/data/1/a.jpg"]
)
def test_images_are_found_where_common_tools_put_them(write, load_all, annotations, image, name):
    path = write({annotations: content([name]), image: None})
    assert open_format("coco").recognizes(path)
    (found,) = load_all("coco", path)
    assert (found.label, found.boxes) == ("cup", (BOX,))


def test_several_files_are_one_data_set_and_repeated_labels_are_read_once(write, load_all):
    path = write(
        {
            "annotations/instances_train.json": content(["a.jpg"]),
            "annotations/instances_val.json": content(["b.jpg"]),
            "annotations/person_keypoints_train.json": content(["a.jpg"]),
            "annotations/captions_train.json": {"images": [], "annotations": []},
            "train/a.jpg": None,
            "val/b.jpg": None,
            "val/c.jpg": None,
        }
    )
    found = load_all("coco", path)
    assert [labelled.frame.topic for labelled in found] == ["train/a.jpg", "val/b.jpg", "val/c.jpg"]
    assert [len(labelled.boxes) for labelled in found] == [1, 1, 0]


def test_the_json_file_itself_may_be_named(write, load_all):
    path = write({"annotations/a.json": content(["a.jpg"]), "images/a.jpg": None, "b.jpg": None})
    assert open_format("coco").recognizes(path / "annotations/a.json")
    assert len(load_all("coco", path / "annotations/a.json")) == 1


def test_ids_may_be_texts_and_crowds_are_left_out(write, load_all):
    crowd = {"id": 2, "image_id": "x", "category_id": "c", "bbox": [0, 0, 9, 9], "iscrowd": 1}
    single = crowd | {"bbox": [10.1, 2, 5.2, 2.5], "iscrowd": 0}
    one = content(
        [],
        images=[{"id": "x", "file_name": "a.jpg"}],
        annotations=[crowd, single],
        categories=[{"id": "c", "name": "cup"}],
    )
    path = write({"a.json": one, "a.jpg": None})
    damage = DamageLog()
    (found,) = load_all("coco", path, damage)
    assert found.boxes == (BOX,)
    assert [(each.kind, each.count) for each in damage.all()] == [("crowd left out", 1)]


def test_a_number_and_its_text_are_the_same_id(write, load_all):
    one = content(["a.jpg", "b.jpg"])
    for image, name in zip(one["images"], ("0", "01"), strict=True):
        image["id"] = name
    damage = DamageLog()
    first, second = load_all("coco", write({"a.json": one, "a.jpg": None, "b.jpg": None}), damage)
    assert (first.boxes, second.boxes) == ((BOX,), ())
    assert damage.sentence() == "1 x unknown image, first set/a.json: image 1"


def test_where_everything_is_marked_as_a_crowd_nothing_is_left_out(write, load_all):
    one = content(["a.jpg"])
    one["annotations"][0]["iscrowd"] = 1  # as CVAT marks every mask
    (found,) = load_all("coco", write({"a.json": one, "a.jpg": None}))
    assert found.boxes == (BOX,)


def test_an_annotation_without_a_place_is_the_label_of_its_picture(write, load_all):
    kinds = [{"id": 0, "name": "empty"}, {"id": 7, "name": "forklift"}]
    said = [("a", 0), ("b", 7), ("c", 0), ("c", 7)]
    one = content(
        [],
        images=[{"id": each, "file_name": f"loc1/{each}.jpg"} for each in "abcd"],
        annotations=[
            {"id": f"{image}{kind}", "image_id": image, "category_id": kind} for image, kind in said
        ],
        categories=kinds,
    )
    path = write({"annotations.json": one, **{f"loc1/{each}.jpg": None for each in "abcd"}})
    damage = DamageLog()
    found = load_all("coco", path, damage)
    assert [each.label for each in found] == ["empty", "forklift", "", ""]
    assert [(each.kind, each.count) for each in damage.all()] == [("several labels", 1)]


def test_without_a_box_the_outline_gives_it(write, load_all):
    outline = [[10.1, 2, 15.3, 2, 15.3, 4.5], [11, 3, 12, 3, 12, 4]]
    one = content(["a.jpg"])
    one["annotations"] = [
        {"id": 1, "image_id": 0, "category_id": 7, "segmentation": outline},
        {"id": 2, "image_id": 0, "category_id": 7, "bbox": [], "segmentation": outline[0]},
        {"id": 3, "image_id": 0, "category_id": 7, "segmentation": [[1, 2, 3]]},
        {"id": 4, "image_id": 0, "category_id": 7, "segmentation": {"counts": "abc"}},
        {"image_id": 0, "segments_info": [{"id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}]},
    ]
    damage = DamageLog()
    (found,) = load_all("coco", write({"a.json": one, "a.jpg": None}), damage)
    assert found.boxes == (BOX, BOX)
    assert [(each.kind, each.count) for each in damage.all()] == [("bad label", 3)]


@pytest.mark.parametrize(
    "order", [("annotations", "images", "categories"), ("categories", "images", "annotations")]
)
def test_a_file_is_known_wherever_its_keys_are(write, load_all, order):
    one = content(["a.jpg"])
    one["categories"] += [{"id": 8 + i, "name": f"thing {i}", "def": "x" * 300} for i in range(300)]
    one["annotations"] += [one["annotations"][0] | {"id": 1 + i} for i in range(1500)]
    path = write(
        {"annotations/lvis_v1_val.json": {key: one[key] for key in order}, "val/a.jpg": None}
    )
    assert open_format("coco").recognizes(path)
    (found,) = load_all("coco", path)
    assert set(found.boxes) == {BOX}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_file_that_a_shell_wrote_again_is_read(write, load_all, encoding):
    path = write({"a.json": "", "a.jpg": None})
    (path / "a.json").write_text(json.dumps(content(["a.jpg"])), encoding)
    assert open_format("coco").recognizes(path)
    (found,) = load_all("coco", path)
    assert found.boxes == (BOX,)


def test_a_file_for_each_picture_is_not_cocos(write):
    files = {f"{i}.json": content([f"{i}.jpg"]) for i in range(101)}
    assert not open_format("coco").recognizes(write(files))


def test_damage_is_named_and_the_rest_is_read(write, load_all):
    annotation = {"id": 0, "image_id": 0, "category_id": 7, "bbox": [10.1, 2, 5.2, 2.5]}
    bad = [
        {"category_id": 99},
        {"image_id": 99},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, "x"]},
        {"bbox": [1, 2, 3, float("nan")]},
        {"bbox": "1234"},
        {"image_id": []},
        {"segmentation": "abc", "bbox": None},
        {"bbox": [1, 2, 0, 3]},
        {"bbox": [40, 2, 3, 3]},
    ]
    one = content(
        ["a.jpg", "missing.jpg", "../a.jpg", "/etc/a.jpg"],
        annotations=[annotation, *(annotation | each for each in bad), 3],
    )
    one["images"].append({"id": 77})
    path = write({"annotations/one.json": one, "images/a.jpg": None})
    damage = DamageLog()
    (found,) = load_all("coco", path, damage)
    assert found.boxes == (BOX,)
    assert {each.kind: each.count for each in damage.all()} == {
        "bad label": 8,
        "unknown class": 1,
        "unknown image": 3,
        "bad box": 1,
        "box outside the picture": 1,
    }


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"bbox": [1, 2, 3]}, "annotations 5: the bbox is not x, y, width, height"),
        ({"bbox": [1, 2, 3, "x"]}, "annotations 5: x is no number"),
        ({"bbox": {"x": 1}}, "annotations 5: the bbox is not x, y, width, height"),
        ({"image_id": None}, "annotations 5: the image_id is neither a number nor a text"),
        ({"category_id": {}}, "annotations 5: the category_id is neither a number nor a text"),
    ],
)
def test_what_is_wrong_is_said_in_words(write, load_all, change, why):
    one = content(["a.jpg"])
    one["annotations"] = [one["annotations"][0] | {"id": 5} | change]
    damage = DamageLog()
    load_all("coco", write({"a.json": one, "a.jpg": None}), damage)
    assert damage.sentence() == f"1 x bad label, first set/a.json: {why}"


def test_a_file_that_was_cut_gives_what_is_in_it(write, load_all):
    one = content([f"{i}.jpg" for i in range(4)])
    order = ("categories", "images", "annotations")
    text = json.dumps({key: one[key] for key in order})
    end = text.index('"image_id": 3')
    path = write({"a.json": text[:end], **{f"{i}.jpg": None for i in range(4)}})
    damage = DamageLog()
    found = load_all("coco", path, damage)
    assert [len(labelled.boxes) for labelled in found] == [1, 1, 1, 0]
    assert [each.kind for each in damage.all()] == ["damaged file"]


def test_every_frame_without_a_manifest_has_its_own_label_and_stamp(data_sets, load_all, make_box):
    rows = [data_sets.row(i, label="scene", boxes=(make_box(),)) for i in range(2)]
    path, placed = data_sets.write("coco", rows, manifest=False)
    entries = list(open_format("coco").entries(path, DamageLog()))
    assert [entry.time_ns for entry in entries] == [row.stamp_ns for row in placed]
    assert [entry.load().label for entry in entries] == ["scene", "scene"]


def test_the_written_file_is_plain_coco(data_sets, make_box):
    path, _ = data_sets.write("coco", [data_sets.row(label="bin", boxes=(make_box(),))])
    found = json.loads((path / "annotations/instances.json").read_text())
    (image,) = found["images"]
    assert image["file_name"] == "run-1760000000000000000.jpg"
    assert (path / "images" / image["file_name"]).is_file()
    assert found["categories"] == [{"id": 1, "name": "bin"}]
    (annotation,) = found["annotations"]
    assert annotation["bbox"] == [1.5, 2.25, 8.6, 18.05]
    assert annotation["area"] == pytest.approx(8.6 * 18.05)
