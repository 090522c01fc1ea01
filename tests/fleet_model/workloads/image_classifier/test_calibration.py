from pathlib import Path

import cv2
import numpy as np
import pytest

from fleet_model.errors import SettingsError
from fleet_model.workloads.image_classifier import ImageClassifier, calibration
from fleet_model.workloads.image_classifier.calibration import SAMPLES, SHIPPED, calibration_frames

WORKLOAD = ImageClassifier(["a", "b"], image_size=64)


def inputs(folder=None):
    return [sample.encoded.inputs["image"] for sample in WORKLOAD.samples(folder)]


def write_picture(file, size=(40, 60)):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert cv2.imwrite(str(file), image)


def test_the_shipped_pictures_are_few_and_their_rights_are_stated():
    files = [f for f in SHIPPED.iterdir() if f.suffix == ".jpg"]
    stated = (SHIPPED / "README.md").read_text()

    assert len(files) == 12
    assert sum(f.stat().st_size for f in files) < 250_000
    for file in files:
        name = file.stem.rpartition("-")[0]
        assert f"`{name}-" in stated, file.name


def test_inputs_are_the_same_every_time_and_use_the_whole_range():
    first, second = inputs(), inputs()

    assert len(first) == SAMPLES
    assert {x.shape for x in first} == {(64, 64, 3)}
    np.testing.assert_array_equal(first, second)
    assert (np.min(first), np.max(first)) == (0, 255)
    assert len({x.tobytes() for x in first}) == SAMPLES


def test_a_users_own_pictures_are_taken_from_all_subfolders(tmp_path):
    write_picture(tmp_path / "hall-1" / "a.png")
    write_picture(tmp_path / "b.JPG")
    (tmp_path / "notes.txt").write_text("not a picture")

    assert {frame.topic for frame in calibration_frames(tmp_path)} == {"a.png", "b.JPG"}


def test_of_many_pictures_some_of_the_whole_folder_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SAMPLES", 4)
    for number in range(11):
        write_picture(tmp_path / f"{number:02d}.png")

    topics = [frame.topic for frame in calibration_frames(tmp_path)]

    assert topics == ["00.png", "02.png", "04.png", "06.png"]


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2)])
def test_a_picture_of_any_size_will_do(tmp_path, size):
    write_picture(tmp_path / "thin.png", size)

    assert len(inputs(tmp_path)) == SAMPLES


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jpg", b"no jpeg", r"a\.jpg is not a picture"),
        ("a.jpg", b"", r"a\.jpg is not a picture"),
        ("a.txt", b"text", r"has no \.jpeg, \.jpg, \.png file"),
    ],
)
def test_a_folder_without_readable_pictures_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(SettingsError, match=message):
        list(calibration_frames(tmp_path))


def test_a_missing_folder_is_refused():
    with pytest.raises(SettingsError, match="nowhere is not a folder"):
        list(calibration_frames(Path("nowhere")))
