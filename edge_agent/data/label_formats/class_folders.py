"""Whether the folders of pictures are their labels: only where the layout says so."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

UNLABELED = "unlabeled"
# Folders that tools and people make for pictures, whatever is on them.
_HOLDERS = {
    *("images", "image", "imgs", "img", "pictures", "picture", "pics", "photos", "frames"),
    *("jpegimages", "jpg", "jpeg", "png", "data", "dataset", "datasets", "raw", "input", "rgb"),
    *("labels", "label", "annotations", "ann", "masks", "mask", "depth", "all", "unsorted"),
    *(
        "obj_train_data",
        "obj_valid_data",
        "obj_test_data",
        "export",
        "upload",
        "media",
        "video",
        "videos",
        "clips",
        "default",
    ),
    *("train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"),
}
_SPLIT = r"(?:train|val|valid|test|images)[_-]?\d*"
_SESSION = (
    r"(?:cam|camera|robot|run|session|seq|sequence|bag|scene|video|clip|part|batch|day|task|job|ds)"
    r"[_-]?\d+"
)
_DATE = r"(?:rosbag2_)?\d{4}[-_.]?\d\d[-_.]?\d\d(?:[-_.T ]?[\d:._-]*Z?)"
_HOLDER = re.compile(f"{_SPLIT}|{_SESSION}|{_DATE}", re.IGNORECASE)


class FolderLabels(NamedTuple):
    """What the folders say."""

    labels: Mapping[str, str]  # image -> label; images without one are left out
    unclear: str = ""  # the first folder that may be a label or hold labels; then there are none


def folder_labels(images: Iterable[str]) -> FolderLabels:
    """Return the labels of images by their names, which are relative to the data set.

    Folders of splits, dates, cameras and "images" around the others are passed over; the next one
    is the label: circle/1.jpg, train/circle/1.jpg and circle/2024-05-01/cam1/1.jpg are circles.
    A folder of a label has pictures in it, or folders with a number in their name.
    """
    labels: dict[str, str] = {}
    has_own: dict[str, bool] = {}  # folder of a label -> whether pictures lie directly in it
    for image in images:
        folders = image.split("/")[:-1]
        while folders and (folders[0].lower() in _HOLDERS or _HOLDER.fullmatch(folders[0])):
            del folders[0]
        if not folders:
            continue
        label, *deeper = folders
        has_own[label] = has_own.get(label, False) or not deeper
        if label == UNLABELED:
            continue
        labels[image] = label
        if not all(re.search(r"\d", folder) for folder in deeper):
            return FolderLabels({}, "/".join(folders))
    if len(has_own) == 1 and not all(has_own.values()):  # a label, or a folder around everything
        return FolderLabels({}, next(iter(has_own)))
    return FolderLabels(labels)
