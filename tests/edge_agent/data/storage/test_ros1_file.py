import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag1 import Reader, Writer
from rosbags.typesys import Stores, get_typestore

from edge_agent.data.storage import Topic
from edge_agent.data.storage.ros1.file import Ros1File
from fleet_model.errors import FrameError
from fleet_model.files.damage import Damage, DamageLog

pytestmark = pytest.mark.base

T0 = 1_760_000_000_000_000_000
CAMERA, CHATTER = "/camera", "/chatter"
STORE = get_typestore(Stores.ROS1_NOETIC)
KINDS = {CAMERA: "sensor_msgs/msg/CompressedImage", CHATTER: "std_msgs/msg/String"}
COMPRESSIONS = [None, Writer.CompressionFormat.BZ2, Writer.CompressionFormat.LZ4]
CHUNK = 1 << 20  # rosbags' own size of a chunk


def payload(i, size):
    """Return half noise, half pattern: compresses, but not to nothing."""
    noise = np.random.default_rng(i).integers(0, 256, size // 2, np.uint8).tobytes()
    return noise + bytes([i % 251]) * (size - len(noise))


def drive(path, count=60, size=60_000, compression=None, order=None, chunk_bytes=CHUNK):
    """Record `count` pictures, each followed by a text; return what was recorded."""
    rows = []
    writer = Writer(path)
    writer.chunk_threshold = chunk_bytes
    if compression:
        writer.set_compression(compression)
    with writer:
        topics = {t: writer.add_connection(t, k, typestore=STORE) for t, k in KINDS.items()}
        for i in order or range(count):
            for topic, stamp, data in (
                (CAMERA, T0 + 1000 * i, payload(i, size)),
                (CHATTER, T0 + 1000 * i + 1, payload(i, 9)),
            ):
                writer.write(topics[topic], stamp, data)
                rows.append((topic, stamp, data))
    return rows


def read(path, topics=(CAMERA, CHATTER)):
    damage = DamageLog()
    good, bad = [], []
    with Ros1File(path) as file:
        for stored in file.messages(topics, damage):
            try:
                good.append((stored.topic.name, stored.bag_ns, bytes(stored.load())))
            except FrameError as error:
                bad.append(error.reason)
    return good, bad, damage.all()


def change(path, at, new):
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(new)


def find_all(data, pattern):
    positions, at = [], data.find(pattern)
    while at >= 0:
        positions.append(at)
        at = data.find(pattern, at + 1)
    return positions


def chunks(path):
    """Return where the chunk records begin, where their data begin, and these data's size."""
    data = path.read_bytes()
    found = []
    for hit in find_all(data, b"\x04\0\0\0op=\x05"):
        begin = hit - 4
        (header,) = struct.unpack_from("<I", data, begin)
        (size,) = struct.unpack_from("<I", data, begin + 4 + header)
        found.append((begin, begin + 8 + header, size))
    return found


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_message_comes_as_it_was_recorded(tmp_path, compression):
    rows = drive(tmp_path / "a.bag", compression=compression)
    assert read(tmp_path / "a.bag") == (rows, [], ())
    pictures = [row for row in rows if row[0] == CAMERA]
    assert read(tmp_path / "a.bag", (CAMERA,)) == (pictures, [], ())
    with Ros1File(tmp_path / "a.bag") as file:
        picture, text = file.topics()
    assert picture[:3] == (CAMERA, "sensor_msgs/CompressedImage", "ros1")
    assert "std_msgs/Header" in picture.definition
    assert text == Topic(CHATTER, "std_msgs/String", "ros1", text.definition, 60)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    order=st.lists(st.integers(0, 100), max_size=40),
    size=st.sampled_from([1, 100, 70_000, 300_000]),
    compression=st.sampled_from(COMPRESSIONS),
)
def test_whatever_the_order_rosbags_reads_the_same(tmp_path_factory, order, size, compression):
    path = tmp_path_factory.mktemp("h") / "a.bag"
    drive(path, size=size, compression=compression, order=order or [1])
    with Reader(path) as reader:
        expected = [(c.topic, stamp, bytes(data)) for c, stamp, data in reader.messages()]
    good, bad, damage = read(path)
    assert sorted(good) == sorted(expected)
    assert (bad, damage) == ([], ())


