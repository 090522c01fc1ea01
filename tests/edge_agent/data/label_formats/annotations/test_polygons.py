import json

import pytest

pytestmark = pytest.mark.base

CORNERS = [[8, 6], [16.5, 12]]
BOX = ("cone", 8.0, 6.0, 16.5, 12.0)
META = json.dumps({"classes": [{"title": "cone"}], "tags": [], "projectType": "images"})


def supervisely(objects, tags=(), size=(32, 24)):
    named = [{"name": tag} for tag in tags]
    size = {"width": size[0], "height": size[1]}
    return json.dumps({"description": "", "tags": named, "size": size, "objects": objects})


def thing(kind="rectangle", label="cone", listed=CORNERS):
    return {"classTitle": label, "geometryType": kind, "points": {"exterior": listed}}


def labelme(shapes, **more):
    made = {"imagePath": "a.jpg", "imageWidth": 32, "imageHeight": 24, "flags": {}}
    return json.dumps(made | {"version": "5.4.1", "shapes": shapes} | more)


def shape(kind="rectangle", label="cone", listed=CORNERS):
    return {"label": label, "shape_type": kind, "points": listed}


@pytest.mark.parametrize("name", ["ds0", "ds1"])
def test_supervisely_is_read_in_each_of_its_folders(read_set, name):
    files = {
        "meta.json": META,
        "ds0/img/a.jpg": None,
        "ds1/img/a.jpg": None,
        f"{name}/ann/a.jpg.json": supervisely([thing(), thing("polygon")]),
    }
    found = read_set(files)
    assert found.pop(f"{name}/img/a.jpg") == ("cone", [BOX, BOX])
    assert list(found.values()) == [("", [])]
    assert not read_set.damage


@pytest.mark.parametrize(
    ("shapes", "more", "expected"),
    [
        ([shape()], {}, ("cone", [BOX])),
        ([shape("polygon", listed=[[8, 6], [16.5, 7], [9, 12]])], {}, ("cone", [BOX])),
        ([shape("circle", listed=[[8, 6], [11, 10]])], {}, ("cone", [("cone", 3, 1, 13, 11)])),
        ([], {"flags": {"clear": True, "wet": False}}, ("clear", [])),
    ],
)
def test_labelme_is_read(read_set, shapes, more, expected):
    files = {"pics/a.jpg": None, "pics/a.json": labelme(shapes, **more)}
    assert read_set(files) == {"pics/a.jpg": expected}
    assert not read_set.damage


def test_what_is_no_area_or_no_number_is_counted(read_set):
    shapes = [
        shape("point"),
        shape("line"),
        shape(label=None),
        shape(listed=[[1, "x"]]),
        shape(listed=7),
    ]
    files = {
        "pics/a.jpg": None,
        "pics/b.jpg": None,
        "pics/a.json": labelme([*shapes, shape("circle", listed=[[1, 2]]), shape()]),
        "pics/b.jpg.json": supervisely([thing("bitmap", listed=None)], size=(9, 9)),
    }
    assert read_set(files)["pics/a.jpg"] == ("cone", [BOX])
    assert {kind: count for kind, (count, _) in read_set.damage.items()} == {
        "shape not read": 3,
        "bad label": 4,
    }


def test_boxes_of_a_picture_of_another_size_are_left_out(read_set):
    files = {"img/a.jpg": None, "ann/a.jpg.json": supervisely([thing()], size=(320, 240))}
    assert read_set(files) == {"img/a.jpg": ("", [])}
    assert list(read_set.damage) == ["boxes of another size"]
