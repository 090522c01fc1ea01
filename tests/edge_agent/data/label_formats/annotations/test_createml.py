import json

import pytest

pytestmark = pytest.mark.base

PLACE = {"x": 12, "y": 9, "width": 8, "height": 6.5}


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ([{"label": "cone", "coordinates": PLACE}], ("cone", [("cone", 8.0, 5.75, 16.0, 12.25)])),
        ([{"label": "cone"}], ("cone", [])),
        ("cone", ("cone", [])),
        (["cone"], ("cone", [])),
        ([], ("", [])),
    ],
)
def test_labels_and_boxes_by_their_center_are_read(read_set, annotations, expected):
    listed = [{"image": "a.jpg", "annotations": annotations}]
    files = {"train/a.jpg": None, "train/_annotations.createml.json": json.dumps(listed)}
    assert read_set(files) == {"train/a.jpg": expected}
    assert not read_set.damage


def test_what_says_nothing_certain_is_counted(read_set):
    annotations = [
        {"label": "cone", "coordinates": {**PLACE, "x": "1"}},
        {"label": "cone", "coordinates": {"x": 1, "y": 2}},
        {"label": 7},
        7,
        {"label": "cone", "coordinates": {**PLACE, "x": 10**400}},
        {"label": "cone", "coordinates": PLACE},
        {"label": "bin"},
        {"label": "cup"},
    ]
    listed = [{"image": "a.jpg", "annotations": annotations}, {"image": "b.jpg", "annotations": []}]
    found = read_set({"a.jpg": None, "x.json": json.dumps(listed)})
    assert found == {"a.jpg": ("cone", [("cone", 8.0, 5.75, 16.0, 12.25)])}
    assert {kind: count for kind, (count, _) in read_set.damage.items()} == {
        "bad label": 5,
        "several labels": 1,
        "unknown image": 1,
    }


@pytest.mark.parametrize(
    "text",
    ["[]", "[1]", "[" * 100_000, '[{"image": "a.jpg"}]', '{"a.jpg": 1}', '["a.jpg", "cone"]'],
)
def test_other_json_files_are_not_taken_for_it(read_set, text):
    assert read_set({"train/a.jpg": None, "train/a.json": text}) == {"train/a.jpg": ("", [])}
    assert read_set.damage == {"annotations not read": (1, "set/train/a.json")}
