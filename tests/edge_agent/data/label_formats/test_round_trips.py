"""Data sets from one format into the next: no changed pixel, stamp, label or bit of a box."""

import struct
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.data.label_formats.data_set import FORMATS, largest_label
from edge_agent.data.manifest import MANIFEST
from fleet_model.types import Box

pytestmark = [pytest.mark.base, pytest.mark.slow]

WIDTH, HEIGHT = 32, 24
ROBOT_FRAMES = Path(__file__).parents[3] / "data/robot_frames"
few = settings(
    max_examples=settings.default.max_examples // 8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
labels = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
plain_labels = labels.map(str.strip).filter(bool)


def spans(length):
    """Return low < high with a part inside 0..length."""
    numbers = st.floats(-1e6, 1e6, allow_subnormal=True).map(lambda x: x + 0.0)
    inside = st.floats(0, length)
    pairs = st.tuples(inside, inside) | st.tuples(numbers, numbers)
    return (
        pairs.map(sorted)
        .filter(lambda span: span[0] < span[1] and span[1] > 0)
        .filter(lambda span: span[0] < length)
    )


boxes = st.builds(
    lambda label, x, y: Box(label=label, x0=x[0], y0=y[0], x1=x[1], y1=y[1]),
    plain_labels,
    spans(WIDTH),
    spans(HEIGHT),
)
contents = st.lists(
    st.tuples(st.lists(boxes, max_size=3).map(tuple), st.just("") | plain_labels), max_size=4
)


def packed(found):
    return [(b.label, struct.pack("<4d", b.x0, b.y0, b.x1, b.y1)) for b in found]


def assert_same(found, rows, pictures):
    assert len(found) == len(rows)
    for labelled, row, content in zip(found, rows, pictures, strict=True):
        frame = labelled.frame
        assert bytes(frame.data) == content
        assert (frame.source, frame.topic, frame.stamp_ns) == (row.source, row.topic, row.stamp_ns)
        assert packed(labelled.boxes) == packed(row.boxes)
        assert labelled.label == row.label


def rows_of(data_sets, content):
    return [
        data_sets.row(i, boxes=found, label=label or largest_label(found))
        for i, (found, label) in enumerate(content)
    ]


def as_rows(found):
    """Return the rows that extraction makes of what a data set holds."""
    from edge_agent.data.manifest import ManifestRow

    return [
        ManifestRow(
            file=f"{labelled.frame.source}-{labelled.frame.stamp_ns}.jpg",
            topic=labelled.frame.topic,
            stamp_ns=labelled.frame.stamp_ns,
            source=labelled.frame.source,
            label=labelled.label,
            width=labelled.frame.width,
            height=labelled.frame.height,
            boxes=labelled.boxes,
        )
        for labelled in found
    ]


@pytest.mark.parametrize("pair", list(permutations(FORMATS, 2)), ids=" to ".join)
@given(content=contents, data=st.data())
@few
def test_every_format_hands_everything_on_to_every_other(
    data_sets, make_picture, load_all, tmp_path_factory, pair, content, data
):
    data_sets.root = tmp_path_factory.mktemp("pair")
    pictures = [make_picture(index) for index in range(len(content))]
    rows = rows_of(data_sets, content)
    first, second = pair
    if not rows:
        return
    path, _ = data_sets.write(first, rows, "first", pictures)
    found = load_all(first, path)
    assert_same(found, rows, pictures)
    path, _ = data_sets.write(second, as_rows(found), "second", pictures)
    assert_same(load_all(second, path), rows, pictures)


@pytest.mark.parametrize("form", ["tfds", "coco"])
@given(content=contents)
@few
def test_tfds_and_coco_hold_everything_even_without_the_manifest(
    data_sets, make_picture, load_all, tmp_path_factory, form, content
):
    data_sets.root = tmp_path_factory.mktemp("alone")
    pictures = [make_picture(index) for index in range(len(content))]
    rows = rows_of(data_sets, content)
    if not rows:
        return
    path, _ = data_sets.write(form, rows, "alone", pictures, manifest=False)
    assert_same(load_all(form, path), rows, pictures)


@given(content=contents)
@few
def test_yolo_holds_every_box_even_without_the_manifest(
    data_sets, make_picture, load_all, tmp_path_factory, content
):
    data_sets.root = tmp_path_factory.mktemp("alone")
    rows = rows_of(data_sets, content)
    if not rows:
        return
    path, _ = data_sets.write("yolo", rows, "alone", manifest=False)
    found = load_all("yolo", path)
    assert [packed(labelled.boxes) for labelled in found] == [packed(row.boxes) for row in rows]


@pytest.mark.parametrize("form", FORMATS)
def test_finishing_twice_leaves_the_same_bytes(data_sets, make_box, form):
    rows = [data_sets.row(i, label="bin", boxes=(make_box(),) * i) for i in range(3)]
    path, placed = data_sets.write(form, rows)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    from edge_agent.data.label_formats.data_set import open_format

    open_format(form).finish(path, placed)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    more = [*placed, replace(placed[0], file=placed[1].file, stamp_ns=1)]
    open_format(form).finish(path, more)
    open_format(form).finish(path, placed)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("form", FORMATS)
def test_exactly_one_format_recognizes_what_each_writes(data_sets, make_box, form):
    from edge_agent.data.label_formats.data_set import open_format

    path, _ = data_sets.write(form, [data_sets.row(label="bin", boxes=(make_box(),))])
    assert next(name for name in FORMATS if open_format(name).recognizes(path)) == form
    (path / MANIFEST).unlink()
    assert next(name for name in FORMATS if open_format(name).recognizes(path)) == form


def test_fourteen_real_frames_go_through_all_formats_without_a_changed_bit(
    tmp_path, data_sets, load_all
):
    (tmp_path / "real").mkdir()
    for folder in ("images", "labels"):
        (tmp_path / "real" / folder).symlink_to(ROBOT_FRAMES / folder)
    found = load_all("yolo", tmp_path / "real")
    pictures = [file.read_bytes() for file in sorted((ROBOT_FRAMES / "images").iterdir())]
    rows = as_rows(found)
    rows = [replace(row, file=f"{index:02d}.jpg", stamp_ns=index) for index, row in enumerate(rows)]
    assert len(rows) == 14
    assert sum(len(row.boxes) for row in rows) == 23
    assert {box.label for row in rows for box in row.boxes} == {"80", "81"}
    for form in ("yolo", "coco", "tfds", "folder", "tfds", "yolo"):
        path, _ = data_sets.write(form, rows, f"{len(list(tmp_path.iterdir()))}-{form}", pictures)
        found = load_all(form, path)
        assert_same(found, rows, pictures)
