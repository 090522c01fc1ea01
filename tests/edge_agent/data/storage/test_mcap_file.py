import os
import random
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.data.storage import STORAGE_FILES
from edge_agent.data.storage.mcap.file import McapFile
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.loading import load_plugin

sys.path.append(str(Path(__file__).parents[3] / "fuzz"))
from mcap_seeds import CAMERA, COUNT, NO_SUMMARY, TEXT, by_mcap, by_rosbags, content, seeds
from mcap_seeds import text as label

pytestmark = pytest.mark.base

SEEDS = seeds()
CONTENTS = [content(i) for i in range(COUNT)]
MAGIC = b"\x89MCAP0\r\n"


@pytest.fixture
def read(tmp_path):
    """Return a reader of a file with some bytes: (messages or reasons, damage as text)."""

    def read(data, topics=(CAMERA,)):
        path = tmp_path / "a.mcap"
        path.write_bytes(data)
        damage, messages = DamageLog(), []
        with McapFile(path) as file:
            for stored in file.messages(topics, damage):
                try:
                    messages.append(bytes(stored.load()))
                except FrameError as error:
                    messages.append(error.reason)
        return messages, [(kind.kind, kind.count) for kind in damage.all()]

    return read


def find(data, op, nth=0):
    """Return where the nth record with an opcode lies between the first magic and the footer."""
    at = len(MAGIC)
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at + 1)
        if data[at] == op:
            if not nth:
                return at
            nth -= 1
        at += 9 + length
    raise AssertionError(f"no record {op}")


