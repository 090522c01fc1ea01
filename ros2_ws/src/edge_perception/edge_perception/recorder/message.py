"""A message on its way from a topic into a bag: its own bytes, never decoded."""

from dataclasses import dataclass, field

from edge_agent.data.frames.cdr import parse_header
from fleet_model.errors import FrameError
from fleet_model.types import NS_PER_S

# So late may a message arrive, or a trigger come, after what it is about. A header stamp that is
# further from the time of arrival is of another clock.
LATE_NS = 2 * NS_PER_S
OVERHEAD_BYTES = 512  # what Python's objects around a message take, rounded up


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
    try:
        return parse_header(data)[0]
    except FrameError:
        return 0


def moment_of(stamp_ns: int, arrived_ns: int) -> int:
    """Return when something happened: its stamp, unless that is of another clock or not set."""
    return stamp_ns if abs(arrived_ns - stamp_ns) <= LATE_NS else arrived_ns
