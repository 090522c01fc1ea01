"""A message on its way from a topic into a bag: its own bytes, never decoded."""

import struct
from dataclasses import dataclass, field

from fleet_model.types import NS_PER_S

# So late may a message arrive, or a trigger come, after what it is about. A header stamp that is
# further from the time of arrival is of another clock.
LATE_NS = 2 * NS_PER_S
OVERHEAD_BYTES = 512  # what Python's objects around a message take, rounded up
_STAMPS = (struct.Struct(">iI"), struct.Struct("<iI"))  # by the byte order that CDR declares


@dataclass(slots=True, eq=False)
class Message:
    """One message of a frame topic or a label topic."""

    topic: str
    data: bytes = field(repr=False)  # serialized (CDR), as the middleware has delivered it
    arrived_ns: int  # by this node's clock: the time in the bag
    moment_ns: int  # when it happened, see `moment_of`
    is_frame: bool
    kept: bool = False  # it is in a bag, or on its way there: never a second time

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return len(self.data) + OVERHEAD_BYTES


def stamp_of(data: bytes) -> int:
    """Return the stamp of a serialized message that begins with a header, in ns.

    0 where it is not set, or where the message is too short to have one.
    """
    if len(data) < 12:
        return 0
    seconds, nanoseconds = _STAMPS[data[1] & 1].unpack_from(data, 4)
    return int(seconds) * NS_PER_S + int(nanoseconds)


def moment_of(stamp_ns: int, arrived_ns: int) -> int:
    """Return when something happened: its stamp, unless that is of another clock or not set."""
    return stamp_ns if abs(arrived_ns - stamp_ns) <= LATE_NS else arrived_ns
