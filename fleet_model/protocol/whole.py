"""A message or a reply with all its objects in one body.

Flower moves every object of a message by a request of its own, about nine for a head and as many
back: each costs the server more than the object. Small ones therefore travel whole, large ones as
Flower moves them. The first part is Flower's own description, the others are the objects, in any
order: an object's name is the hash of its content.
"""

import struct
from collections.abc import Iterable, Sequence

MAX_WHOLE_BYTES = 512 << 10  # of a message; models beyond it travel in pieces that can be continued
# Of a reply: what a server reads before it has checked a signature.
MAX_WHOLE_REPLY_BYTES = 64 << 10
# Of both, where the other side says that it takes so much: adapters are many small tensors, two
# objects each. Those of two layers, 1.1 MB, took 1.8 s each way in pieces.
MOST_WHOLE_BYTES = 2 << 20
MOST_PARAMETER = "most"  # of the query by which a robot asks for a message: bytes that it takes
MAX_PARTS = 4096
_LENGTH = struct.Struct(">I")


def join(parts: Iterable[bytes]) -> bytes:
    """Return the body of some parts."""
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))


def split(body: bytes) -> Sequence[bytes]:
    """Return the parts of a body, at least one; raises ValueError if it is none."""
    parts, place = list[bytes](), 0
    while place < len(body):
        start = place + _LENGTH.size
        if start > len(body) or len(parts) == MAX_PARTS:
            raise ValueError("not a whole message")
        place = start + _LENGTH.unpack_from(body, start - _LENGTH.size)[0]
        parts.append(body[start:place])
    if not parts or place != len(body):
        raise ValueError("not a whole message")
    return parts
