import os

import pytest

from edge_agent.data.frames.folder import image_names
from edge_agent.data.labels import LabelSettings, labelled_entries, labelled_frames
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base


def frames(path, damage=None):
    log = DamageLog() if damage is None else damage
    found = [labelled.frame for labelled in labelled_frames(path, LabelSettings(), log)]
    assert damage is not None or not log, log.sentence()
    return found


def test_images_come_in_the_order_of_their_names_with_their_own_bytes(image_folder):
    folder = image_folder("signs", {"star": 2, "circle": 2})
    found = frames(folder)
    names = [frame.topic for frame in found]
    assert names == ["circle/000.png", "circle/001.png", "star/000.png", "star/001.png"]
    assert found[1].data == (folder / "circle/001.png").read_bytes()
    assert found[1].stamp_ns == (folder / "circle/001.png").stat().st_mtime_ns
    assert (found[0].source, found[0].format) == ("signs", "png")
    assert (found[0].width, found[0].height) == (32, 24)
    assert found[3].decode().shape == (24, 32, 3)


def test_other_files_and_hidden_ones_are_no_frames(image_folder):
    folder = image_folder("signs", {"star": 1})
    (folder / "notes.txt").write_text("no image")
    (folder / "star/._000.png").write_bytes(b"written by macOS")
    (folder / ".cache").mkdir()
    (folder / ".cache/a.png").write_bytes(b"hidden")
    assert [frame.topic for frame in frames(folder)] == ["star/000.png"]


def test_one_image_is_a_source_too(image_folder):
    folder = image_folder("signs", {"star": 2})
    (frame,) = frames(folder / "star/001.png")
    assert (frame.source, frame.topic) == ("star", "001.png")


def test_links_to_folders_are_followed_and_circles_end(image_folder, tmp_path):
    folder = image_folder("signs", {"star": 1})
    (tmp_path / "data").mkdir()
    (tmp_path / "data/linked").symlink_to(folder)
    (folder / "again").symlink_to(folder)
    assert image_names(tmp_path / "data") == ["linked/star/000.png"]


def test_an_image_that_is_damaged_is_named_and_the_others_come(image_folder):
    folder = image_folder("signs", {"star": 4})
    (folder / "star/000.png").write_bytes(b"")
    (folder / "star/001.png").write_bytes((folder / "star/001.png").read_bytes()[:-20])
    (folder / "star/002.png").write_bytes(b"not an image")
    damage = DamageLog()
    assert [frame.topic for frame in frames(folder, damage)] == ["star/003.png"]
    assert [(each.kind, each.begins.partition(":")[0]) for each in damage.all()] == [
        ("empty", "signs/star/000.png"),
        ("cut png", "signs/star/001.png"),
        ("unknown format", "signs/star/002.png"),
    ]


def test_an_image_that_vanishes_after_it_was_listed_is_missing(image_folder):
    folder = image_folder("signs", {"star": 2})
    entries = list(labelled_entries(folder, LabelSettings(), DamageLog()))
    (folder / "star/000.png").unlink()
    with pytest.raises(FrameError, match=r"^signs/star/000\.png: No such file") as caught:
        entries[0].load()
    assert caught.value.reason == "missing file"
    assert entries[1].load().frame.topic == "star/001.png"


def test_a_folder_that_cannot_be_listed_is_damage_and_the_others_are_read(
    image_folder, monkeypatch
):
    folder = image_folder("signs", {"star": 1, "zebra": 1})
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("star"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    damage = DamageLog()
    assert [frame.topic for frame in frames(folder, damage)] == ["zebra/000.png"]
    assert damage.sentence() == "1 x unreadable, first signs/star: Permission denied"
