import json

import pytest

pytestmark = pytest.mark.base

SIZE = {"original_width": 32, "original_height": 24}
PLACE = {"x": 25, "y": 25, "width": 25, "height": 50, "rotation": 0}
CONE = {"type": "rectanglelabels", "value": {**PLACE, "rectanglelabels": ["cone"]}, **SIZE}
BOX = ("cone", 8.0, 6.0, 16.0, 18.0)


def region(kind, labels, **value):
    return {"type": kind, "value": {**value, kind: labels}, **SIZE}


def task(*regions, image="/data/upload/1/0123abcd-a.jpg", **more):
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": list(regions)}], **more}


def export(*tasks):
    return json.dumps(list(tasks))


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([CONE], ("cone", [BOX])),
        (
            [region("polygonlabels", ["cone"], points=[[25, 25], [50, 30], [30, 75]])],
            ("cone", [BOX]),
        ),
        (
            [region("ellipselabels", ["cone"], x=37.5, y=50, radiusX=12.5, radiusY=25)],
            ("cone", [BOX]),
        ),
        ([region("choices", ["clear"])], ("clear", [])),
        ([], ("", [])),
    ],
)
@pytest.mark.parametrize(
    "image",
    ["/data/upload/1/0123abcd-a.jpg", "/data/local-files/?d=robot%5Ca.jpg", "s3://robots/x/a.jpg"],
)
def test_what_people_draw_becomes_boxes_in_pixels(read_set, regions, expected, image):
    found = read_set({"images/a.jpg": None, "export.json": export(task(*regions, image=image))})
    assert found == {"images/a.jpg": expected}
    assert not read_set.damage


def test_a_turned_box_becomes_the_upright_box_around_it(read_set):
    turned = region("rectanglelabels", ["cone"], x=50, y=25, width=25, height=25, rotation=90)
    ((_, (box,)),) = read_set({"a.jpg": None, "x.json": export(task(turned))}).values()
    assert box[1:] == pytest.approx((10, 6, 16, 14))  # about its upper left corner, clockwise


def test_the_short_format_is_read_too(read_set):
    keys = {"id": 1, "annotator": 1, "annotation_id": 2, "lead_time": 1.5}
    place = {**PLACE, "rectanglelabels": ["cone"], **SIZE}
    files = {
        "a.jpg": None,
        "b.jpg": None,
        "x.json": export(
            {"image": "/data/upload/1/a.jpg", "label": [place], **keys},
            {"image": "/data/upload/1/b.jpg", "choice": "clear", **keys},
        ),
    }
    assert read_set(files) == {"a.jpg": ("cone", [BOX]), "b.jpg": ("clear", [])}


def test_the_last_answer_counts_and_the_others_are_counted(read_set):
    answers = [
        {"result": [region("choices", ["blocked"])]},
        {"result": [region("choices", ["clear"])]},
        {"result": [CONE], "was_cancelled": True},
    ]
    found = read_set({"a.jpg": None, "x.json": export(task(annotations=answers))})
    assert found == {"a.jpg": ("clear", [])}
    assert {kind: count for kind, (count, _) in read_set.damage.items()} == {"several answers": 1}


def test_what_nobody_answered_is_not_said_to_be_empty(read_set):
    files = {"a.jpg": None, "x.json": export(task(annotations=[]))}
    assert read_set(files) == {"a.jpg": ("", [])}


def test_what_is_no_area_or_no_number_is_counted(read_set):
    regions = [
        region("keypointlabels", ["cone"], x=1, y=2),
        region("brushlabels", ["cone"], rle=[1, 2]),
        {"type": "rectanglelabels", "value": {**PLACE, "rectanglelabels": ["cone"]}},
        {**CONE, "value": {**CONE["value"], "x": None}},
        {**CONE, "value": PLACE},
        region("rectanglelabels", [], **PLACE),
        CONE,
    ]
    found = read_set({"a.jpg": None, "x.json": export(task(*regions), task(CONE, image=7))})
    assert found == {"a.jpg": ("cone", [BOX])}
    assert {kind: count for kind, (count, _) in read_set.damage.items()} == {
        "shape not read": 2,
        "bad label": 5,
    }
