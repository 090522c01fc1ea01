"""Whatever a kill leaves becomes a bag, and what is lost is counted."""

import os

import pytest
from edge_perception.recorder.bag import BagFiles, BagWriter
from edge_perception.recorder.recovery import Recovered, recover_bags
from recorded import CAMERA, LABELS, TOPICS, bags_in, by_agent, by_rosbags, frame, frames_in, label

pytestmark = pytest.mark.base


@pytest.fixture
def unfinished(spool_folder):
    """Return the file of a bag of three messages that nobody has finished."""
    files = BagFiles(spool_folder, "r1")
    writer = BagWriter(files, TOPICS)
    for message in (frame(0), label(5), frame(33)):
        writer.add(message)
    writer.abandon()
    return files.open


def test_every_message_that_was_added_is_recovered(spool_folder, unfinished):
    assert list(recover_bags(spool_folder)) == [Recovered("r1", 3, 0)]
    assert frames_in(spool_folder) == [0, 33]
    assert [path.name for path in spool_folder.iterdir()] == ["r1"]
    assert list(recover_bags(spool_folder)) == []


def test_a_file_cut_anywhere_keeps_what_is_before_the_cut_and_counts_the_rest(
    spool_folder, unfinished
):
    whole = unfinished.read_bytes()
    kept = set()
    for cut in (*range(0, len(whole), 61), len(whole)):
        unfinished.parent.mkdir(exist_ok=True)
        unfinished.write_bytes(whole[:cut])
        (found,) = recover_bags(spool_folder)
        stamps = [0, 33][: 2 if found.messages == 3 else min(found.messages, 1)]
        assert (frames_in(spool_folder) if found.messages else []) == stamps
        assert 0 <= found.lost_bytes <= cut
        assert bool(found.messages) == bool(bags_in(spool_folder))
        kept.add(found.messages)
        for bag in bags_in(spool_folder):
            for file in bag.iterdir():
                file.unlink()
            bag.rmdir()
    assert kept == {0, 1, 2, 3}


def test_a_damaged_byte_ends_what_is_recovered(spool_folder, unfinished):
    content = bytearray(unfinished.read_bytes())
    content[content.rindex(b"\xff\xd8")] ^= 1  # where the last picture begins
    unfinished.write_bytes(content)
    ((_, messages, lost_bytes),) = recover_bags(spool_folder)
    assert (messages, frames_in(spool_folder)) == (2, [0])
    assert lost_bytes > len(frame(33).data)


def test_a_topic_that_came_later_is_recovered_as_well(spool_folder):
    topics = {CAMERA: TOPICS[CAMERA]}
    writer = BagWriter(BagFiles(spool_folder, "r1"), topics)
    writer.add(frame(0))
    topics[LABELS] = TOPICS[LABELS]
    writer.add(label(5))
    writer.abandon()
    assert list(recover_bags(spool_folder)) == [Recovered("r1", 2, 0)]
    assert by_rosbags(spool_folder / "r1") == [(CAMERA, 0), (LABELS, 5)]


def test_zeros_after_a_power_cut_are_counted_as_lost(spool_folder, unfinished):
    with unfinished.open("ab") as stream:
        stream.write(bytes(5000))
    assert list(recover_bags(spool_folder)) == [Recovered("r1", 3, 5000)]


def test_a_recovery_that_was_killed_is_done_again(spool_folder, unfinished):
    whole = unfinished.with_suffix("")
    whole.write_bytes(b"half")
    (unfinished.parent / ".r1_0.mcap.999999999.new").write_bytes(b"quarter")
    assert list(recover_bags(spool_folder)) == [Recovered("r1", 3, 0)]
    assert sorted(f.name for f in (spool_folder / "r1").iterdir()) == ["metadata.yaml", "r1_0.mcap"]


def test_a_bag_that_only_lacks_its_name_gets_it(spool_folder):
    writer = BagWriter(BagFiles(spool_folder, "r1"), TOPICS)
    writer.add(frame(0))
    writer.close().rename(spool_folder / ".r1.part")
    assert list(recover_bags(spool_folder)) == [Recovered("r1", 1, 0)]
    assert by_agent(spool_folder / "r1") == [0]


def test_the_bag_of_a_recorder_that_lives_is_left_alone(spool_folder):
    writer = BagWriter(BagFiles(spool_folder, "r1"), TOPICS)
    writer.add(frame(0))
    assert list(recover_bags(spool_folder)) == []
    writer.close()
    assert frames_in(spool_folder) == [0]


def test_an_empty_folder_goes_when_it_is_old_enough_to_be_nobodys(spool_folder):
    folder = spool_folder / ".r1.part"
    folder.mkdir()
    assert list(recover_bags(spool_folder)) == []
    assert folder.exists()
    os.utime(folder, (0, 0))
    assert list(recover_bags(spool_folder)) == []
    assert not folder.exists()
