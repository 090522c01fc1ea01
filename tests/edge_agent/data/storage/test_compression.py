import random
import tracemalloc
from zlib import crc32

import pytest

from edge_agent.data.storage.compression import (
    is_zstd,
    unpack_file,
    unpack_prefix,
    unpack_zstd,
    unpacked_checksum,
    zstd_module,
)
from fleet_model.errors import FrameError, StorageError

pytestmark = pytest.mark.base

NOISE = random.Random(0).randbytes(700_000)


def packed(kind, content):
    if kind == "zstd":
        return zstd_module().compress(content)
    import lz4.frame

    return lz4.frame.compress(content)


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_whole_data_comes_back_whole(kind):
    for content in (b"", b"short", NOISE):
        assert unpack_prefix(packed(kind, content), kind, 10**6) == (content, True)
    two = packed(kind, b"one ") + packed(kind, b"two")
    assert unpack_prefix(memoryview(two), kind, 100) == (b"one two", True)


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_of_cut_data_the_beginning_comes_back(kind):
    data = packed(kind, NOISE)
    for size in range(0, len(data), 50_001):
        content, is_whole = unpack_prefix(data[:size], kind, 10**6)
        assert NOISE.startswith(content)
        assert len(content) > size - 300_000
        assert not is_whole


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_small_bomb_is_not_unpacked_beyond_the_limit(kind):
    content, is_whole = unpack_prefix(packed(kind, bytes(50_000_000)), kind, 1000)
    assert content == bytes(1000)
    assert not is_whole


def test_a_damaged_frame_is_an_error_with_the_callers_reason():
    data = packed("zstd", NOISE)
    assert is_zstd(memoryview(data))
    assert unpack_zstd(data, 10**6, "bag", "message decompression") == NOISE
    for wrong in (data[:-1], data[:9] + b"damage" + data[9:], data + b"tail", data[:3], b""):
        with pytest.raises(FrameError, match=r"^bag: ") as caught:
            unpack_zstd(wrong, 10**6, "bag", "message decompression")
        assert caught.value.reason == "message decompression"


def test_more_than_the_limit_is_damage_only_where_the_size_is_known():
    data = packed("zstd", NOISE)
    for advice, reason in (("", "damaged zstd"), ("use chunks", "too large")):
        with pytest.raises(FrameError, match=r"^bag: ") as caught:
            unpack_zstd(data, 600_000, "bag", "damaged zstd", advice)
        assert caught.value.reason == reason
    assert str(caught.value) == "bag: a larger message, at most 0 MB are unpacked; use chunks"


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_checksum_needs_the_memory_of_one_block(kind):
    content = NOISE + bytes(5_000_000) + NOISE
    data = packed(kind, content) + packed(kind, b"more")
    blocks = [data[at : at + 9999] for at in range(0, len(data), 9999)]
    size = len(content) + 4
    assert unpacked_checksum(blocks, kind, size) == crc32(content + b"more")
    assert unpacked_checksum(blocks, kind, size - 1) is None
    assert unpacked_checksum(blocks[:-1], kind, size) is None
    assert unpacked_checksum([], kind, size) is None
    tracemalloc.start()
    unpacked_checksum(blocks, kind, size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000 < len(content)


def test_a_file_is_unpacked_as_far_as_it_goes(tmp_path):
    file, unpacked = tmp_path / "a.mcap.zstd", tmp_path / "a.mcap"
    data = packed("zstd", NOISE)
    file.write_bytes(data + data)
    assert unpack_file(file, unpacked) is None
    assert unpacked.read_bytes() == NOISE + NOISE
    file.write_bytes(data[:500_000])
    lost = unpack_file(file, unpacked)
    assert (lost.reason, str(lost)) == ("cut file", "a.mcap.zstd: cut at byte 500000")
    assert NOISE.startswith(unpacked.read_bytes())
    file.write_bytes(data + b"damage" * 9)
    lost = unpack_file(file, unpacked)
    assert lost.reason == "damaged file"
    assert unpacked.read_bytes() == NOISE


def test_a_file_of_which_nothing_can_be_unpacked_is_an_error(tmp_path):
    for content, reason in ((b"", "cut file"), (b"no zstd" * 9, "damaged file")):
        (tmp_path / "a.zstd").write_bytes(content)
        with pytest.raises(FrameError, match=r"^a\.zstd: ") as caught:
            unpack_file(tmp_path / "a.zstd", tmp_path / "a")
        assert caught.value.reason == reason


def test_a_full_disk_is_told_as_such(tmp_path):
    (tmp_path / "a.zstd").write_bytes(packed("zstd", NOISE))
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device"):
        unpack_file(tmp_path / "a.zstd", tmp_path / "full")
