import json

import pytest

pytestmark = pytest.mark.base

CONE = {"_cls": "Detection", "label": "cone", "bounding_box": [0.25, 0.25, 0.25, 0.5]}
BOX = ("cone", 8.0, 6.0, 16.0, 18.0)


def samples(value, field="ground_truth", **more):
    sample = {"filepath": "data/a.jpg", "tags": [], "metadata": None, field: value}
    return json.dumps({"samples": [sample | more]})


def labels(value, classes=None):
    return json.dumps({"classes": classes, "labels": {"a": value}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (samples({"_cls": "Detections", "detections": [CONE]}), ("cone", [BOX])),
        (samples({"_cls": "Detections", "detections": []}), ("", [])),
        (samples({"_cls": "Classification", "label": "clear"}, "weather"), ("clear", [])),
        (samples(None), ("", [])),
        (
            samples(
                {"_cls": "Polylines", "polylines": [
                    {"_cls": "Polyline", "label": "cone", "points": [[[0.25, 0.25], [0.5, 0.75]]]}
                ]}
            ),
            ("cone", [BOX]),
        ),
        (labels([{"label": "cone", "bounding_box": [0.25, 0.25, 0.25, 0.5]}]), ("cone", [BOX])),
        (labels([{"label": 1, "bounding_box": [0.25, 0.25, 0.25, 0.5]}], ["bin", "cone"]),
         ("cone", [BOX])),
        (labels("clear"), ("clear", [])),
        (labels(1, ["blocked", "clear"]), ("clear", [])),
        (labels(None), ("", [])),
    ],
)  # fmt: skip
def test_shares_become_pixels_of_the_picture(read_set, text, expected):
    name = "samples.json" if "samples" in text else "labels.json"
    assert read_set({"data/a.jpg": None, name: text}) == {"data/a.jpg": expected}
    assert not read_set.damage


def test_of_several_fields_the_truth_counts_and_without_one_nothing_is_guessed(read_set):
    guess = {"_cls": "Classification", "label": "blocked"}
    text = samples({"_cls": "Classification", "label": "clear"}, predictions=guess)
    assert read_set({"data/a.jpg": None, "samples.json": text}) == {"data/a.jpg": ("clear", [])}
    text = samples({"_cls": "Classification", "label": "clear"}, "person", predictions=guess)
    assert read_set({"data/a.jpg": None, "samples.json": text}) == {"data/a.jpg": ("", [])}
    assert "person, predictions; export one" in read_set.damage["annotations not read"][1]


def test_what_says_nothing_certain_is_counted(read_set):
    detections = [
        CONE,
        CONE | {"label": None},
        CONE | {"bounding_box": [1, 2, 3]},
        CONE | {"bounding_box": [1, 2, 3, "x"]},
        {"_cls": "Keypoint", "label": "cone"},
    ]
    text = samples({"_cls": "Detections", "detections": detections})
    assert read_set({"data/a.jpg": None, "samples.json": text}) == {"data/a.jpg": ("cone", [BOX])}
    assert {kind: count for kind, (count, _) in read_set.damage.items()} == {
        "bad label": 3,
        "shape not read": 1,
    }
    for value in ({"_cls": "Detections", "detections": 7}, {"_cls": "Classification"}):
        read_set({"data/a.jpg": None, "samples.json": samples(value)})
        assert {kind: count for kind, (count, _) in read_set.damage.items()} == {"bad label": 1}
