"""TFRecord files, without TensorFlow: length, its checksum, the record, its checksum.

Format: tensorflow/core/lib/io/record_writer.h. Checksums are CRC-32C, rotated and shifted.
"""

import os
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import unreadable

_HEAD = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_MASK = 0xA282EAD8
_POLYNOMIAL = 0x82F63B78  # Castagnoli, reversed
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20


class RecordPosition(NamedTuple):
    """Where a record lies in its file."""

    at: int  # byte of its first header
    size: int  # bytes of the record itself


def write_record(stream: BinaryIO, record: bytes) -> None:
    """Append one record."""
    head = struct.pack("<Q", len(record))
    stream.write(head + _CRC.pack(_masked_crc(head)))
    stream.write(record)
    stream.write(_CRC.pack(_masked_crc(record)))


def record_positions(path: Path, where: str, damage: DamageLog) -> Iterator[RecordPosition]:
    """Yield the places of all records; reads 12 bytes of each.

    Behind a damaged header the next good one is looked for; both losses and the end of a file
    that was cut are added to `damage`.

    Raises:
        FrameError: the file cannot be opened, or is compressed.
    """
    try:
        with path.open("rb", buffering=0) as stream:
            yield from _positions(stream.fileno(), where, damage)
    except OSError as error:
        raise unreadable(where, error) from None


def read_record(path: Path, position: RecordPosition, where: str) -> bytes:
    """Return one record.

    Raises:
        FrameError: it cannot be read, or is damaged ("record checksum").
    """
    try:
        with path.open("rb", buffering=0) as stream:
            start = position.at + _HEAD.size
            content = os.pread(stream.fileno(), position.size + _CRC.size, start)
    except OSError as error:
        raise unreadable(where, error) from None
    record, tail = content[: position.size], content[position.size :]
    if len(tail) != _CRC.size:
        raise FrameError(f"{where}: cut in the record at byte {position.at}", "cut file")
    if _CRC.unpack(tail)[0] != _masked_crc(record):
        message = f"{where}: wrong checksum of the record at byte {position.at}"
        raise FrameError(message, "record checksum")
    return record


def _positions(descriptor: int, where: str, damage: DamageLog) -> Iterator[RecordPosition]:
    size, at = os.fstat(descriptor).st_size, 0
    if os.pread(descriptor, 2, 0) == _GZIP:
        raise FrameError(f"{where}: is packed with gzip; unpack it first", "unknown format")
    while at < size:
        head = os.pread(descriptor, _HEAD.size, at)
        if len(head) < _HEAD.size:
            damage.add("cut file", f"{where} at byte {at}")
            return
        length, crc = _HEAD.unpack(head)
        following = at + _HEAD.size + length + _CRC.size
        if crc != _masked_crc(head[:8]):
            damage.add("record checksum", f"{where} at byte {at}, in a header")
            at = _next_record(descriptor, at + 1, size)
        elif following > size:
            damage.add("cut file", f"{where} in the record at byte {at}")
            return
        else:
            yield RecordPosition(at, length)
            at = following


def _next_record(descriptor: int, at: int, size: int) -> int:
    """Return the next byte from `at` on where a record's header may begin, else `size`."""
    tables = _crc_tables()
    while at + _HEAD.size <= size:
        block = np.frombuffer(os.pread(descriptor, _BLOCK, at), np.uint8)
        positions = len(block) - _HEAD.size + 1
        if positions <= 0:
            break
        crcs = np.full(
            positions, 0xFFFFFFFF, np.uint32
        )  # (positions,): of the 8 bytes from each on
        stored = np.zeros(positions, np.uint32)  # (positions,): of the 4 bytes behind them
        for number in range(8):
            # The register starts with ones, which meet the first four bytes.
            ones = np.uint8(0xFF if number < 4 else 0)
            crcs ^= tables[7 - number][block[number : number + positions] ^ ones]
        for number in range(4):
            byte = block[8 + number : 8 + number + positions].astype(np.uint32)
            stored |= byte << np.uint32(8 * number)
        masked = (crcs >> np.uint32(15) | crcs << np.uint32(17)) + np.uint32(_MASK)
        for offset in map(int, np.flatnonzero(masked == stored)):
            length = int.from_bytes(block[offset : offset + 8].tobytes(), "little")
            if at + offset + _HEAD.size + length + _CRC.size <= size:
                return at + offset
        at += positions
    return size


@cache
def _crc_tables() -> NDArray[np.uint32]:
    """Return CRC-32C of one byte followed by 0 to 7 zero bytes: (8, 256)."""
    tables = np.zeros((8, 256), np.uint32)
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, crc >> 1 ^ np.uint32(_POLYNOMIAL), crc >> 1)
    tables[0] = crc
    for number in range(1, 8):
        tables[number] = tables[0][tables[number - 1] & 0xFF] ^ tables[number - 1] >> 8
    return tables


def _masked_crc(data: bytes) -> int:
    import google_crc32c

    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
