import pytest

pytestmark = pytest.mark.base

TABLE = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
UNREAD = "annotations not read"


def test_tables_of_roboflow_and_tensorflow_are_read(read_set):
    files = {
        "train/a.jpg": None,
        "train/b.jpg": None,
        "valid/a.jpg": None,
        "train/_annotations.csv": TABLE + "a.jpg,32,24,cone,8,6,16,12\na.jpg,32,24,bin,0,0,32,24\n",
        "valid/_annotations.csv": TABLE + "a.jpg,32,24,cup,8,6,16,12\nc.jpg,32,24,cup,8,6,16,12\n",
    }
    assert read_set(files) == {
        "train/a.jpg": ("bin", [("cone", 8, 6, 16, 12), ("bin", 0, 0, 32, 24)]),
        "train/b.jpg": ("", []),
        "valid/a.jpg": ("cup", [("cup", 8, 6, 16, 12)]),
    }
    assert read_set.damage == {"unknown image": (1, "set/valid/_annotations.csv line 3: 'c.jpg'")}


def test_a_column_for_each_class_is_a_label_if_only_one_is_set(read_set):
    table = (
        "filename, blocked, clear\na.jpg, 1, 0\nb.jpg, 0, 1\nc.jpg, 0, 0\nd.jpg, 1, 1\ne.jpg,,\n"
    )
    files = {f"train/{name}.jpg": None for name in "abcde"} | {"train/_classes.csv": table}
    assert [label for label, _ in read_set(files).values()] == ["blocked", "clear", "", "", ""]
    assert {kind: count for kind, (count, _) in read_set.damage.items()} == {
        "bad label line": 1,
        "several labels": 1,
    }


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("star/a.json", '{"shapes": [{"label": "cone"}]}'),  # LabelMe
        ("star/a.jpg.json", "{}"),  # Supervisely
        ("ann/a.jpg.json", "{}"),
        ("star/a.txt", "0 .5 .5 .1 .1"),  # YOLO, and nobody names the classes
        ("annotations.xml", "<annotations/>"),  # CVAT
        ("star/_annotations.txt", "a.jpg 8,6,16,12,0"),
        ("annotations/lvis.json", "{}"),
        ("other.json", '{"annotations": []}'),
        ("via_region_data.json", '{"a.jpg123": {"filename": "a.jpg"}}'),
        ("metadata.jsonl", '{"file_name": "star/a.jpg", "text": "x"}'),
        ("train.lst", "0\t1.0\tstar/A.jpg\n1\t0.0\tstar/a.jpg\n"),
        ("list.txt", "star/a.jpg 0\n"),
        ("all.csv", "file,label,x,y,w,h\nstar/a.jpg,cone,1,2,3,4\n"),
        ("all.csv", "file,label,x,y,w,h\na,cone,1,2,3,4\n"),
        ("all.csv", "star/a.jpg,8,6,16,12,cone\n"),  # keras-retinanet has no first line
        ("utf16.csv", "id;star/a.jpg\n".encode("utf-16")),
    ],
)
def test_where_somebody_annotated_in_a_way_that_is_not_read_no_folder_is_a_label(
    read_set, file, content
):
    pictures = {"star/a.jpg": None, "circle/b.jpg": None}
    assert read_set({**pictures, file: content}) == dict.fromkeys(pictures, ("", []))
    ((kind, (count, begins)),) = read_set.damage.items()
    assert (kind, count) == (UNREAD, 1)
    assert begins.startswith(f"set/{file}")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("README.roboflow.txt", "exported 3 images\n"),
        ("classes.txt", "star\ncircle\n"),
        ("train.txt", "star/a.jpg\n./circle/b.jpg\n"),
        ("calibration.json", '{"camera": [1, 2]}'),
        ("a.yaml", "image: a.jpg\n"),  # a map of ROS
        ("predicted.csv", "file,topic,stamp_ns,label,score\nstar/a.jpg,a,1,circle,0.9\n"),
        ("odometry.csv", "stamp,x,y,theta\n1,2,3,4\n"),
        (".hidden/a.xml", "<annotation/>"),
        ("star/a.pcd", "points"),
    ],
)
def test_other_files_beside_class_folders_leave_them_labels(read_set, file, content):
    pictures = {"star/a.jpg": None, "circle/b.jpg": None}
    found = read_set({**pictures, file: content})
    assert found == {"star/a.jpg": ("star", []), "circle/b.jpg": ("circle", [])}
    assert not read_set.damage


def test_of_one_picture_only_the_table_beside_it_is_looked_at(read_set):
    files = {"a.jpg": None, "b.jpg": None, "labels.csv": "file,label\na.jpg,cone\nb.jpg,bin\n"}
    read_set(files)
    assert read_set({"sub/x.json": '{"annotations": []}'}, "set/b.jpg") == {"b.jpg": ("bin", [])}
    assert not read_set.damage


def test_pictures_whose_labels_lie_beside_their_folder_say_so(read_set):
    files = {"train/images/a.jpg": None, "train/labels/a.txt": "0 .5 .5 .1 .1"}
    assert read_set(files, "set/train/images") == {"a.jpg": ("", [])}
    assert read_set.damage == {
        UNREAD: (1, "images: labels, which lies beside it; name the folder of both")
    }


def test_a_folder_around_the_class_folders_is_named(read_set):
    files = {"mine/star/a.jpg": None, "mine/circle/b.jpg": None}
    assert read_set(files) == dict.fromkeys(files, ("", []))
    assert read_set.damage["labels not clear"][1].startswith("set/mine/circle: expected LABEL/pict")
    assert read_set({}, "set/mine") == {"star/a.jpg": ("star", []), "circle/b.jpg": ("circle", [])}
