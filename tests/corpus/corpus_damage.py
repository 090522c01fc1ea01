"""What happens to the files of bags, and what must then be missing: no more, no less."""

import re
import sqlite3
import struct
import sys

import numpy as np
from corpus_bags import PERIOD_NS, START_NS, storage_files
from corpus_checks import Losses

_ZSTD = re.escape(b"\x28\xb5\x2f\xfd")  # how its frames begin


def _in_file(path, number=0):
    files = storage_files(path)
    return files[number], bytearray(files[number].read_bytes())


def _tail(first, pictures, *kinds):
    return Losses(frozenset(range(first, len(pictures))), {}, frozenset(kinds))


def cut_in_message(number, is_known=False):
    """Return a change that ends the file in the middle of a picture, whose place may be known."""

    def change(path, pictures):
        file, content = _in_file(path)
        payload = pictures[number].message.payload
        file.write_bytes(content[: content.index(payload) + len(payload) // 2])
        losses = _tail(number, pictures, "cut file")
        return losses._replace(skipped={"cut file": 1}) if is_known else losses

    return change


def without_last_byte(path, pictures):
    """Take one byte: the end is not as it must be, all messages are there."""
    file, content = _in_file(path)
    file.write_bytes(content[:-1])
    return _tail(len(pictures), pictures, "cut file")


def flipped(numbers, reason):
    """Return a change of one bit in the first picture of `numbers`, whose chunk they share."""

    def change(path, pictures):
        file, content = _in_file(path)
        payload = pictures[numbers[0]].message.payload
        content[content.index(payload) + len(payload) // 2] ^= 1
        file.write_bytes(content)
        return Losses(frozenset(numbers), {reason: len(numbers)}, frozenset())

    return change


def long_string(path, pictures):
    """Claim four gigabytes for the frame_id of picture 3."""
    file, content = _in_file(path)
    payload = content.index(pictures[3].message.payload)
    at = content.rindex(b"camera_optical_frame", 0, payload) - 4
    content[at : at + 4] = b"\xff" * 4
    file.write_bytes(content)
    return Losses(frozenset({3}), {"bad message": 1}, frozenset())


def other_encoding(path, pictures):
    """Make one letter of an encoding another one, as a bit of memory does."""
    file, content = _in_file(path)
    payload = content.index(pictures[2].message.payload)
    content[content.rindex(b"bgr8", 0, payload) + 1] ^= 4
    file.write_bytes(content)
    return Losses(frozenset({2}), {"unknown encoding": 1}, frozenset())


def damaged_metadata(path, pictures):
    """Write metadata.yaml half, as a power loss does: it is not needed."""
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [\n  version")
    return Losses()


def without_second_file(path, pictures):
    """Lose one file of a split bag."""
    storage_files(path)[1].unlink()
    return Losses(frozenset({2, 3}), {}, frozenset({"missing file"}))


def emptied_second_file(kind):
    """Return a change that keeps a file of a split bag without its content, as a full disk does."""

    def change(path, pictures):
        storage_files(path)[1].write_bytes(b"")
        return Losses(frozenset({2, 3}), {}, frozenset({kind}))

    return change


def page_of_noise(path, pictures):
    """Overwrite a whole SQLite page that holds the picture 2."""
    file, content = _in_file(path)
    at = content.index(pictures[2].message.payload) // 4096 * 4096
    lost = frozenset(
        i for i, p in enumerate(pictures) if at <= content.index(p.message.payload) < at + 4096
    )
    content[at : at + 4096] = np.random.default_rng(3).bytes(4096)
    file.write_bytes(content)
    return Losses(lost, {}, frozenset({"damaged file"}))


def cut_at_page(path, pictures):
    """End a SQLite file at a page, behind the third picture."""
    file, content = _in_file(path)
    payloads = [picture.message.payload for picture in pictures]
    size = (content.index(payloads[2]) // 4096 + 1) * 4096
    lost = frozenset(i for i, p in enumerate(payloads) if content.index(p) >= size)
    assert 0 < len(lost) < len(payloads)
    file.write_bytes(content[:size])
    return Losses(lost, {}, frozenset({"cut file"}))


def bad_zstd_message(path, pictures):
    """Damage the third camera message where each is compressed by itself."""
    file, content = _in_file(path)
    if file.suffix == ".db3":  # rows of a page lie in any order
        with sqlite3.connect(file) as connection:
            (packed,) = connection.execute("SELECT data FROM messages WHERE id = 5").fetchone()
    else:
        begins = [match.start() for match in re.finditer(_ZSTD, content)]
        packed = content[begins[4] : begins[5]]  # the chatter lies between them
    at = content.index(packed)
    content[at + 4 : at + 12] = b"\xff" * 8
    file.write_bytes(content)
    return Losses(frozenset({2}), {"message decompression": 1}, frozenset())


def unindexed(path, pictures):
    """Leave a ROS 1 bag as a recorder does that lost power: no index, index_pos is zero."""
    file, content = _in_file(path)
    at = content.index(b"index_pos=") + len(b"index_pos=")
    (begin,) = struct.unpack_from("<Q", content, at)
    content[at : at + 8] = bytes(8)
    file.write_bytes(content[:begin])
    return _tail(len(pictures), pictures, "cut file")


def without_summary(path, pictures):
    """Let an MCAP's footer point nowhere."""
    file, content = _in_file(path)
    content[-8 - 20 : -8 - 12] = struct.pack("<Q", 2**40)
    file.write_bytes(content)
    return _tail(len(pictures), pictures, "damaged file")


def hole(path, pictures):
    """Overwrite the head of an MCAP chunk that holds picture 3 alone."""
    file, content = _in_file(path)
    stamp = struct.pack("<QQ", *[START_NS + 3 * PERIOD_NS] * 2)  # its first and last message
    at = content.index(stamp) - 9
    content[at : at + 60] = b"\xaa" * 60
    file.write_bytes(content)
    return Losses(frozenset({3}), {"chunk checksum": 1})


def zeros_to_the_end(path, pictures):
    """Leave an MCAP as some file systems do after a power loss: its size is right."""
    file, content = _in_file(path)
    payload = pictures[4].message.payload
    at = content.index(payload) + len(payload) // 2
    content[at:] = bytes(len(content) - at)
    file.write_bytes(content)
    return Losses(frozenset({4, 5}), {"chunk checksum": 1}, frozenset({"cut file"}))


def cut_zstd_file(path, pictures):
    """End a file that was compressed as a whole."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    file, content = _in_file(path)
    kept = content[: len(content) * 9 // 10]
    there = zstd.ZstdDecompressor().decompress(bytes(kept))
    file.write_bytes(kept)
    payloads = [picture.message.payload for picture in pictures]
    lost = frozenset(i for i, p in enumerate(payloads) if p[-12:] not in there)
    assert 0 < len(lost) < len(pictures)
    # A row of SQLite begins in another page than it ends in, so that its place is known.
    begun = sum(payloads[i][:12] in there for i in lost) if ".db3" in file.name else 0
    return Losses(lost, {"cut file": begun} if begun else {}, frozenset({"cut file"}))


def noise_in_chunk(magic, number):
    """Return a change inside the one of a ROS 1 bag's compressed chunks that ends with a frame."""

    def change(path, pictures):
        file, content = _in_file(path)
        begins = [match.start() for match in re.finditer(re.escape(magic), content)]
        at = begins[number] + 40
        content[at : at + 40] = b"\xff" * 40
        file.write_bytes(content)
        return Losses(frozenset({number}), {"chunk decompression": 1})

    return change


# what -> (storage, kind of picture, change of the files that returns the Losses)
DAMAGES = {
    "mcap, cut": ("mcap", "rgb8", cut_in_message(4)),
    "mcap, cut in its first frame but one": ("mcap, bare", "mono8", cut_in_message(1)),
    "mcap, cut between chunks": ("mcap library, a message a chunk", "jpeg", cut_in_message(3)),
    "mcap, cut without chunks": ("mcap library, without chunks", "16UC1", cut_in_message(2)),
    "mcap, cut without indexes": ("mcap library, without indexes", "rgb8", cut_in_message(5)),
    "mcap, a byte short": ("mcap", "jpeg", without_last_byte),
    "mcap with zstd chunks, a byte short": ("mcap library, zstd", "rgb8", without_last_byte),
    "mcap without metadata, a byte short": (
        "mcap, without metadata",
        "png_rgb8",
        without_last_byte,
    ),
    "mcap, a bit in a chunk": (
        "mcap library, a message a chunk",
        "rgb8",
        flipped((2,), "chunk checksum"),
    ),
    "mcap, a bit in a chunk of two frames": (
        "mcap library, without indexes",
        "rgb8",
        flipped((2, 3), "chunk checksum"),
    ),
    "mcap with zstd, a bit in a chunk": (
        "mcap library, zstd",
        "rgb8",  # noise: zstd stores it as it is
        flipped((4, 5), "chunk checksum"),
    ),
    "mcap with lz4, a bit in a chunk": (
        "mcap library, lz4",
        "rgb8",
        flipped((0, 1), "chunk checksum"),
    ),
    "mcap, a chunk's head": ("mcap library, a message a chunk", "rgb8", hole),
    "mcap, zeros to the end": ("mcap library, a message a chunk", "rgb8", zeros_to_the_end),
    "mcap, a wrong footer": ("mcap", "rgb8", without_summary),
    "mcap, a wrong string length": ("mcap", "rgb8", long_string),
    "mcap, a wrong letter": ("mcap", "bgr8", other_encoding),
    "mcap, a bad zstd message": ("mcap, zstd messages", "rgb8", bad_zstd_message),
    "mcap, a cut zstd file": ("mcap, zstd file", "large rgb8", cut_zstd_file),
    "mcap, a bare cut zstd file": ("mcap, bare zstd file", "large rgb8", cut_zstd_file),
    "mcap, a file is missing": ("mcap, split", "jpeg", without_second_file),
    "mcap, a file is empty": ("mcap, split", "jpeg", emptied_second_file("empty")),
    "mcap, half a metadata.yaml": ("mcap", "jpeg", damaged_metadata),
    "db3, cut": ("db3", "rgb8", cut_at_page),
    "db3 of Humble, cut": ("db3 of Humble", "mono8", cut_at_page),
    "db3, a page of noise": ("db3", "rgb8", page_of_noise),
    "db3 of Humble, a page of noise": ("db3 of Humble", "rgb8", page_of_noise),
    "db3, a wrong string length": ("db3", "rgb8", long_string),
    "db3, a wrong letter": ("db3", "bgr8", other_encoding),
    "db3, a bad zstd message": ("db3, zstd messages", "rgb8", bad_zstd_message),
    "db3, a cut zstd file": ("db3, zstd file", "large rgb8", cut_zstd_file),
    "db3, a file is missing": ("db3, split", "jpeg", without_second_file),
    "db3, a file is empty": ("db3, split", "jpeg", emptied_second_file("cut file")),
    "db3, half a metadata.yaml": ("db3", "jpeg", damaged_metadata),
    "ROS 1, cut": ("ROS 1, small chunks", "rgb8", cut_in_message(4, is_known=True)),
    "ROS 1, cut in its only chunk": ("ROS 1", "rgb8", cut_in_message(3, is_known=True)),
    "ROS 1, without an index": ("ROS 1, small chunks", "rgb8", unindexed),
    "ROS 1 with lz4, without an index": ("ROS 1, lz4", "rgb8", unindexed),
    "ROS 1, noise in a bz2 chunk": (
        "ROS 1, small bz2 chunks",
        "rgb8",
        noise_in_chunk(b"BZh9", 2),
    ),
    "ROS 1, noise in an lz4 chunk": (
        "ROS 1, small lz4 chunks",
        "rgb8",
        noise_in_chunk(b"\x04\x22\x4d\x18", 3),
    ),
    "ROS 1, a wrong string length": ("ROS 1", "rgb8", long_string),
}
