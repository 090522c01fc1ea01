from pathlib import Path

import pytest

from edge_agent.data.frames.source import find_bags, is_live, live_name, shown, source_path
from edge_agent.data.labels import LabelSettings, labelled_frames
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base


def frames(path):
    return [found.frame for found in labelled_frames(path, LabelSettings(), DamageLog())]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_is_recognised_as_folder_and_as_file(bags, tmp_path, storage):
    path = bags.drive(tmp_path / "r1", ["star"], storage=storage)
    (file,) = (child for child in path.iterdir() if child.name != "metadata.yaml")
    assert [frame.source for frame in frames(path) + frames(file)] == ["r1", file.name]
    (path / "metadata.yaml").unlink()
    assert [frame.topic for frame in frames(path)] == [bags.CAMERA]


def test_images_are_recognised_below_the_folder_too(image_folder):
    folder = image_folder("signs", {"star": 1})
    assert [frame.topic for frame in frames(folder)] == ["star/000.png"]
    assert [frame.topic for frame in frames(folder / "star/000.png")] == ["000.png"]


def test_what_is_neither_says_what_was_expected(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(FrameError, match=r"notes\.txt: neither a bag nor an image; expected a ros"):
        frames(tmp_path / "notes.txt")
    with pytest.raises(FrameError, match=f"^{tmp_path.name}: neither"):
        frames(tmp_path)
    with pytest.raises(FrameError, match=r"^missing: no such file or folder"):
        frames(tmp_path / "missing")


def test_a_directory_of_bags_names_them(bags, tmp_path):
    bags.drive(tmp_path / "hall-1/r2", ["star"])
    bags.drive(tmp_path / "hall-1/r1", ["star"])
    with pytest.raises(FrameError, match="name one of them: hall-1/r1, hall-1/r2"):
        frames(tmp_path)
    assert find_bags(tmp_path) == [tmp_path / "hall-1/r1", tmp_path / "hall-1/r2"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("ros:/camera/image", "ros:/camera/image"),
        ("rtsp://cam:554/live", "rtsp://cam:554/live"),
        ("rtsps://cam//h264/?a=b&c=/", "rtsps://cam//h264/?a=b&c=/"),
        ("rtsp://me:a/b@c:d@cam/live", "rtsp://me:a/b@c:d@cam/live"),
        ("/dev/video0", "/dev/video0"),
        ("0", "0"),
    ],
)
def test_a_live_source_keeps_its_name_though_it_stands_for_a_path(typed, name):
    assert is_live(source_path(typed))
    assert live_name(source_path(typed)) == name


def test_a_password_is_in_no_name_that_is_shown():
    for typed in (
        "rtsp://me:s3cret@cam:554//live/",
        "rtsp://me:s3cret@cam",
        "rtsps://s3cret@cam/a",
    ):
        assert "s3cret" not in shown(source_path(typed))
        assert "s3cret" not in shown(Path(typed))
    assert shown(source_path("rtsp://me:s3cret@cam:554//live/")) == "rtsp://cam:554//live/"
    assert shown(Path("/somewhere/else/a.mp4")) == "a.mp4"


def test_a_file_called_by_a_number_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_live(Path("0"))
    (tmp_path / "0").mkdir()
    assert not is_live(Path("0"))
    assert not is_live(Path("video0"))
