"""Undamaged .mcap files are read whole, whatever clocks did; limits are named as limits."""

import random
import struct
import sys
from pathlib import Path

import pytest

from edge_agent.data.storage import compression
from edge_agent.data.storage.mcap import chunk as mcap_chunk
from edge_agent.data.storage.mcap.file import McapFile
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

sys.path.append(str(Path(__file__).parents[3] / "fuzz"))
from mcap_seeds import CAMERA, NO_SUMMARY, T0, TEXT, by_mcap, content
from mcap_seeds import text as label

pytestmark = pytest.mark.base

COUNT = 12
DAY_NS = 86_400 * 10**9
YEAR_2200_NS = 7_258_118_400 * 10**9
CONTENTS = [part for i in range(COUNT) for part in (content(i), label(i))]
CLOCKS = {  # what -> (log time, publish time) of message i
    "published at zero": lambda i: (T0 + i * 10**9, 0),
    "published by a boot clock": lambda i: (T0 + i * 10**9, i * 10**9),
    "recorded again in the time of an old recording": lambda i: (i * 10**9 + 10**17, T0),
    "recorded in the year 2200": lambda i: (YEAR_2200_NS + i * 10**9, 0),
    "a clock that was set while recording": lambda i: (i * 10**9 + T0 * (i > 5), 0),
    "months between messages": lambda i: (T0 + i * 90 * DAY_NS, 0),
    "before 1970": lambda i: (i * 10**9 - 5 * 10**9, 0),
}
LAYOUTS = {
    "chunks": ("NONE", {}),
    "zstd chunks": ("ZSTD", {}),
    "no chunks": ("NONE", {"use_chunking": False}),
    "no chunks, no summary": ("NONE", {"use_chunking": False, **NO_SUMMARY}),
    "no index": ("NONE", {"index": False}),
    "zstd, no index": ("ZSTD", {"index": False}),
    "lz4, no index, no summary": ("LZ4", {"index": False, **NO_SUMMARY}),
}


def read(path, topics=(CAMERA, TEXT)):
    """Return (times, messages or reasons, damage)."""
    damage, times, messages = DamageLog(), [], []
    with McapFile(path) as file:
        for stored in file.messages(topics, damage):
            times.append(stored.bag_ns)
            try:
                messages.append(bytes(stored.load()))
            except FrameError as error:
                messages.append(error.reason)
    return times, messages, [(kind.kind, kind.count) for kind in damage.all()]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("clock", CLOCKS)
def test_records_that_follow_each_other_are_believed_whatever_clocks_did(clock, layout, tmp_path):
    compression, options = LAYOUTS[layout]
    data = by_mcap(compression, count=COUNT, times=CLOCKS[clock], **options)
    (tmp_path / "a.mcap").write_bytes(data)
    times, messages, damage = read(tmp_path / "a.mcap")
    assert messages == CONTENTS
    assert damage == []
    expected = [at + part for at, _ in map(CLOCKS[clock], range(COUNT)) for part in (0, 10**8)]
    assert times == expected
    with McapFile(tmp_path / "a.mcap") as file:
        assert {topic.messages for topic in file.topics()} == {COUNT}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_chunks_with_times_before_and_after_1970_come_in_order(layout, tmp_path):
    compression, options = LAYOUTS[layout]
    data = by_mcap(compression, count=12, times=lambda i: ((i * 5 % 12 - 6) * 10**9, T0), **options)
    (tmp_path / "a.mcap").write_bytes(data)
    times, messages, _ = read(tmp_path / "a.mcap", (CAMERA,))
    assert times == [second * 10**9 for second in range(-6, 6)]
    assert messages == [content(i) for i in sorted(range(12), key=lambda i: i * 5 % 12)]


@pytest.mark.parametrize("clock", ["published at zero", "before 1970", "recorded in the year 2200"])
def test_behind_damage_messages_are_found_by_the_clock_of_those_before(clock, tmp_path):
    data = by_mcap("NONE", count=40, times=CLOCKS[clock], use_chunking=False, **NO_SUMMARY)
    begin, end = data.index(content(10)) - 31, data.index(content(20)) - 31
    noise = random.Random(5).randbytes(end - begin)
    (tmp_path / "a.mcap").write_bytes(data[:begin] + noise + data[end:])
    _, messages, damage = read(tmp_path / "a.mcap", (CAMERA,))
    assert messages == [content(i) for i in range(40) if not 10 <= i < 20]
    assert damage == [("damaged file", 1)]


def test_a_channel_that_a_flipped_bit_turns_into_a_message_is_none(tmp_path):
    data = by_mcap("NONE", times=CLOCKS["published at zero"], use_chunking=False)
    channel = data.index(b"\x04", 8 + 9)
    while struct.unpack_from("<QHH", data, channel + 1)[1:] != (1, 1):
        channel = data.index(b"\x04", channel + 1)
    damaged = data[:channel] + b"\x05" + data[channel + 1 :]
    (tmp_path / "a.mcap").write_bytes(damaged)
    _, messages, damage = read(tmp_path / "a.mcap")
    assert messages == [part for i in range(4) for part in (content(i), label(i))]
    assert damage == [("damaged file", 1)]