def test_messages_of_a_chunk_come_by_time(tmp_path):
    drive(tmp_path / "a.bag", size=100, order=[3, 1, 2, 0])
    stamps = [stamp for _, stamp, _ in read(tmp_path / "a.bag")[0]]
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_messages_of_chunks_that_overlap_come_by_time_and_each_chunk_is_unpacked_once(
    tmp_path, compression, monkeypatch
):
    from edge_agent.data.storage.ros1 import chunk as ros1_chunk

    unpacked = []

    def unpack(data, *options):
        unpacked.append(len(data))
        return original(data, *options)

    original = ros1_chunk.unpack_prefix
    monkeypatch.setattr(ros1_chunk, "unpack_prefix", unpack)
    order = [i * 17 % 40 for i in range(40)]
    rows = drive(tmp_path / "a.bag", 40, 20_000, compression, order, chunk_bytes=80_000)
    good, bad, damage = read(tmp_path / "a.bag")
    assert good == sorted(rows, key=lambda row: row[1])
    assert (bad, damage) == ([], ())
    count = len(chunks(tmp_path / "a.bag"))
    assert len(unpacked) == (count if compression else 0)
    assert count > 5


def test_chunks_that_all_overlap_cost_little_memory(tmp_path):
    count = 20_000
    order = [i * 7919 % count for i in range(count)]
    writer = Writer(tmp_path / "a.bag")
    writer.chunk_threshold = 20_000
    with writer:
        connection = writer.add_connection(CHATTER, KINDS[CHATTER], typestore=STORE)
        for i in order:
            writer.write(connection, T0 + i * 1000, b"")
    with Ros1File(tmp_path / "a.bag") as file:
        tracemalloc.start()
        stamps = sum(1 for _ in file.messages((CHATTER,), DamageLog()))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert stamps == count
    assert len(chunks(tmp_path / "a.bag")) > 40
    assert peak < count * 100


def test_only_load_reads_a_message(tmp_path, monkeypatch):
    drive(tmp_path / "a.bag", 50, 100_000)
    counted = []
    real = os.pread

    def pread(fd, size, at):
        counted.append(size)
        return real(fd, size, at)

    monkeypatch.setattr(os, "pread", pread)
    with Ros1File(tmp_path / "a.bag") as file:
        stored = list(file.messages((CAMERA,), DamageLog()))
        assert sum(counted) < 50_000
        counted.clear()
        assert bytes(stored[30].load()) == payload(30, 100_000)
        assert sum(counted) < 102_000


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95, 0.9999])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_of_a_cut_bag_everything_before_the_cut_is_read(tmp_path, share, compression):
    rows = drive(tmp_path / "a.bag", compression=compression)
    whole = (tmp_path / "a.bag").read_bytes()
    size = int(len(whole) * share)
    (tmp_path / "a.bag").write_bytes(whole[:size])
    if share < 0.5 and compression == Writer.CompressionFormat.BZ2:
        with pytest.raises(FrameError, match="holds no topic; it ends too early") as caught:
            Ros1File(tmp_path / "a.bag")  # ends in the first block, which bz2 needs whole
        assert caught.value.reason == "cut file"
        return
    last = max([0] + [begin for begin, _, _ in chunks(tmp_path / "a.bag")])
    good, bad, damage = read(tmp_path / "a.bag")
    assert good == rows[: len(good)]
    assert [d.kind for d in damage] == ["cut file"]
    assert bad in ([], ["cut file"])
    if compression is None:
        assert abs(len(good) - 120 * share) < 4
    else:  # the chunk that the cut is in gives up to its last whole block
        assert len(good) >= 120 * last / len(whole) - 4
    assert len(good) == 120 or share < 0.99