def change(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def flip(data, at, bits=0xFF):
    return change(data, at, bytes([data[at] ^ bits]))


def test_the_table_names_it():
    assert load_plugin(STORAGE_FILES, ".mcap") is McapFile


@pytest.mark.parametrize("name", [name for name in SEEDS if name != "rosbags message"])
def test_every_flavor_gives_every_message_once_in_order_of_time(name, tmp_path):
    (tmp_path / "a.mcap").write_bytes(SEEDS[name])
    damage = DamageLog()
    with McapFile(tmp_path / "a.mcap") as file:
        topics = {topic.name: topic for topic in file.topics()}
        stored = list(file.messages((CAMERA, TEXT, "/other"), damage))
        loaded = [bytes(each.load()) for each in reversed(stored)][::-1]  # in any order
    expected = [part for i in range(COUNT) for part in (content(i), label(i))]
    assert loaded == expected
    assert [s.bag_ns - stored[0].bag_ns for s in stored[:3]] == [0, 10**8, 10**9]
    assert (topics[CAMERA].type, topics[TEXT].type) == (
        "sensor_msgs/CompressedImage",
        "std_msgs/String",
    )
    assert {(t.messages, t.encoding) for t in topics.values()} == {(COUNT, "cdr")}
    assert topics[TEXT].definition.startswith("string data")
    assert not damage


@pytest.mark.parametrize("name", SEEDS)
def test_of_a_file_cut_anywhere_the_first_messages_are_read_and_the_cut_is_told(name, read):
    whole, _ = read(SEEDS[name], (CAMERA, TEXT))
    best, refused, size_refused = 0, set(), 0
    for size in range(0, len(SEEDS[name]), 41):
        try:
            messages, damage = read(SEEDS[name][:size], (CAMERA, TEXT))
        except FrameError as error:
            refused.add(error.reason)
            size_refused = size
            continue
        assert messages == whole[: len(messages)]
        assert len(messages) >= best
        assert size_refused < size
        assert damage == [("cut file", 1)]
        best = len(messages)
    assert best == len(whole)
    assert refused <= {"empty", "cut file", "damaged file"}


def test_a_cut_in_an_uncompressed_chunk_loses_only_the_message_that_it_goes_through(read):
    data = by_mcap("NONE", enable_crcs=False, chunk_size=1 << 20)
    inside = data.index(content(2)) + 50
    assert read(data[:inside]) == (CONTENTS[:2], [("cut file", 1)])


def test_a_cut_chunk_gives_what_can_be_unpacked(read):
    noise = [random.Random(i).randbytes(3000) for i in range(300)]
    data = by_mcap("ZSTD", camera=noise.__getitem__, count=300, chunk_size=1 << 30)
    messages, damage = read(data[: len(data) * 3 // 4])
    assert damage == [("cut file", 1)]
    assert 150 < len(messages) < 230  # a block of zstd is 128 kB
    assert messages == noise[: len(messages)]


def test_zeros_behind_the_last_message_as_a_power_loss_leaves_them_lose_nothing(read):
    data = by_mcap("NONE", use_chunking=False, **NO_SUMMARY)
    written = data[: find(data, 15)]
    assert read(written + bytes(5000)) == (CONTENTS, [("cut file", 1)])


@pytest.mark.parametrize("compression", ["NONE", "ZSTD", "LZ4"])
def test_messages_of_a_chunk_with_a_wrong_checksum_fail_and_the_others_are_read(read, compression):
    data = by_mcap(compression)
    messages, damage = read(flip(data, find(data, 6) + 33))  # of the checksum itself
    assert messages == ["chunk checksum"] * 2 + CONTENTS[2:]
    assert not damage


@pytest.mark.parametrize("compression", ["ZSTD", "LZ4"])
def test_messages_of_a_chunk_that_cannot_be_unpacked_fail_and_the_others_are_read(
    read, compression
):
    data = by_mcap(compression, enable_crcs=False)
    at = find(data, 6) + 49 + len(compression)
    assert read(change(data, at, b"none")) == (["chunk decompression"] * 2 + CONTENTS[2:], [])


def test_a_flipped_length_of_a_message_never_gives_a_message_of_that_length(read):
    data = by_mcap("NONE", enable_crcs=False)
    for bit in range(8):
        messages, _ = read(flip(data, data.index(content(1)) - 30, 1 << bit))
        assert messages == [CONTENTS[0], "damaged file", *CONTENTS[2:]]


@pytest.mark.parametrize("at", [0, 1, 9, 11, 15, 16, 23, 24])
def test_a_wrong_message_index_is_told_or_seen_through(read, at):
    for name in ("mcap no crc", "rosbags none", "mcap no summary"):
        index = find(SEEDS[name], 7)
        messages, damage = read(flip(SEEDS[name], index + at, 0x11))
        assert messages == CONTENTS
        assert damage in ([], [("damaged file", 1)])


@pytest.mark.parametrize("nth", range(4))
def test_an_index_that_a_flipped_bit_turns_into_a_message_is_none(read, nth):
    data = SEEDS["mcap no summary"]
    damaged = change(data, find(data, 7, nth), b"\x05")
    assert read(damaged, (CAMERA, TEXT)) == (read(data, (CAMERA, TEXT))[0], [("damaged file", 1)])


def test_chunks_whose_place_the_summary_has_wrong_are_found(read):
    data = SEEDS["rosbags none"]
    entry = find(data, 8)
    for at in (9 + 16, 9 + 24, 9 + 32, 9 + 36, 9 + 46, 9 + 56, 9 + 66, 9 + 74):
        messages, _ = read(flip(data, entry + at, 0x21))
        assert messages == CONTENTS


def test_a_damaged_chunk_head_is_seen_through(read):
    for name in ("mcap no crc", "mcap no summary", "mcap no index"):
        data = SEEDS[name]
        chunk = find(data, 6, 1)
        for at in (1, 9, 17, 25, 37, 41):
            messages, _ = read(flip(data, chunk + at, 0x21))
            assert messages[:2] == CONTENTS[:2], (name, at)
            assert [m for m in messages if isinstance(m, bytes)] == CONTENTS, (name, at)


def test_a_damaged_stretch_loses_what_lies_there_and_nothing_else(read):
    data = by_mcap("NONE", count=40, use_chunking=False, **NO_SUMMARY)
    begin, end = data.index(content(10)) - 31, data.index(content(20)) - 31
    messages, damage = read(change(data, begin, os.urandom(end - begin)))
    assert messages == [content(i) for i in range(40) if not 10 <= i < 20]
    assert damage == [("damaged file", 1)]


def test_a_wrong_summary_is_told_and_walked_around(read):
    data = SEEDS["mcap NONE crc"]
    assert read(flip(data, find(data, 8) + 20)) == (CONTENTS, [("damaged file", 1)])
    assert read(flip(data, len(data) - 37)) == (CONTENTS, [("damaged file", 1)])


def test_unknown_records_are_passed_over(read):
    data = by_mcap("NONE", use_chunking=False, **NO_SUMMARY)
    strange = b"\x90" + struct.pack("<Q", 7) + b"unknown"
    empty = b"\xa0" + bytes(8)
    second = data.index(content(1)) - 31
    assert read(data[:second] + strange + empty + data[second:]) == (CONTENTS, [])


def test_two_publishers_of_a_topic_are_one_topic(tmp_path):
    from mcap.writer import Writer

    with (tmp_path / "a.mcap").open("wb") as stream:
        writer = Writer(stream)
        writer.start("ros1", "test")
        schema = writer.register_schema("sensor_msgs/Image", "ros1msg", b"uint8[] data")
        channels = [writer.register_channel(CAMERA, "ros1", schema) for _ in range(2)]
        for i in range(6):
            writer.add_message(channels[i % 2], 100 + i, bytes([i]), 100 + i)
        writer.finish()
    with McapFile(tmp_path / "a.mcap") as file:
        (topic,) = file.topics()
        assert topic == (CAMERA, "sensor_msgs/Image", "ros1", "uint8[] data", 6)
        loaded = [bytes(s.load()) for s in file.messages((CAMERA,), DamageLog())]
    assert loaded == [bytes([i]) for i in range(6)]


def test_messages_of_chunks_that_overlap_come_in_the_order_of_time(tmp_path):
    from mcap.writer import CompressionType, Writer

    times = [50, 10, 40, 20, 60, 30, 80, 70]
    with (tmp_path / "a.mcap").open("wb") as stream:
        writer = Writer(stream, chunk_size=1, compression=CompressionType.LZ4)
        writer.start()
        channel = writer.register_channel(CAMERA, "cdr", 0)
        for time_ns in times:
            writer.add_message(channel, time_ns, bytes([time_ns]), time_ns)
        writer.finish()
    with McapFile(tmp_path / "a.mcap") as file:
        stored = list(file.messages((CAMERA,), DamageLog()))
        assert [s.bag_ns for s in stored] == sorted(times)
        assert [s.load()[0] for s in stored] == sorted(times)


def test_a_message_outlives_its_file_and_the_thing_that_read_it(tmp_path):
    (tmp_path / "a.mcap").write_bytes(SEEDS["mcap ZSTD crc"])
    stored = list(McapFile(tmp_path / "a.mcap").messages((CAMERA,), DamageLog()))
    (tmp_path / "a.mcap").unlink()
    loaded = [each.load() for each in stored]
    del stored
    assert loaded == CONTENTS


def test_a_closed_file_says_so(tmp_path):
    (tmp_path / "a.mcap").write_bytes(SEEDS["rosbags none"])
    with McapFile(tmp_path / "a.mcap") as file:
        (first, *_) = file.messages((CAMERA,), DamageLog())
    with pytest.raises(FrameError, match=r"a\.mcap: is closed"):
        first.load()


def test_a_file_that_shrinks_while_it_is_read_is_an_error_of_its_messages(tmp_path):
    (tmp_path / "a.mcap").write_bytes(SEEDS["mcap no crc"])
    with McapFile(tmp_path / "a.mcap") as file:
        stored = list(file.messages((CAMERA,), DamageLog()))
        os.truncate(tmp_path / "a.mcap", SEEDS["mcap no crc"].index(content(2)))
        assert [bytes(s.load()) for s in stored[:2]] == CONTENTS[:2]
        for each in stored[2:]:
            with pytest.raises(FrameError) as caught:
                each.load()
            assert caught.value.reason == "damaged file"


def test_what_is_no_mcap_file_is_an_error_without_its_folder(tmp_path):
    for name, data, reason in (
        ("empty", b"", "empty"),
        ("text", b"no bag at all" * 99, "damaged file"),
        ("begin", MAGIC, "cut file"),
        ("zeros", bytes(9999), "damaged file"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FrameError, match=f"^{name}: ") as caught:
            McapFile(tmp_path / name)
        assert caught.value.reason == reason
    with pytest.raises(FrameError, match=r"^none: No such file") as caught:
        McapFile(tmp_path / "none")
    assert caught.value.reason == "missing file"
    with pytest.raises(FrameError, match="is empty"):
        McapFile(tmp_path)


def test_an_empty_recording_has_no_topics_and_no_damage(read, tmp_path):
    from mcap.writer import Writer

    with (tmp_path / "b.mcap").open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        writer.finish()
    assert read((tmp_path / "b.mcap").read_bytes()) == ([], [])


def test_sizes_that_damage_claims_are_never_allocated(read):
    data = by_mcap("NONE", use_chunking=False, **NO_SUMMARY)
    at = data.index(content(0)) - 30
    for size in (2**62, 2**40, 2**31, len(data)):
        messages, _ = read(change(data, at, struct.pack("<Q", size)))
        assert messages == CONTENTS[1:]


def test_a_chunk_is_unpacked_once_for_all_its_messages(tmp_path, monkeypatch):
    from edge_agent.data.storage.mcap import chunk as mcap_chunk

    unpacked = []

    def unpack(data, *options):
        unpacked.append(len(data))
        return original(data, *options)

    original = mcap_chunk.unpack_prefix
    monkeypatch.setattr(mcap_chunk, "unpack_prefix", unpack)
    (tmp_path / "a.mcap").write_bytes(by_mcap("ZSTD", count=40, chunk_size=2000))
    with McapFile(tmp_path / "a.mcap") as file:
        stored = list(file.messages((CAMERA,), DamageLog()))
        assert not unpacked  # listing reads no chunk
        loaded = [s.load() for s in stored]
    assert loaded == [content(i) for i in range(40)]
    assert len(unpacked) < 10


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), name=st.sampled_from(["mcap no crc", "rosbags none", "mcap no chunks"]))
def test_one_flipped_bit_costs_at_most_one_message(data, name, read):
    at = data.draw(st.integers(0, len(SEEDS[name]) - 1))
    messages, damage = read(flip(SEEDS[name], at, 1 << data.draw(st.integers(0, 7))))
    # Flipped within a message it cannot be seen, within the name of the topic that is another one.
    whole = [m for m in messages if m in CONTENTS]
    refused = "chunk checksum" in messages  # the flip was in the checksum itself
    assert len(whole) == len(set(whole)) >= COUNT - 1 or not messages or damage or refused


def test_damage_of_any_kind_raises_only_declared_errors_and_gives_only_what_was_written(capsys):
    import json

    from fuzz_mcap import main

    assert main(["--inputs", "3000", "--seed", "7"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["inputs"] == 3000 == sum(report["outcomes"].values())
    assert report["outcomes"]["flip: all"] > 300


def test_a_rosbags_file_needs_no_other_file(read):
    assert read(by_rosbags("storage")) == (CONTENTS, [])
