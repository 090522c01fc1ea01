import pytest

pytestmark = pytest.mark.base

BOX = ("cone", 8.0, 6.0, 16.0, 12.5)
OBJECT = (
    "<object><name>cone</name><bndbox><xmin>8</xmin><ymin>6</ymin><xmax>16</xmax>"
    "<ymax>12.5</ymax></bndbox></object>"
)


def voc(name="a.jpg", objects=OBJECT, size=(32, 24)):
    width, height = size
    return (
        f"<annotation><folder>x</folder><filename>{name}</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>"
    )


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("a.jpg", "a.xml"),
        ("train/a.jpg", "train/a.xml"),
        ("JPEGImages/a.jpg", "Annotations/a.xml"),
        ("VOC2007/JPEGImages/a.jpg", "VOC2007/Annotations/a.xml"),
        ("images/train/a.jpg", "annotations/train/a.xml"),
        ("circle/a.jpg", "circle/a.xml"),  # a labelled folder of a class: what the file says
    ],
)
def test_the_layouts_of_common_tools_are_read(read_set, image, file):
    assert read_set({image: None, file: voc()}) == {image: ("cone", [BOX])}
    assert not read_set.damage


def test_the_picture_of_the_files_own_name_counts_more_than_the_one_it_names(read_set):
    files = {"a.jpg": None, "b.jpg": None, "a.xml": voc("b.jpg"), "b.xml": voc("b.jpg", "")}
    assert read_set(files) == {"a.jpg": ("cone", [BOX]), "b.jpg": ("", [])}
    files = {"x/c.jpg": None, "0001.xml": voc("C:\\pictures\\c.jpg")}
    assert read_set(files)["x/c.jpg"] == ("cone", [BOX])


def test_a_copied_file_labels_no_picture_that_has_its_own(read_set):
    files = {"b.jpg": None, "b.xml": voc("b.jpg"), "c.xml": voc("b.jpg")}
    assert read_set(files) == {"b.jpg": ("cone", [BOX])}
    assert read_set.damage == {"unknown image": (1, "set/c.xml: 'c'")}


def test_equal_names_in_two_folders_find_their_own_files(read_set):
    files = {}
    for ds in ("ds0", "ds1"):
        files |= {
            f"{ds}/img/1.jpg": None,
            f"{ds}/ann/1.xml": voc("1.jpg", OBJECT.replace("cone", ds)),
        }
    assert {name: label for name, (label, _) in read_set(files).items()} == {
        "ds0/img/1.jpg": "ds0",
        "ds1/img/1.jpg": "ds1",
    }


def test_what_cannot_be_read_is_counted_and_the_rest_is_read(read_set):
    objects = (
        OBJECT
        + "<object><name>no box</name></object>"
        + OBJECT.replace("8", "eight")
        + OBJECT.replace("cone", "")
        + OBJECT.replace("16", "8")
        + OBJECT.replace("16", "nan")
    )
    found = read_set({"a.jpg": None, "a.xml": voc(objects=objects), "b.jpg": None, "b.xml": "<a"})
    assert found == {"a.jpg": ("cone", [BOX]), "b.jpg": ("", [])}
    assert {kind: count for kind, (count, _) in read_set.damage.items()} == {
        "bad label": 3,
        "bad box": 2,
        "annotations not read": 1,
    }
    assert read_set.damage["bad label"][1].startswith("set/a.xml, object 2: has no bndbox")


def test_boxes_of_another_picture_size_are_not_taken(read_set):
    assert read_set({"a.jpg": None, "a.xml": voc(size=(64, 48))}) == {"a.jpg": ("", [])}
    assert read_set.damage == {
        "boxes of another size": (1, "set/a.jpg: labelled as 64 x 48, has 32 x 24 pixels")
    }
    assert read_set({"a.jpg": None, "a.xml": voc(size=(0, 0))}) == {"a.jpg": ("cone", [BOX])}


def test_a_file_without_its_picture_is_an_unknown_image(read_set):
    assert read_set({"a.jpg": None, "a.xml": voc(), "c.xml": voc("/home/u/c.jpg")})
    assert read_set.damage == {"unknown image": (1, "set/c.xml: 'c'")}


def test_a_document_type_is_no_label(read_set):
    hostile = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + voc(objects="&e;")
    assert read_set({"circle/a.jpg": None, "circle/a.xml": hostile}) == {"circle/a.jpg": ("", [])}
    (found,) = read_set.damage.items()
    assert found[0] == "annotations not read"
    assert "document type" in found[1][1]
