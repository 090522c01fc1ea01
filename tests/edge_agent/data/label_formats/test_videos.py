import pytest
from video_clips import number_in, write_clip

from edge_agent.data.labels import LabelSettings, labelled_frames
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

TIMES_MS = [n * 100 for n in range(20)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "a.mkv", TIMES_MS).read_bytes()


@pytest.fixture
def folder(tmp_path, clip):
    """Return a folder with a/1.mkv and 2.mkv, of two seconds each."""
    for name in ("a/1.mkv", "2.mkv"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(clip)
    return tmp_path / "set"


def labels_of(path, label_topic=""):
    """Return {topic: labels of its frames} and what is counted."""
    damage, found = DamageLog(), {}
    for number, labelled in enumerate(
        labelled_frames(path, LabelSettings("", label_topic), damage)
    ):
        assert number_in(labelled.frame.decode()) == number % 20
        assert not labelled.seen  # a label of the whole frame
        found.setdefault(labelled.frame.topic, []).append(labelled.label)
    return found, {loss.kind: loss.count for loss in damage.all()}


def test_a_table_beside_the_video_says_when_what_is_seen(folder):
    (folder / "2.csv").write_text("start_s,end_s,label\n0:00.5,1,clear\n1.2,,blocked\n")
    labels, losses = labels_of(folder / "2.mkv")
    assert labels == {"2.mkv": [""] * 5 + ["clear"] * 5 + [""] * 2 + ["blocked"] * 8}
    assert losses == {}


def test_without_ends_a_label_holds_until_the_next_one(folder):
    (folder / "2.csv").write_text("start_s,label\n0,clear\n0.7,blocked\n1.5,\n")
    labels, _ = labels_of(folder / "2.mkv")
    assert labels == {"2.mkv": ["clear"] * 7 + ["blocked"] * 8 + [""] * 5}
    (folder / "2.csv").write_text("start_s,end_s,label\n0,,clear\n1,1.5,blocked\n")
    labels, _ = labels_of(folder / "2.mkv")
    assert labels == {"2.mkv": ["clear"] * 10 + ["blocked"] * 5 + [""] * 5}


def test_of_two_that_overlap_the_one_that_began_last_counts(folder):
    (folder / "2.csv").write_text("start_s,end_s,label\n0,2,clear\n1,1.5,blocked\n")
    labels, _ = labels_of(folder / "2.mkv")
    assert labels == {"2.mkv": ["clear"] * 10 + ["blocked"] * 5 + ["clear"] * 5}


def test_a_table_of_a_folder_names_its_videos(folder):
    table = "file,start_s,end_s,label\na/1.mkv,0,1,clear\n2.mkv,,,blocked\n3.mkv,0,1,clear\n"
    (folder / "labels.csv").write_text(table)
    expected = {"a/1.mkv": ["clear"] * 10 + [""] * 10, "2.mkv": ["blocked"] * 20}
    assert labels_of(folder) == (expected, {"label of no video": 1})


def test_a_table_that_the_operator_names_replaces_those_beside_the_videos(folder, tmp_path):
    (folder / "2.csv").write_text("start_s,label\n0,clear\n")
    (tmp_path / "mine.csv").write_text("file;start_s\n".replace(";", ",") + "2.mkv,0\n")
    with pytest.raises(FrameError, match="names no column label"):
        labels_of(folder, str(tmp_path / "mine.csv"))
    (tmp_path / "mine.csv").write_text("file,start_s,label\n1.mkv,0,blocked\n")
    labels, _ = labels_of(folder, str(tmp_path / "mine.csv"))
    assert labels == {"a/1.mkv": ["blocked"] * 20, "2.mkv": [""] * 20}


def test_labels_by_stamp_are_those_of_the_nearest_frame(folder, tmp_path):
    rows = "".join(f"{ms * 1_000_000 + 1},moment {ms}\n" for ms in (300, 900))
    (tmp_path / "stamps.csv").write_text("stamp_ns,label\n" + rows)
    damage, settings = DamageLog(), LabelSettings("", str(tmp_path / "stamps.csv"), 0.01)
    found = [frame.label for frame in labelled_frames(folder / "2.mkv", settings, damage)]
    assert [(n, label) for n, label in enumerate(found) if label] == [
        (3, "moment 300"),
        (9, "moment 900"),
    ]


def test_a_table_that_does_not_say_which_of_several_videos_it_means_is_told(folder):
    (folder / "labels.csv").write_text("start_s,label\n0,clear\n")
    labels, losses = labels_of(folder)
    assert labels == {"a/1.mkv": [""] * 20, "2.mkv": [""] * 20}
    assert losses == {"bad label file": 1}


def test_a_line_that_is_none_is_counted(folder):
    (folder / "2.csv").write_text("start_s,end_s,label\nnoon,1,clear\n0,1,blocked\n")
    labels, losses = labels_of(folder / "2.mkv")
    assert labels == {"2.mkv": ["blocked"] * 10 + [""] * 10}
    assert losses == {"bad label line": 1}


def test_one_damaged_video_hides_no_other(folder):
    (folder / "2.mkv").write_bytes(b"no video")
    labels, losses = labels_of(folder)
    assert labels == {"a/1.mkv": ["a"] * 20}
    assert losses == {"damaged file": 1}


def test_without_tables_the_folders_of_videos_are_their_labels(folder, clip):
    (folder / "videos/clear").mkdir(parents=True)
    (folder / "videos/clear/3.mkv").write_bytes(clip)
    labels, losses = labels_of(folder)
    assert {topic: set(found) for topic, found in labels.items()} == {
        "2.mkv": {""},
        "a/1.mkv": {"a"},
        "videos/clear/3.mkv": {"clear"},
    }
    assert losses == {}


def test_videos_beside_images_are_told(folder, picture_bytes):
    (folder / "clear").mkdir()
    (folder / "clear/1.png").write_bytes(picture_bytes(1, ".png"))
    damage = DamageLog()
    assert len(list(labelled_frames(folder, LabelSettings(), damage))) == 1
    assert [(loss.kind, loss.count) for loss in damage.all()] == [("video beside images", 2)]
