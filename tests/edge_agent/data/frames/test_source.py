import pytest

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.folder import FolderFrames
from edge_agent.data.frames.ros_topic import open_topic
from edge_agent.data.frames.source import FRAME_SOURCES, find_bags, open_frames
from fleet_model.errors import FrameError
from fleet_model.loading import load_plugin

pytestmark = pytest.mark.base


def test_the_table_names_what_exists():
    loaded = [load_plugin(FRAME_SOURCES, name) for name in FRAME_SOURCES]
    assert loaded == [BagFrames, FolderFrames, open_topic]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_is_recognised_as_folder_and_as_file(bags, tmp_path, storage):
    path = bags.drive(tmp_path / "r1", ["star"], storage=storage)
    (file,) = (child for child in path.iterdir() if child.name != "metadata.yaml")
    assert isinstance(open_frames(path), BagFrames)
    assert isinstance(open_frames(file), BagFrames)
    (path / "metadata.yaml").unlink()
    assert isinstance(open_frames(path), BagFrames)


def test_images_are_recognised_below_the_folder_too(image_folder):
    folder = image_folder("signs", {"star": 1})
    assert isinstance(open_frames(folder), FolderFrames)
    assert isinstance(open_frames(folder / "star/000.png"), FolderFrames)


def test_what_is_neither_says_what_was_expected(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(FrameError, match=r"notes\.txt: neither a bag nor an image; expected a ros"):
        open_frames(tmp_path / "notes.txt")
    with pytest.raises(FrameError, match=f"^{tmp_path.name}: neither"):
        open_frames(tmp_path)
    with pytest.raises(FrameError, match=r"^missing: no such file or folder"):
        open_frames(tmp_path / "missing")


def test_a_directory_of_bags_names_them(bags, tmp_path):
    bags.drive(tmp_path / "hall-1/r2", ["star"])
    bags.drive(tmp_path / "hall-1/r1", ["star"])
    with pytest.raises(FrameError, match="name one of them: hall-1/r1, hall-1/r2"):
        open_frames(tmp_path)
    assert find_bags(tmp_path) == [tmp_path / "hall-1/r1", tmp_path / "hall-1/r2"]
