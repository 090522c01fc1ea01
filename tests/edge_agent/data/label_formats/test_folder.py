from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.label_formats.folder import folder_of
from edge_agent.data.labels import LabelSettings, labelled_frames
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base


@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=6))
def test_every_label_has_a_folder_of_its_own_that_stays_inside(labels):
    folders = {label: folder_of(label) for label in labels if label != "unlabeled"}
    for one, other in combinations(folders, 2):
        assert folders[one] != folders[other]
    for name in folders.values():
        assert "/" not in name
        assert "\0" not in name
        assert not name.startswith(".")
        assert 0 < len(name.encode()) <= 255


def test_ordinary_labels_are_their_own_folder():
    assert folder_of("fire extinguisher") == "fire extinguisher"
    assert folder_of("Stuhl-größe_2") == "Stuhl-größe_2"
    assert folder_of("") == "unlabeled"
    assert folder_of("a/b") == "a%2Fb"
    assert folder_of("..") == "%2E."


def test_pictures_that_are_not_read_are_counted_by_their_name_and_not_passed_over(
    tmp_path, make_picture
):
    begins = {
        "gif": b"GIF89a",
        "avif": b"\0\0\0\x1cftypavif",
        "heic": b"\0\0\0\x18ftypheic",
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
        "jxl": b"\xff\x0a",
        "pgm": b"P5\n2 2\n255\n",
        "exr": b"\x76\x2f\x31\x01",
    }
    (tmp_path / "set").mkdir()
    for suffix, begin in begins.items():
        (tmp_path / f"set/a.{suffix}").write_bytes(begin + bytes(60))
    (tmp_path / "set/b.jpg").write_bytes(make_picture(0))
    damage = DamageLog()
    frames = labelled_frames(tmp_path / "set", LabelSettings(), damage)
    assert [one.frame.topic for one in frames] == ["b.jpg"]
    (found,) = damage.all()
    assert (found.kind, found.count) == ("unknown format", len(begins))
    assert "set/a.avif: avif is not read; convert it to one of jpeg, png" in damage.sentence()


def test_an_image_that_was_moved_keeps_its_time_and_gets_the_new_label(data_sets, load_all):
    rows = [data_sets.row(i, label="star") for i in range(3)]
    path, placed = data_sets.write("folder", rows)
    (path / "circle").mkdir()
    moved = path / placed[1].file
    moved.rename(path / "circle" / moved.name)
    found = {labelled.frame.stamp_ns: labelled for labelled in load_all("folder", path)}
    assert [found[row.stamp_ns].label for row in rows] == ["star", "circle", "star"]
    assert found[rows[1].stamp_ns].frame.topic == "/camera"


def test_labels_csv_counts_more_than_manifest_and_folder(data_sets, load_all, make_box):
    path, placed = data_sets.write("folder", [data_sets.row(i, label="star") for i in range(2)])
    table = f"file,label,x0,y0,x1,y1\n{placed[1].file},bin,1.5,2.25,10.1,20.3\n"
    (path / "labels.csv").write_text(table)
    found = load_all("folder", path)
    assert [labelled.label for labelled in found] == ["star", "bin"]
    assert found[1].boxes == (make_box(),)


def test_images_beside_the_manifest_are_read_and_missing_ones_are_named(data_sets, load_all):
    path, placed = data_sets.write("folder", [data_sets.row(i, label="star") for i in range(2)])
    (path / "star/new.jpg").write_bytes((path / placed[0].file).read_bytes())
    (path / placed[0].file).unlink()
    damage = DamageLog()
    found = load_all("folder", path, damage)
    assert [labelled.frame.topic for labelled in found] == ["/camera", "star/new.jpg"]
    assert damage.sentence().startswith(f"1 x missing file, first set/{placed[0].file}")


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/out.jpg", "a/../../out.jpg"])
def test_a_manifest_cannot_name_a_file_outside(data_sets, load_all, name):
    path, placed = data_sets.write("folder", [data_sets.row(label="star")])
    (path.parent / "out.jpg").write_bytes((path / placed[0].file).read_bytes())
    manifest = path / "manifest.csv"
    manifest.write_text(manifest.read_text() + f"{name},/camera,1,run,star,,1,1,\n")
    damage = DamageLog()
    assert len(load_all("folder", path, damage)) == 1
    assert [each.kind for each in damage.all()] == ["unsafe path"]


def test_boxes_without_an_area_in_the_picture_are_left_out_and_named(data_sets, load_all, make_box):
    boxes = (
        make_box(),
        make_box(x0=5.0, x1=5.0),
        make_box(x0=32.0, x1=40.0),
        make_box(y0=-5.0, y1=-1.0),
        make_box(x0=-1.0, x1=99.0),
    )
    path, _ = data_sets.write("folder", [data_sets.row(label="bin", boxes=boxes)])
    damage = DamageLog()
    (found,) = load_all("folder", path, damage)
    assert found.boxes == (boxes[0], boxes[4])
    assert [(each.kind, each.count) for each in damage.all()] == [
        ("bad box", 1),
        ("box outside the picture", 2),
        ("box mostly outside the picture", 1),
    ]


def test_a_damaged_manifest_leaves_a_plain_folder(data_sets, load_all):
    path, _ = data_sets.write("folder", [data_sets.row(label="star")])
    (path / "manifest.csv").write_bytes(b"\x93NUMPY\0\0")
    damage = DamageLog()
    (found,) = load_all("folder", path, damage)
    assert found.label == "star"
    assert [each.kind for each in damage.all()] == ["damaged manifest"]