def test_a_recorder_that_lost_power_leaves_no_index_and_everything_is_found(tmp_path):
    for compression in COMPRESSIONS:
        path = tmp_path / f"{compression}.bag"
        rows = drive(path, compression=compression)
        data = path.read_bytes()
        at = data.find(b"index_pos=") + len(b"index_pos=")
        (index,) = struct.unpack_from("<Q", data, at)
        path.write_bytes(data[:at] + bytes(8) + data[at + 8 : index])
        good, bad, damage = read(path)
        assert good == rows
        assert bad == []
        assert damage == (Damage("cut file", 1, f"{path.name} at byte {index}"),)
        with Ros1File(path) as file:
            assert [topic.messages for topic in file.topics()] == [60, 60]


def test_a_damaged_compressed_chunk_costs_its_messages_and_each_says_so(tmp_path):
    for compression in COMPRESSIONS[1:]:
        path = tmp_path / f"{compression}.bag"
        rows = drive(path, compression=compression)
        _, begin, size = chunks(path)[1]
        byte = path.read_bytes()[begin + size // 2]
        change(path, begin + size // 2, bytes([byte ^ 0xFF]))
        good, bad, damage = read(path)
        assert set(good) < set(rows)
        assert len(good) + len(bad) == 120
        assert set(bad) == {"chunk decompression"}
        assert damage == ()


def test_a_chunk_with_a_damaged_beginning_still_gives_its_messages(tmp_path):
    rows = drive(tmp_path / "a.bag")
    begin, _, _ = chunks(tmp_path / "a.bag")[1]
    change(tmp_path / "a.bag", begin, b"\xff" * 20)
    good, bad, damage = read(tmp_path / "a.bag")
    assert sorted(good) == sorted(rows)
    assert bad == []
    assert {d.kind for d in damage} == {"damaged file"}
    assert damage[0].begins == f"a.bag at byte {begin}"


def test_an_index_that_is_wrong_loses_nothing(tmp_path):
    rows = drive(tmp_path / "a.bag")
    data = (tmp_path / "a.bag").read_bytes()
    entries = find_all(data, b"\x05\0\0\0op=\x04") or find_all(data, b"\x04\0\0\0op=\x04")
    begin = entries[0]
    (header,) = struct.unpack_from("<I", data, begin - 4)
    first = begin + header + 4
    for at, wrong in (
        (first + 8, b"\x07"),  # an offset that leads to no record
        (first + 8, data[first + 20 : first + 24]),  # to another message
        (first + 4, b"\xff\xff\xff\xff"),  # a time outside the chunk
        (first, data[first + 12 : first + 20]),  # the time of another message
        (begin, b"nothing"),
    ):
        (tmp_path / "b.bag").write_bytes(data)
        change(tmp_path / "b.bag", at, wrong)
        good, bad, _ = read(tmp_path / "b.bag")
        assert sorted(row[2] for row in good) == sorted(row[2] for row in rows)
        assert bad == []


def test_a_message_with_a_wrong_length_costs_only_itself(tmp_path):
    rows = drive(tmp_path / "a.bag")
    data = (tmp_path / "a.bag").read_bytes()
    at = data.find(payload(5, 60_000)) - 4
    for wrong in (10**9, 7, 61_000):
        change(tmp_path / "a.bag", at, struct.pack("<I", wrong))
        good, _, _ = read(tmp_path / "a.bag")
        assert set(rows) - set(good) == {rows[10]}
        # the same without the index
        (tmp_path / "b.bag").write_bytes((tmp_path / "a.bag").read_bytes()[:-100])
        good, _, _ = read(tmp_path / "b.bag")
        assert set(rows) - set(good) == {rows[10]}


def test_what_looks_like_a_message_inside_compressed_data_is_none(tmp_path):
    rows = drive(tmp_path / "a.bag", compression=Writer.CompressionFormat.LZ4)
    for begin, _, _ in chunks(tmp_path / "a.bag")[1:]:
        change(tmp_path / "a.bag", begin, b"\xff\xff\xff\xff")
    good, _, damage = read(tmp_path / "a.bag")
    assert 0 < len(good) < 120
    assert set(good) < set(rows)
    assert damage


def test_topics_of_several_connections_are_one(tmp_path):
    with Writer(tmp_path / "a.bag") as writer:
        for caller in ("/one", "/two"):
            connection = writer.add_connection(
                CHATTER, KINDS[CHATTER], typestore=STORE, callerid=caller
            )
            writer.write(connection, T0, b"x")
    with Ros1File(tmp_path / "a.bag") as file:
        (topic,) = file.topics()
        assert topic.messages == 2
        assert len(list(file.messages((CHATTER,), DamageLog()))) == 2


def test_files_that_are_no_bag_say_so(tmp_path):
    for name, content, message in (
        ("empty.bag", b"", "holds no topic; is it a ROS 1 bag"),
        ("noise.bag", os.urandom(50_000), "holds no topic"),
        (
            "old.bag",
            b"#ROSBAG V1.2\n" + bytes(100),
            "holds no topic; it has version 1.2, expected 2.0",
        ),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FrameError, match=f"^{name}: {message}"):
            Ros1File(tmp_path / name)
    with pytest.raises(FrameError, match=r"^none.bag: No such file"):
        Ros1File(tmp_path / "none.bag")
    drive(tmp_path / "a.bag", 2, 10)
    data = (tmp_path / "a.bag").read_bytes()
    header = data[17 : 17 + struct.unpack_from("<I", data, 13)[0]]
    field = b"encryptor=rosbag/AesCbcEncryptor"
    secret = header + struct.pack("<I", len(field)) + field
    start = data[:13] + struct.pack("<I", len(secret)) + secret
    (tmp_path / "secret.bag").write_bytes(start + data[17 + len(header) :])
    with pytest.raises(FrameError, match=r"^secret.bag: is encrypted"):
        Ros1File(tmp_path / "secret.bag")


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
def test_of_a_chunk_beyond_the_limit_what_lies_before_it_is_read(
    tmp_path, compression, monkeypatch
):
    rows = drive(tmp_path / "a.bag", 4, 100_000, compression=compression)
    monkeypatch.setattr("edge_agent.data.storage.ros1.chunk.CHUNK_LIMIT", 250_000)
    good, bad, damage = read(tmp_path / "a.bag")
    assert (good, bad, damage) == (rows[:4], ["too large"] * 4, ())
    data = (tmp_path / "a.bag").read_bytes()
    (tmp_path / "a.bag").write_bytes(data[:-100])  # without its index
    good, bad, damage = read(tmp_path / "a.bag", (CAMERA,))
    assert (good, bad) == (rows[:4:2], ["too large"])
    assert [d.kind for d in damage] == ["cut file", "too large"]
    assert damage[1].begins.endswith(
        "a chunk of 1 MB, at most 256 MB are unpacked; rewrite it with smaller chunks"
    )
    begin, at, size = chunks(tmp_path / "a.bag")[0]
    change(tmp_path / "a.bag", at + size - 9, b"damaged")  # behind what is unpacked
    assert read(tmp_path / "a.bag")[0] == []
    (tmp_path / "a.bag").write_bytes(data)
    change(tmp_path / "a.bag", data.index(b"size=", begin) + 5, struct.pack("<I", 200_000))
    good, bad, _ = read(tmp_path / "a.bag")  # it claims to be small
    assert (good, bad) == ([], ["chunk decompression"] * 8)


def test_a_closed_file_fails_by_message(tmp_path):
    drive(tmp_path / "a.bag", 2)
    with Ros1File(tmp_path / "a.bag") as file:
        stored = list(file.messages((CAMERA,), DamageLog()))
    with pytest.raises(FrameError):
        stored[0].load()
