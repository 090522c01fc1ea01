"""One bag: what readers see of it, while it is written and when it is whole."""

import pytest
import yaml
from edge_perception.recorder.bag import BagFiles, BagWriter
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader
from recorded import CAMERA, LABELS, TOPICS, bags_in, by_agent, by_rosbags, frame, label

from fleet_model.errors import FrameError

pytestmark = pytest.mark.base


def write(spool_folder, messages):
    writer = BagWriter(BagFiles(spool_folder, "r1"), TOPICS)
    for message in messages:
        writer.add(message)
    return writer


def test_a_bag_is_hidden_until_it_is_whole(spool_folder):
    writer = write(spool_folder, [frame(0)])
    assert bags_in(spool_folder) == []
    assert writer.close() == spool_folder / "r1"
    assert bags_in(spool_folder) == [spool_folder / "r1"]
    assert sorted(f.name for f in (spool_folder / "r1").iterdir()) == ["metadata.yaml", "r1_0.mcap"]


def test_rosbags_and_the_agent_read_every_message_unchanged(spool_folder):
    messages = [frame(0), label(5), frame(33), label(38)]
    bag = write(spool_folder, messages).close()
    assert by_rosbags(bag) == [(CAMERA, 0), (LABELS, 5), (CAMERA, 33), (LABELS, 38)]
    assert by_agent(bag) == [0, 33]
    with (bag / "r1_0.mcap").open("rb") as stream:
        stored = [m.data for _, _, m in make_reader(stream, validate_crcs=True).iter_messages()]
    assert stored == [m.data for m in messages]


def test_messages_that_were_written_out_of_order_are_read_in_order(spool_folder):
    bag = write(spool_folder, [frame(66), frame(0), frame(33)]).close()
    assert by_agent(bag) == [ms for _, ms in by_rosbags(bag)] == [0, 33, 66]


def test_the_file_has_a_summary_and_each_message_a_checksum(spool_folder):
    bag = write(spool_folder, [frame(0), label(5), frame(33)]).close()
    with (bag / "r1_0.mcap").open("rb") as stream:
        summary = make_reader(stream).get_summary()
        stream.seek(0)
        chunks = [
            r
            for r in StreamReader(stream, emit_chunks=True).records
            if hasattr(r, "uncompressed_crc")
        ]
    assert summary.statistics.message_count == summary.statistics.chunk_count == 3
    assert len(chunks) == 3
    assert all(chunk.uncompressed_crc for chunk in chunks)
    content = bytearray((bag / "r1_0.mcap").read_bytes())
    content[content.rindex(b"\xff\xd8")] ^= 1  # where the last picture begins
    (bag / "r1_0.mcap").write_bytes(content)
    with pytest.raises(FrameError, match="checksum"):
        by_agent(bag)


def test_the_metadata_say_what_rosbag2_wants_to_know(spool_folder):
    bag = write(spool_folder, [frame(0), label(5), frame(33)]).close()
    told = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert told["version"] == 5
    assert told["storage_identifier"] == "mcap"
    assert told["relative_file_paths"] == ["r1_0.mcap"]
    assert told["message_count"] == 3
    assert told["duration"]["nanoseconds"] == 33_000_000
    counts = {
        t["topic_metadata"]["name"]: t["message_count"] for t in told["topics_with_message_count"]
    }
    assert counts == {CAMERA: 2, LABELS: 1}