def test_messages_outside_of_chunks_come_by_time_too(tmp_path):
    data = by_mcap("NONE", count=9, times=lambda i: (T0 - i * 10**9, T0), use_chunking=False)
    (tmp_path / "a.mcap").write_bytes(data)
    times, messages, damage = read(tmp_path / "a.mcap", (CAMERA,))
    assert messages == [content(i) for i in reversed(range(9))]
    assert (times, damage) == (sorted(times), [])


def test_a_message_of_a_channel_that_nothing_describes_is_told(tmp_path):
    data = by_mcap("NONE", use_chunking=False, **NO_SUMMARY)
    at = data.index(content(2)) - 22  # of its channel
    (tmp_path / "a.mcap").write_bytes(data[:at] + b"\x09" + data[at + 1 :])
    _, messages, damage = read(tmp_path / "a.mcap", (CAMERA,))
    assert messages == [content(i) for i in (0, 1, 3)]
    assert damage == [("damaged file", 1)]


def large_chunk(compression, **options):
    """Return a file whose one chunk has five pictures, 6000 bytes of a map, a picture."""

    def picture(index):
        return content(index) if index != 5 else bytes(6000)

    return by_mcap(compression, camera=picture, count=7, chunk_size=1 << 20, **options)


@pytest.mark.parametrize("layout", ["indexed", "no index"])
@pytest.mark.parametrize("kind", ["ZSTD", "LZ4"])
def test_of_a_chunk_beyond_the_limit_what_lies_before_it_is_read(
    kind, layout, tmp_path, monkeypatch
):
    monkeypatch.setattr(mcap_chunk, "CHUNK_LIMIT", 4000)
    monkeypatch.setattr(compression, "CHUNK_LIMIT", 1 << 20)
    (tmp_path / "a.mcap").write_bytes(large_chunk(kind, index=layout == "indexed"))
    _, messages, damage = read(tmp_path / "a.mcap", (CAMERA,))
    before = [content(i) for i in range(5)]
    if layout == "indexed":
        assert (messages, damage) == ([*before, "too large", "too large"], [])
    else:
        assert (messages, damage) == (before, [("too large", 1)])
    damage = DamageLog()
    with McapFile(tmp_path / "a.mcap") as file:
        last = list(file.messages((CAMERA,), damage))[-1]
        if layout == "indexed":
            with pytest.raises(FrameError) as caught:
                last.load()
            damage.add(caught.value.reason, str(caught.value))
    limit = "a chunk of 1 MB, at most 1 MB are unpacked; rewrite it with smaller chunks"
    assert damage.all()[0].begins.startswith("a.mcap at byte ")
    assert damage.all()[0].begins.endswith(limit)


def test_a_wrong_checksum_of_a_chunk_beyond_the_limit_costs_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(mcap_chunk, "CHUNK_LIMIT", 4000)
    data = large_chunk("ZSTD")
    at = data.index(b"\x04\0\0\0zstd") - 4
    (tmp_path / "a.mcap").write_bytes(data[:at] + b"\1" + data[at + 1 :])
    assert read(tmp_path / "a.mcap", (CAMERA,))[1] == ["chunk checksum"] * 7


def test_a_bomb_that_claims_to_be_small_is_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(mcap_chunk, "CHUNK_LIMIT", 4000)
    data = large_chunk("ZSTD", enable_crcs=False, **NO_SUMMARY)
    at = data.index(b"\x04\0\0\0zstd") - 12
    (tmp_path / "a.mcap").write_bytes(data[:at] + struct.pack("<Q", 3999) + data[at + 8 :])
    _, messages, damage = read(tmp_path / "a.mcap", (CAMERA,))
    assert (messages, damage[0]) == ([], ("chunk decompression", 1))


def test_a_message_beyond_the_limit_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(mcap_chunk, "_MESSAGE_LIMIT", 5000)
    (tmp_path / "a.mcap").write_bytes(large_chunk("NONE"))
    _, messages, _ = read(tmp_path / "a.mcap", (CAMERA,))
    assert messages == [*(content(i) for i in range(5)), "too large", content(6)]


def test_chunks_that_overlap_are_unpacked_once_each(tmp_path, monkeypatch):
    unpacked = []

    def unpack(data, *options):
        unpacked.append(len(data))
        return original(data, *options)

    original = mcap_chunk.unpack_prefix
    monkeypatch.setattr(mcap_chunk, "unpack_prefix", unpack)
    # Every chunk covers the whole recording, as when files are merged one behind the other.
    data = by_mcap("ZSTD", count=60, times=lambda i: (T0 + i % 10 * 10**9 + i, T0))
    (tmp_path / "a.mcap").write_bytes(data)
    times, messages, _ = read(tmp_path / "a.mcap", (CAMERA,))
    assert times == sorted(times)
    assert sorted(messages) == sorted(content(i) for i in range(60))
    assert len(unpacked) == data.count(b"\x04\0\0\0zstd") // 2 > 5  # in the summary, too
