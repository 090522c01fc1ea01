"""tf.train.Example, written and read without TensorFlow or protobuf.

Example { Features { map<string, Feature> } }; a Feature is a list of bytes, of floats (32 bits) or
of integers (64 bits). Wire format: protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from fleet_model.errors import FrameError

Values: TypeAlias = Sequence[bytes] | Sequence[float] | Sequence[int]
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3  # the fields of Feature
_VARINT, _FIXED64, _BLOCK, _FIXED32 = 0, 1, 2, 5  # wire types
_SIZES = {_FIXED64: 8, _FIXED32: 4}


class Features:
    """The named lists of one example, in the order in which they were added."""

    def __init__(self) -> None:
        self._entries: list[bytes] = []

    def add_bytes(self, name: str, values: Sequence[bytes]) -> None:
        """Add a list of byte strings."""
        self._add(name, _BYTES, b"".join(_field(1, value) for value in values))

    def add_floats(self, name: str, values: Sequence[float]) -> None:
        """Add a list of numbers; each becomes the nearest of 32 bits."""
        self._add(name, _FLOATS, _field(1, np.asarray(values, "<f4").tobytes()) if values else b"")

    def add_integers(self, name: str, values: Sequence[int]) -> None:
        """Add a list of numbers of 64 bits."""
        packed = b"".join(_varint(value & 0xFFFFFFFFFFFFFFFF) for value in values)
        self._add(name, _INTEGERS, _field(1, packed) if values else b"")

    def record(self) -> bytes:
        """Return the serialized example."""
        return _field(1, b"".join(self._entries))

    def _add(self, name: str, kind: int, content: bytes) -> None:
        entry = _field(1, name.encode()) + _field(2, _field(kind, content))
        self._entries.append(_field(1, entry))


def read_example(record: bytes) -> Mapping[str, Values]:
    """Return the lists of an example by name. Bytes are copied, so they outlive the record.

    Raises:
        FrameError: it is none ("bad record").
    """
    found: dict[str, Values] = {}
    try:
        for number, features in _fields(memoryview(record)):
            if number != 1:
                continue
            for _, entry in _fields(_block(features)):
                name, values = _entry(_block(entry))
                found[name] = values
    except (struct.error, IndexError, ValueError) as error:
        raise FrameError(f"is no tf.train.Example: {error}", "bad record") from None
    return found


def _entry(entry: memoryview) -> tuple[str, Values]:
    name = ""
    values: Values = ()
    for number, content in _fields(entry):
        if number == 1:
            name = bytes(_block(content)).decode("utf-8", "replace")
        elif number == 2:
            values = _values(_block(content))
    return name, values


def _values(feature: memoryview) -> Values:
    for kind, content in _fields(feature):
        if kind == _BYTES:
            return [bytes(_block(value)) for _, value in _fields(_block(content))]
        if kind == _FLOATS:
            return _floats(_block(content))
        if kind == _INTEGERS:
            return _integers(_block(content))
    return ()


def _floats(content: memoryview) -> list[float]:
    found: list[float] = []
    for _, value in _fields(content):
        if isinstance(value, int):  # not packed, 4 bytes
            found.extend(struct.unpack("<f", struct.pack("<I", value)))
        else:
            found.extend(np.frombuffer(value, "<f4").tolist())
    return found


def _integers(content: memoryview) -> list[int]:
    found: list[int] = []
    for _, value in _fields(content):
        if isinstance(value, int):
            found.append(_signed(value))
            continue
        at = 0
        while at < len(value):
            number, at = _read_varint(value, at)
            found.append(_signed(number))
    return found


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of a message: an integer or a block of bytes."""
    at = 0
    while at < len(content):
        tag, at = _read_varint(content, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _read_varint(content, at)
            yield tag >> 3, value
        elif wire == _BLOCK or wire in _SIZES:
            length, at = _read_varint(content, at) if wire == _BLOCK else (_SIZES[wire], at)
            if at + length > len(content):
                raise ValueError(f"a field leads out of it at byte {at}")
            block = content[at : at + length]
            yield tag >> 3, block if wire == _BLOCK else int.from_bytes(block, "little")
            at += length
        else:
            raise ValueError(f"wire type {wire} at byte {at}")


def _block(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number in place of a block")
    return value


def _read_varint(content: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at byte {at}")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return b"".join((_varint(number << 3 | _BLOCK), _varint(len(content)), content))
