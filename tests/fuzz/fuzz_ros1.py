"""Damage small ROS 1 bags in a million ways and read each: python fuzz_ros1.py --inputs N --seed S.

Fails on any exception but FrameError, on an input that takes longer than two seconds, after a cut
on a message that was not written so or comes twice, after one flipped bit on a message that is not
one of those written (but for that bit, or for its length, which ROS 1 writes only once), and on a
message that is lost without a word. `--only INPUT` repeats one input of a run.
"""

import struct
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))
import damaging
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_typestore

from edge_agent.data.storage.ros1.file import Ros1File

T0 = 1_760_000_000_000_000_000
CHUNK_BYTES = 3000
UNCHECKED = "lz4"  # as rosbags writes it, without a checksum


def seeds():
    """Return bags of every compression, with an index and without."""
    store = get_typestore(Stores.ROS1_NOETIC)
    plain = record(None, store)
    at = plain.find(b"index_pos=") + len(b"index_pos=")
    (index,) = struct.unpack_from("<Q", plain, at)
    return {
        "plain": plain,
        "bz2": record(Writer.CompressionFormat.BZ2, store),
        "lz4": record(Writer.CompressionFormat.LZ4, store),
        "no index": plain[:at] + bytes(8) + plain[at + 8 : index],
    }


def record(compression, store):
    with TemporaryDirectory() as folder:
        writer = Writer(Path(folder, "a.bag"))
        writer.chunk_threshold = CHUNK_BYTES
        if compression:
            writer.set_compression(compression)
        with writer:
            text = "std_msgs/msg/String"
            topics = [writer.add_connection(f"/topic{i}", text, typestore=store) for i in range(2)]
            for i in range(24):
                data = b"%08d" % (i * 7919) * (2 + 90 * (i % 2))
                writer.write(topics[i % 2], T0 + i, data)
        return Path(folder, "a.bag").read_bytes()


def check(name, mutate, messages, written, losses):
    if mutate not in (damaging.flip, damaging.cut):
        return
    assert losses or len(messages) == len(written), f"{name}: messages are lost without a word"
    if mutate is damaging.cut:
        damaging.check_each_was_written(messages, written, 0)
    elif name != UNCHECKED:
        same_length = [m for m in messages if any(len(m) == len(w) for w in written)]
        assert len(messages) - len(same_length) <= 1, f"{name}: several messages of wrong length"
        damaging.check_each_was_written(same_length, written, 1)


if __name__ == "__main__":
    sys.exit(damaging.main(Ros1File, seeds, check))
