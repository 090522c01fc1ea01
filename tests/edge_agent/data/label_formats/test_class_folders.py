import pytest

from edge_agent.data.label_formats.class_folders import FolderLabels, folder_labels

pytestmark = pytest.mark.base


@pytest.mark.parametrize(
    "pattern",
    [
        "{}/1.jpg",
        "train/{}/1.jpg",
        "valid/{}/1.jpg",
        "data/train/{}/1.jpg",
        "images/{}/1.jpg",
        "2024-05-01/{}/1.jpg",
        "rosbag2_2024_05_01-10_20_30/{}/1.jpg",
        "robot1/{}/1.jpg",
        "cam0/images/{}/1.jpg",
        "{}/2024-05-01/cam1/1.jpg",
        "Train2017/{}/session_3/1.jpg",
    ],
)
def test_the_first_folder_that_tools_do_not_make_is_the_label(pattern):
    names = [pattern.format(label) for label in ("circle", "star")]
    assert folder_labels(names) == FolderLabels({names[0]: "circle", names[1]: "star"})


def test_splits_of_class_folders_are_one_set():
    names = ["train/circle/1.jpg", "val/circle/2.jpg", "test/3.jpg", "4.jpg", "unlabeled/5.jpg"]
    assert folder_labels(names).labels == {names[0]: "circle", names[1]: "circle"}


@pytest.mark.parametrize(
    "folder",
    [
        *("train", "val", "valid", "test", "images", "img", "data", "JPEGImages", "train/images"),
        *("val2017", "images/train", "obj_train_data", "frames", "cam0", "ds0/img", "masks"),
        *("2024-05-01", "20240501_102030", "unlabeled"),
    ],
)
def test_a_folder_that_tools_make_is_no_label(folder):
    assert folder_labels([f"{folder}/1.jpg", "2.jpg"]) == FolderLabels({})


@pytest.mark.parametrize(
    ("names", "unclear"),
    [
        (["robots/clear/1.jpg", "robots/blocked/2.jpg"], "robots/clear"),
        (["hall/clear/1.jpg", "yard/clear/2.jpg"], "hall/clear"),
        (["VOC2007/JPEGImages/1.jpg"], "VOC2007/JPEGImages"),
        (["clear/images/1.jpg", "blocked/images/1.jpg"], "clear/images"),
        (["mine/2024-05-01/1.jpg", "mine/2024-05-02/1.jpg"], "mine"),
    ],
)
def test_where_two_layouts_are_possible_there_are_no_labels(names, unclear):
    assert folder_labels(names) == FolderLabels({}, unclear)


def test_one_label_alone_needs_a_picture_in_its_folder_or_unlabeled_ones():
    names = ["circle/1.jpg", "circle/2024/2.jpg"]
    assert folder_labels(names).labels == dict.fromkeys(names, "circle")
    names = ["circle/2024/2.jpg", "unlabeled/2024/3.jpg"]
    assert folder_labels(names).labels == {names[0]: "circle"}
