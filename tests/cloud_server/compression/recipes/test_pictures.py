"""Labelled pictures in folders: which part they are of, as the network takes them."""

import shutil

import cv2
import numpy as np
import pytest

from cloud_server.compression.recipes.pictures import TEST, TRAIN, labels_of, part_of, read_pictures
from cloud_server.compression.recipes.recipe import Data
from fleet_model.errors import FrameError, SettingsError

COLORS = ("blue", "green", "red")


def read(folder, into, labels=COLORS, **data):
    into.mkdir()
    lines = []
    read_pictures(Data(folder=folder, **data), labels, 32, into, lines.append)
    return part_of(into, TRAIN), part_of(into, TEST), lines


def test_a_share_of_the_files_is_the_test_and_their_content_says_which(pictures, tmp_path):
    train, test, lines = read(pictures, tmp_path / "a", held_out=0.3)
    assert len(train.inputs) + len(test.inputs) == 120
    assert 20 <= len(test.inputs) <= 52  # 36, and 3 standard deviations
    assert lines == [f"{len(train.inputs)} pictures to learn from, {len(test.inputs)} to test with"]
    assert train.inputs.shape[1:] == (32, 32, 3)
    assert train.inputs.dtype == np.uint8
    means = train.inputs.mean(axis=(1, 2))  # red, green, blue
    assert (2 - means.argmax(axis=1) == train.classes).all()
    assert labels_of(tmp_path / "a") == COLORS
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    for file in (copy / "red").iterdir():  # the same pictures once more, under other names
        shutil.copyfile(file, file.with_name(f"again-{file.name}"))
    doubled, more, _ = read(copy, tmp_path / "b", held_out=0.3)
    assert len(more.inputs) == len(test.inputs) + (test.classes == 2).sum()
    seen = {one.tobytes() for one in doubled.inputs}
    assert not seen & {one.tobytes() for one in more.inputs}


def test_folders_say_which_part_where_they_are_there(pictures, tmp_path):
    for part, number in (("train", 3), ("test", 5)):
        for color in COLORS:
            folder = tmp_path / "data" / part / color
            folder.mkdir(parents=True)
            for file in sorted((pictures / color).iterdir())[:number]:
                shutil.copy(file, folder)
    train, test, _ = read(tmp_path / "data", tmp_path / "a")
    assert train.classes.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert len(test.classes) == 15


def test_what_is_left_out_is_counted(pictures, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    (copy / "red" / "a.gif").write_bytes(b"GIF89a")
    (copy / "loose.jpg").write_bytes(b"")
    note, _ = read(copy, tmp_path / "a")[2]
    assert note.startswith("note: 2 left out, first loose.jpg: pictures lie in a folder")
    for part in ("train", "test", "val"):
        shutil.copytree(pictures, tmp_path / "parts" / part)
    note, _ = read(tmp_path / "parts", tmp_path / "b")[2]
    assert note.startswith("note: 1 left out, first val: ")


def test_a_picture_is_the_largest_square_of_its_middle(tmp_path):
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, 16:48] = (10, 20, 200)  # blue, green, red
    for color in COLORS:
        (tmp_path / "data" / "train" / color).mkdir(parents=True)
        (tmp_path / "data" / "test" / color).mkdir(parents=True)
        for part in ("train", "test"):
            cv2.imwrite(str(tmp_path / "data" / part / color / "a.png"), wide)
    train, _, _ = read(tmp_path / "data", tmp_path / "a")
    assert (train.inputs == (200, 20, 10)).all()


def test_what_cannot_be_read_is_told_by_name(pictures, tmp_path):
    with pytest.raises(FrameError, match="no such folder"):
        read(tmp_path / "none", tmp_path / "a")
    with pytest.raises(SettingsError, match="has a folder 'red', which is no label; known are blu"):
        read(pictures, tmp_path / "b", labels=COLORS[:2])
    (tmp_path / "data" / "red").mkdir(parents=True)
    with pytest.raises(SettingsError, match="has no picture to train with"):
        read(tmp_path / "data", tmp_path / "c")
    (tmp_path / "data" / "red" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(FrameError, match=r"red/broken.png: is no picture"):
        read(tmp_path / "data", tmp_path / "d")
