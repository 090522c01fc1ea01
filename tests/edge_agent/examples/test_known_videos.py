"""Video in the examples of a robot: what an earlier round has read is neither read nor decoded."""

import sys

import pytest
from rosbags.rosbag2 import Writer
from video_clips import foxglove, number_in, packets, typestore, write_clip

from edge_agent.data.frames.video import decoder
from edge_agent.data.labels import LabelSettings, labelled_frames
from edge_agent.examples import signatures
from edge_agent.examples.example_store import ExampleStore
from edge_agent.examples.spool.ingest import _file_bytes
from fleet_model.files.damage import DamageLog

TIMES_MS = [n * 100 for n in range(40)]
T0 = 1_760_000_000_000_000_000


@pytest.fixture
def work(monkeypatch):
    """Return how many streams were opened and decoders started since the last call."""
    counts = {"opened": 0, "decoded": 0}
    load_av, decoding = decoder.load_av, decoder.Pictures._decoding

    def opened(what):
        counts["opened"] += 1
        return load_av(what)

    def decoded(self, run):
        counts["decoded"] += 1
        return decoding(self, run)

    for module in ("file", "topic"):
        monkeypatch.setattr(f"edge_agent.data.frames.video.{module}.load_av", opened)
    monkeypatch.setattr(decoder.Pictures, "_decoding", decoded)
    monkeypatch.setattr(signatures, "_TICK_NS", 0)  # a test's files are younger than any of a robot

    def look():
        found = dict(counts)
        counts.update(opened=0, decoded=0)
        return found

    return look


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    write_clip(folder / "a.mp4", TIMES_MS, g="10")
    (folder / "a.csv").write_text("start_s,label\n0,clear\n2,blocked\n")
    return folder


def store_of(tmp_path, *paths, label_topic="/camera/label"):
    return ExampleStore(
        paths, "", label_topic, ["clear", "blocked"], index=tmp_path / "index", segment_s=1.0
    )


def test_a_known_video_is_neither_opened_nor_decoded(tmp_path, videos, work):
    first = list(store_of(tmp_path, videos).examples())
    assert [example.label for example in first] == ["clear"] * 20 + ["blocked"] * 20
    assert {example.held_out for example in first} == {True, False}
    assert work() == {"opened": 1, "decoded": 0}
    again = list(store_of(tmp_path, videos).examples())
    assert [example.key for example in again] == [example.key for example in first]
    assert work() == {"opened": 0, "decoded": 0}
    assert [number_in(example.raw.decode()) for example in again] == list(range(40))
    assert [number_in(again[n].raw.decode()) for n in (33, 2, 17)] == [33, 2, 17]


def test_one_video_file_is_known_as_a_folder_is(tmp_path, videos, work):
    first = list(store_of(tmp_path, videos / "a.mp4").examples())
    assert work() == {"opened": 1, "decoded": 0}
    assert len(list(store_of(tmp_path, videos / "a.mp4").examples())) == len(first) == 40
    assert work()["opened"] == 0
    (videos / "a.csv").write_text("start_s,label\n0,blocked\n")
    labels = {example.label for example in store_of(tmp_path, videos / "a.mp4").examples()}
    assert labels == {"blocked"}


def test_a_corrected_label_counts_in_the_next_round_without_decoding(tmp_path, videos, work):
    named = tmp_path / "mine.csv"
    named.write_text("file,start_s,label\na.mp4,0,clear\n")
    first = list(store_of(tmp_path, videos, label_topic=str(named)).examples())
    named.write_text("file,start_s,label\na.mp4,0,clear\na.mp4,1,blocked\n")
    again = list(store_of(tmp_path, videos, label_topic=str(named)).examples())
    assert [example.label for example in first] == ["clear"] * 40
    assert [example.label for example in again] == ["clear"] * 10 + ["blocked"] * 30
    assert [example.key for example in again] == [example.key for example in first]
    assert work()["decoded"] == 0


def test_a_video_that_was_replaced_has_new_keys(tmp_path, videos):
    first = {example.key for example in store_of(tmp_path, videos).examples()}
    write_clip(videos / "a.mp4", TIMES_MS, g="10", crf="40")
    again = {example.key for example in store_of(tmp_path, videos).examples()}
    assert len(again) == 40
    assert not first & again


def test_a_packet_counts_as_the_picture_that_the_store_makes_of_it(videos):
    frame = next(iter(labelled_frames(videos, LabelSettings(), DamageLog()))).frame
    assert _file_bytes(frame) == 160 * 120 * 3


def test_without_the_library_other_recordings_are_read(tmp_path, videos, bags, monkeypatch):
    bag = bags.drive(tmp_path / "r1", ["clear", "blocked"] * 3)
    monkeypatch.setitem(sys.modules, "av", None)
    store = store_of(tmp_path, videos, bag)
    assert len(list(store.examples())) == 6
    assert store.left_out["unreadable source"] == 1


def test_a_known_video_topic_is_neither_opened_nor_decoded(tmp_path, work):
    store = typestore()
    with Writer(tmp_path / "bag", version=9) as writer:
        clip = writer.add_connection("/video", "foxglove_msgs/msg/CompressedVideo", typestore=store)
        labels = writer.add_connection("/camera/label", "std_msgs/msg/String", typestore=store)
        text = store.types["std_msgs/msg/String"]
        for number, data in packets("h264", 40)[3:]:
            stamp = T0 + number * 100_000_000
            message = foxglove(store, stamp, data)
            writer.write(clip, stamp, store.serialize_cdr(message, message.__msgtype__))
            label = text("clear" if number < 25 else "blocked")
            writer.write(labels, stamp, store.serialize_cdr(label, label.__msgtype__))
    first = store_of(tmp_path, tmp_path / "bag")
    examples = list(first.examples())
    assert [example.label for example in examples] == ["clear"] * 15 + ["blocked"] * 15
    assert first.left_out["before the first key frame"] == 7
    assert work() == {"opened": 1, "decoded": 0}
    again = list(store_of(tmp_path, tmp_path / "bag").examples())
    assert [example.key for example in again] == [example.key for example in examples]
    assert work() == {"opened": 0, "decoded": 0}
    assert [number_in(example.raw.decode()) for example in again] == list(range(10, 40))
