import json
from pathlib import Path

import pytest

from edge_agent.data.label_formats.coco.results import CocoResults, pictures_file
from fleet_model.types import Box, Frame, Prediction

pytestmark = pytest.mark.base


def frame(source, topic, stamp_ns, form="jpeg"):
    return Frame(
        source=source, topic=topic, stamp_ns=stamp_ns, data=b"", format=form, decode=lambda: None
    )


def both(results):
    return json.loads(results.results()), json.loads(results.pictures())


def test_numbers_begin_at_one_and_boxes_are_corner_and_size():
    results = CocoResults(["cup", "jug"])
    found = [
        Prediction(label="jug", score=0.75, box=(10.5, 20.0, 110.5, 70.0)),
        Prediction(label="cup", score=0.5, box=(0.0, 0.0, 1.0, 2.0)),
        Prediction(label="a tray", score=0.9),  # of the whole picture
    ]
    truth = [Box(label="cup", x0=1, y0=2, x1=4, y1=8), Box(label="pan", x0=0, y0=0, x1=1, y1=1)]
    results.add(frame("set", "images/a.png", 5), (640, 480), [], [], seen=False)
    results.add(frame("set", "images/b.png", 6), (320, 240), found, truth, seen=True)

    said, pictures = both(results)
    assert said == [
        {"image_id": 2, "category_id": 2, "bbox": [10.5, 20.0, 100.0, 50.0], "score": 0.75},
        {"image_id": 2, "category_id": 1, "bbox": [0.0, 0.0, 1.0, 2.0], "score": 0.5},
    ]
    assert pictures["categories"] == [{"id": 1, "name": "cup"}, {"id": 2, "name": "jug"}]
    assert pictures["annotations"] == [
        {
            "id": 1,
            "image_id": 2,
            "category_id": 1,
            "bbox": [1, 2, 3, 6],
            "area": 18,
            "iscrowd": 0,
        }
    ]
    assert pictures["images"][0]["seen"] is False  # else it would be an example of nothing
    assert pictures["images"][1] == {
        "id": 2,
        "file_name": "images/b.png",
        "width": 320,
        "height": 240,
        "seen": True,
        "stamp_ns": 6,
        "topic": "images/b.png",
        "source": "set",
    }


def test_a_frame_of_a_bag_has_the_name_that_extract_gives_it():
    results = CocoResults(["cup"])
    for topic, stamp_ns, form in (("/a", 5, "jpeg"), ("/a", 5, "jpeg"), ("/b", 5, "bgr8")):
        results.add(frame("drive", topic, stamp_ns, form), (8, 8), [], [], seen=True)
    names = [picture["file_name"] for picture in both(results)[1]["images"]]
    assert names == ["drive-5.jpg", "drive-5_1.jpg", "drive-b-5.png"]


def test_nothing_found_is_an_empty_list():
    assert both(CocoResults([])) == ([], {"images": [], "categories": [], "annotations": []})


def test_the_pictures_lie_beside_the_results():
    assert pictures_file(Path("out/r1.v2.json")) == Path("out/r1.v2.images.json")
