import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.label_formats.image_finder import Written, find_images

pytestmark = pytest.mark.base

IMAGES = ["images/train/a.jpg", "images/train/b.PNG", "images/val/c.jpg", "größe.jpg", "C d.jpg"]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("images/train/a.jpg", IMAGES[0]),
        ("./images/train/a.jpg", IMAGES[0]),
        ("a.jpg", IMAGES[0]),
        ("a", IMAGES[0]),
        ("A.JPG", IMAGES[0]),
        ("b.png", IMAGES[1]),
        ("train\\b.png", IMAGES[1]),
        ("/home/u/set/images/train/a.jpg", IMAGES[0]),
        ("C:\\Users\\u\\set\\images\\val\\c.jpg", IMAGES[2]),
        ("c:c.jpg", IMAGES[2]),
        ("..\\..\\media\\upload\\4\\c.jpg", IMAGES[2]),
        ("images/other/../val/c.jpg", IMAGES[2]),
        ("https://host/data/upload/1/c.jpg?token=a/b.jpg#top", IMAGES[2]),
        ("file:///home/u/images/val/c.jpg", IMAGES[2]),
        ("s3://c.jpg/x/C%20d.jpg", IMAGES[4]),
        ("/data/local-files/?d=robot/a.jpg", IMAGES[0]),
        ("http://host/data/local-files/?d=robot%2Fa.jpg", IMAGES[0]),
        ("data/images/train/a.jpg", IMAGES[0]),
        ("moved/c.jpg", IMAGES[2]),
        ("gro\u0308\u00dfe.jpg", IMAGES[3]),  # as macOS spells it
        ("a.png", None),
        ("c", IMAGES[2]),
        ("d.jpg", None),
        ("", None),
        ("../..", None),
        ("images/train", None),
    ],
)
def test_one_rule_finds_the_picture_that_a_label_file_names(name, image):
    assert find_images(IMAGES, [Written(name)]) == ({Written(name): image} if image else {})


def test_a_name_in_part_counts_only_if_no_other_name_fits_the_picture():
    images = ["session8/1.jpg", "session8/2.jpg"]
    eight, seven = Written("/x/session8/1.jpg"), Written("/x/session7/1.jpg")
    assert find_images(images, [seven, eight]) == {eight: images[0]}
    assert find_images(images, [seven]) == {seven: images[0]}
    assert find_images(images, [Written("p/1.jpg"), Written("q/1.jpg")]) == {}
    assert find_images(images, [Written("p/1.jpg"), Written("q/1.jpg"), Written("1.jpg")]) == {
        Written("1.jpg"): images[0]
    }


def test_the_name_itself_counts_more_than_the_same_name_deeper():
    images = ["a.jpg", "b/a.jpg", "B/c/a.jpg", "x/A.jpg", "x/a.png"]
    assert find_images(images, [Written("a.jpg")])[Written("a.jpg")] == "a.jpg"
    assert find_images(images, [Written("b/a.jpg")])[Written("b/a.jpg")] == "b/a.jpg"
    assert find_images(images, [Written("x/a.png")])[Written("x/a.png")] == "x/a.png"
    assert not find_images(images, [Written("x/a")])  # two pictures


def test_of_equal_names_the_one_near_the_label_file_or_in_its_split_counts():
    images = ["train/1.jpg", "val/1.jpg", "ds0/img/1.jpg", "ds1/img/1.jpg"]

    def found(name, file):
        return find_images(images, [Written(name, file)]).get(Written(name, file))

    assert found("1.jpg", "annotations/instances_train2017.json") == images[0]
    assert found("1.jpg", "annotations/lvis_v1_validation.json") == images[1]
    assert found("1.jpg", "val/_annotations.csv") == images[1]
    assert found("1.jpg", "ds1/ann/labels.csv") == images[3]
    assert found("ds0/ann/1", "ds0/ann/1.xml") == images[2]
    assert found("1.jpg", "labels.csv") is None
    images = ["a/b/img/1.jpg", "a/c/img/1.jpg"]
    assert found("1.jpg", "a/c/ann/1.csv") == images[1]


def test_a_label_file_of_one_split_names_no_picture_of_another():
    written = [Written("1.jpg", "instances_train.json"), Written("1.jpg", "instances_val.json")]
    assert find_images(["val/1.jpg"], written) == {written[1]: "val/1.jpg"}
    assert find_images(["photos/1.jpg"], written) == dict.fromkeys(written, "photos/1.jpg")
    spelled = Written("val2017/1.jpg", "lvis_v1_train.json")  # as LVIS has them
    assert find_images(["val2017/1.jpg"], [spelled]) == {spelled: "val2017/1.jpg"}


def test_thousands_of_pictures_of_one_name_are_found_by_their_folders():
    images = [f"{number}/front.jpg" for number in range(20_000)]
    written = [Written(f"/x/{number}/front.jpg") for number in range(20_000)]
    found = find_images(images, [*written, *(Written(f"y{n}/front.jpg") for n in range(20_000))])
    assert list(found.values()) == images


@given(st.lists(st.text(st.sampled_from("ab./\\:?d=%#"), max_size=12), max_size=8))
def test_only_pictures_of_the_set_are_found(names):
    images = ["a/b.jpg", "b.jpg", "d/d.png"]
    assert set(find_images(images, map(Written, names)).values()) <= set(images)
