"""One storage file of a bag: the seam that .mcap, .db3 and .bag files are read through.

A storage file hands out its messages lazily: the index says which there are and when they were
recorded, and only `load` touches the bytes. What is thinned out by time therefore costs nothing.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from fleet_model.files.damage import DamageLog

# suffix -> "module:attribute", a StorageFile built as `kind(path)`
STORAGE_FILES = {
    ".mcap": "edge_agent.data.storage.mcap.file:McapFile",
    ".db3": "edge_agent.data.storage.db3.file:Db3File",
    ".bag": "edge_agent.data.storage.ros1.file:Ros1File",
}


class Topic(NamedTuple):
    """One topic as a storage file declares it."""

    name: str
    type: str  # without "/msg/": "sensor_msgs/Image"
    encoding: str  # "cdr", or "ros1" for ROS 1 serialization
    definition: str  # the message definition as text (.msg, with dependencies); "" is unknown
    messages: int  # by the file's own index; 0 where it has none


class Stored(NamedTuple):
    """One message that was not yet read."""

    bag_ns: int  # when the recorder received it
    topic: Topic
    # The serialized message, decompressed (also where each message was compressed by itself).
    # Raises FrameError (with `reason`) where these bytes are damaged. What it returns is the
    # caller's to keep.
    load: Callable[[], bytes | memoryview]


class StorageFile(Protocol):
    """An open file; a context manager that closes it. Raises FrameError if nothing can be read."""

    path: Path

    def topics(self) -> Sequence[Topic]:
        """Return every topic the file declares."""
        ...

    def messages(self, topics: Collection[str], damage: DamageLog) -> Iterator[Stored]:
        """Yield the messages of topics (by name) in the order of their times.

        Never raises for damage: what is unreadable is added to `damage`, whatever lies behind it is
        still yielded. A message whose place is known but whose bytes are damaged is yielded, and
        its `load` raises; it is not added to `damage`.
        """
        ...

    def __enter__(self) -> "StorageFile": ...

    def __exit__(self, *_: object) -> None: ...
