"""The records of an MCAP file (mcap.dev/spec): how they lie in its bytes and what they say."""

from struct import Struct, error, unpack_from
from typing import NamedTuple

MAGIC = b"\x89MCAP0\r\n"
LOST = 0  # marks bytes that are no record; no opcode is 0
(HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX) = range(1, 9)
STATISTICS, DATA_END = 11, 15
KNOWN_OPCODES = 15  # higher ones are private to a recorder

HEAD = Struct("<BQ")  # opcode, length of the body
# Times are unsigned in the file, but ROS and this project count in int64: so what lies before
# 1970 comes back as it was. Every time in a file is read by one of these or by _CHUNK_INDEX.
MESSAGE_HEAD = Struct("<BQHIqq")  # ..., channel, sequence, log time, publish time
CHUNK_HEAD = Struct("<BQqqQII")  # ..., start, end, size, CRC, length of the compression's name
CHUNK_FIXED = 40  # bytes of a chunk's body but for the compression's name and the records
INDEX_HEAD = Struct("<BQHI")  # ..., channel, bytes of the entries
INDEX_ENTRY = Struct("<qQ")  # time, where in the unpacked records

# Opcode -> bytes of the smallest body; what is no record has never enough.
SMALLEST = {LOST: 1 << 64, HEADER: 8, FOOTER: 20, SCHEMA: 14, CHANNEL: 16, MESSAGE: 22}
SMALLEST |= {CHUNK: CHUNK_FIXED, MESSAGE_INDEX: 6, CHUNK_INDEX: 64, STATISTICS: 46, DATA_END: 4}


class Record(NamedTuple):
    """Where a record lies."""

    op: int  # LOST for a stretch without one
    at: int  # of its opcode
    end: int  # behind its last byte; of a chunk that was cut, behind the end of the file


class MessageHead(NamedTuple):
    """What is known of a message before its bytes are read."""

    channel: int
    time_ns: int
    at: int  # of its opcode
    end: int  # 0: not known


class ChunkHead(NamedTuple):
    """What a chunk says of itself."""

    at: int  # of its opcode
    content: int  # where its records begin
    end: int
    start_ns: int  # none of its messages is earlier
    size: int  # bytes of its records when unpacked, as it claims
    compression: str


def earliest_ns(first_ns: int, last_ns: int) -> int:
    """Return a time that no message of a chunk is before, of what it says of itself.

    Its recorder compared unsigned times: of a chunk across 1970 nobody knows the first one.
    """
    return first_ns if first_ns <= last_ns else -(1 << 63)


def can_follow(head: bytes, left: int) -> bool:
    """Return whether a record of a chunk begins with `head`, `left` bytes before the chunk's end.

    Other records than these do not belong there; who meets one has to `walk`.
    """
    if len(head) < HEAD.size:
        return not left
    op, length = HEAD.unpack(head)
    return op in (SCHEMA, CHANNEL, MESSAGE) and SMALLEST[op] <= length <= left - HEAD.size


class Schema(NamedTuple):
    """A message type."""

    name: str
    encoding: str
    text: str


class Channel(NamedTuple):
    """A topic as one publisher fills it."""

    schema: int
    topic: str
    encoding: str


class Definitions(NamedTuple):
    """Every schema and channel met so far, by id; of one id the first counts."""

    schemas: dict[int, Schema]
    channels: dict[int, Channel]

    def add(self, op: int, body: bytes) -> None:
        """Keep the SCHEMA or CHANNEL of this body; a damaged one is left out."""
        if not texts_fit(op, body):
            return
        (number,) = unpack_from("<H", body)
        try:
            if op == SCHEMA and number not in self.schemas:
                name, at = _text(body, 2)
                encoding, at = _text(body, at)
                text, _ = _text(body, at)
                self.schemas[number] = Schema(name, encoding, text)
            elif op == CHANNEL and number not in self.channels:
                (schema,) = unpack_from("<H", body, 2)
                topic, at = _text(body, 4)
                encoding, _ = _text(body, at)
                self.channels[number] = Channel(schema, topic, encoding)
        except UnicodeDecodeError:
            return


# Opcode -> where the texts of its body begin, and how many there are up to its end.
_TEXTS = {HEADER: (0, 2), SCHEMA: (2, 3), CHANNEL: (4, 3)}  # a map counts as a text


def texts_fit(op: int, body: bytes) -> bool:
    """Return whether the lengths within a HEADER, SCHEMA or CHANNEL add up to its own."""
    at, count = _TEXTS[op]
    try:
        for _ in range(count):
            at += 4 + unpack_from("<I", body, at)[0]
    except error:
        return False
    return at == len(body)


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = at + 4 + unpack_from("<I", body, at)[0]
    return body[at + 4 : end].decode(), end
