import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.label_formats.annotations.told import Told
from edge_agent.data.label_formats.marks import Mark
from edge_agent.data.label_formats.table import Labels, labels_by_stamp, names_files, told_by_table
from edge_agent.data.manifest import ManifestRow, write_manifest
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

pytestmark = pytest.mark.base

A = Box(label="a", x0=1.0, y0=2.0, x1=3.0, y1=4.5)
B = Box(label="b", x0=0.0, y0=0.0, x1=9.0, y1=9.0)


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "labels.csv").write_text(text)
        return tmp_path / "labels.csv"

    return write


def test_a_frame_may_have_a_label_or_boxes_or_both(table):
    path = table(
        "file,label,x0,y0,x1,y1\n1.jpg,scene\n2.jpg,a,1,2,3,4.5\n2.jpg,b,0,0,9,9\n"
        "3.jpg,a,1,2,3,4.5\n3.jpg,scene,,,,\n"
    )
    damage = DamageLog()
    assert list(told_by_table(path, "x/labels.csv", damage)) == [
        Told(("1.jpg",), "x/labels.csv", 2, "scene", seen=False),
        Told(("2.jpg",), "x/labels.csv", 3, "", (A,), seen=True),
        Told(("2.jpg",), "x/labels.csv", 4, "", (B,), seen=True),
        Told(("3.jpg",), "x/labels.csv", 5, "", (A,), seen=True),
        Told(("3.jpg",), "x/labels.csv", 6, "scene"),
    ]
    assert not damage
    assert names_files(path)


def test_a_manifest_is_a_table_by_stamp(tmp_path):
    rows = [
        ManifestRow(file="a", topic="/c", stamp_ns=5, source="s", label="scene", boxes=(A, B)),
        ManifestRow(file="b", topic="/c", stamp_ns=6, source="s"),
        ManifestRow(file="c", topic="/c", stamp_ns=7, source="s", seen=True),
    ]
    write_manifest(tmp_path / "manifest.csv", rows)
    found = list(labels_by_stamp(tmp_path / "manifest.csv", DamageLog()))
    assert found == [
        (5, Labels(Mark("scene", (A, B), seen=True), "/c")),
        (6, Labels(Mark("", seen=False), "/c")),
        (7, Labels(Mark("", seen=True), "/c")),
    ]
    assert not names_files(tmp_path / "manifest.csv")


def test_only_a_table_of_boxes_says_that_nothing_is_there(table):
    def seen(text):
        return [
            (stamp, each.mark.seen) for stamp, each in labels_by_stamp(table(text), DamageLog())
        ]

    assert seen("stamp_ns,label\n1,\n2,a\n") == [(1, False), (2, False)]
    corners = "stamp_ns,label,x0,y0,x1,y1\n1,,,,,\n2,a\n3,a,1,2,3,4\n4\n"
    assert seen(corners) == [(1, True), (2, False), (3, True)]
    assert seen("stamp_ns,label,boxes\n1,,[]\n2,,\n3,a,[]\n") == [(1, True), (2, False), (3, True)]


def test_bad_lines_are_named_and_the_rest_is_read(table):
    path = table("stamp_ns,label,x0,y0,x1,y1\nsoon,a\n7\n7,a,1,2\n7,a,1,2,x,4\n8,b\n")
    damage = DamageLog()
    assert list(labels_by_stamp(path, damage)) == [(8, Labels(Mark("b", seen=False)))]
    (found,) = damage.all()
    assert (found.kind, found.count) == ("bad label line", 4)
    assert found.begins.startswith("labels.csv line 2")


def test_a_table_without_the_columns_says_what_it_needs(table):
    with pytest.raises(FrameError, match="names no column label; expected stamp_ns,label"):
        list(labels_by_stamp(table("stamp_ns,name\n1,a\n"), DamageLog()))


@given(st.text(st.sampled_from('0123456789,."\n\r\0aNi-[]{}:'), max_size=60))
def test_any_text_is_labels_or_damage(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("t") / "a.csv"
    path.write_text("stamp_ns,label,boxes,x0,y0,x1,y1\n" + text)
    list(labels_by_stamp(path, DamageLog()))


@pytest.mark.parametrize(
    "text",
    [
        "file;label;x0;y0;x1;y1\r\n1.jpg;a;1;2;3;4,5\r\n",  # a spreadsheet in Europe
        "sep=;\r\nfile;label;x0;y0;x1;y1\r\n1.jpg;a;1;2;3;4,5\r\n",
        "File\tLabel\tX0\tY0\tX1\tY1\n1.jpg\ta\t1\t2\t3\t4.5\n",
        "filename,width,height,class,xmin,ymin,xmax,ymax\n1.jpg,0,0,a,1,2,3,4.5\n",
        "image_path,class_name,class,x1,y1,x2,y2\n1.jpg,a,7,1,2,3,4.5\n",
        "image,x_min,x_max,y_min,y_max,label\n1.jpg,1,3,2,4.5,a\n",
        "\ufefffile,label,x0,y0,x1,y1\n1.jpg,a,1,2,3,4.5\n",
    ],
)
def test_columns_of_other_tools_are_understood(table, text):
    path, damage = table(text), DamageLog()
    assert names_files(path)
    (told,) = told_by_table(path, "l.csv", damage)
    assert (told.names, told.label, told.boxes) == (("1.jpg",), "", (A,))
    assert not damage


def test_a_picture_size_is_taken_and_shares_are_no_pixels(table):
    path, damage = (
        table("filename,width,height,class,xmin,ymin,xmax,ymax\na,32,24,a,0,.5,1,1\n"),
        DamageLog(),
    )
    assert list(told_by_table(path, "l.csv", damage)) == []
    assert damage.sentence().endswith("corners are shares of the picture, not pixels")
    path = table("filename,width,height,class,xmin,ymin,xmax,ymax\na,32,24,a,1,2,3,4.5\n")
    (told,) = told_by_table(path, "l.csv", DamageLog())
    assert told.size == (32, 24)


@pytest.mark.parametrize("columns", ["x,y,w,h", "bbox", "cx,cy,width,height", "x0,y0,w,h", "x1,y1"])
def test_numbers_that_may_mean_several_things_are_refused(table, columns):
    with pytest.raises(
        FrameError, match=r"nobody says what its columns .* expected x0, y0, x1, y1"
    ):
        list(told_by_table(table(f"file,label,{columns}\na.jpg,b,1,2,3,4\n"), "l.csv", DamageLog()))
