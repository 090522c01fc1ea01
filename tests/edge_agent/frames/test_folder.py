import os

import pytest

from edge_agent.frames.folder import FolderFrames
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base


def test_images_come_in_the_order_of_their_names_with_their_own_bytes(image_folder):
    folder = image_folder("signs", {"star": 2, "circle": 2})
    frames = list(FolderFrames(folder).frames())
    names = [frame.topic for frame in frames]
    assert names == ["circle/000.png", "circle/001.png", "star/000.png", "star/001.png"]
    assert frames[1].data == (folder / "circle/001.png").read_bytes()
    assert frames[1].stamp_ns == (folder / "circle/001.png").stat().st_mtime_ns
    assert (frames[0].source, frames[0].format) == ("signs", "png")
    assert frames[3].decode().shape == (24, 32, 3)


def test_other_files_and_hidden_ones_are_no_frames(image_folder):
    folder = image_folder("signs", {"star": 1})
    (folder / "notes.txt").write_text("no image")
    (folder / "star/._000.png").write_bytes(b"written by macOS")
    (folder / ".cache").mkdir()
    (folder / ".cache/a.png").write_bytes(b"hidden")
    assert [frame.topic for frame in FolderFrames(folder).frames()] == ["star/000.png"]


def test_one_image_is_a_source_too(image_folder):
    folder = image_folder("signs", {"star": 2})
    (frame,) = FolderFrames(folder / "star/001.png").frames()
    assert (frame.source, frame.topic) == ("star", "001.png")


def test_a_damaged_image_is_yielded_and_fails_when_decoded(image_folder):
    folder = image_folder("signs", {"star": 2})
    (folder / "star/000.png").write_bytes(b"")
    damaged, good = FolderFrames(folder).frames()
    with pytest.raises(FrameError, match=r"signs/star/000\.png: no data"):
        damaged.decode()
    assert good.decode().shape == (24, 32, 3)


def test_a_file_that_cannot_be_read_is_an_error_after_all_others(image_folder, monkeypatch):
    folder = image_folder("signs", {"star": 3})
    (folder / "star/001.png").chmod(0)
    if os.geteuid() == 0:  # root may read everything
        (folder / "star/001.png").unlink()
        original = FolderFrames.frames.__globals__["image_files"]
        gone = folder / "star/001.png"
        monkeypatch.setitem(
            FolderFrames.frames.__globals__, "image_files", lambda path: [*original(path), gone]
        )
    frames = FolderFrames(folder).frames()
    assert [next(frames).topic, next(frames).topic] == ["star/000.png", "star/002.png"]
    with pytest.raises(FrameError, match=r"^signs/star/001\.png: "):
        next(frames)


def test_a_folder_has_no_topics(tmp_path):
    with pytest.raises(FrameError, match="has no topic '/camera'"):
        FolderFrames(tmp_path, "/camera")
