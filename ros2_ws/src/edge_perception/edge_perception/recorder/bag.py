"""Write one bag of rosbag2 (mcap) such that a kill at any moment costs at most one message.

    spool/.NAME.part/NAME_0.mcap.open     while it is written: hidden from readers, locked
    spool/.NAME.part/NAME_0.mcap          whole: with its summary, on disk
    spool/.NAME.part/metadata.yaml        as rosbag2 writes it
    spool/NAME                            the bag

Every message is a chunk of its own, with its own CRC: it is in the file when `add` returns, and a
damaged byte costs one frame. A kill leaves the first of these steps; `recovery.py` does the rest.
"""

import fcntl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import yaml
from edge_perception.recorder.message import Message
from mcap.writer import CompressionType, Writer

from fleet_model.durable import name_durably, rename_durably, write_durably

HIDDEN, PART, OPEN = ".", ".part", ".open"
MCAP = "_0.mcap"
METADATA = "metadata.yaml"
_QOS = ""  # of a player: the defaults


class TopicType(NamedTuple):
    """What is recorded of a topic."""

    type: str  # "sensor_msgs/msg/CompressedImage"
    definition: str  # see definitions.py; "" is not known


class BagFiles(NamedTuple):
    """Where the parts of one bag are."""

    spool: Path
    name: str

    @property
    def folder(self) -> Path:
        """While it is written."""
        return self.spool / f"{HIDDEN}{self.name}{PART}"

    @property
    def open(self) -> Path:
        """What is written to."""
        return self.folder / f"{self.name}{MCAP}{OPEN}"

    @property
    def whole(self) -> Path:
        """What has a summary."""
        return self.folder / f"{self.name}{MCAP}"


class BagWriter:
    """One bag, from its first message to `close`. For one thread."""

    def __init__(self, files: BagFiles, topics: Mapping[str, TopicType]) -> None:
        """Begin a bag that declares all `topics`, also those of which nothing comes.

        A topic that is added to `topics` later is declared with its first message.

        Raises:
            OSError: the disk is full, or the spool cannot be written.
        """
        self.files = files
        files.folder.mkdir()  # it is renamed at the end: this name need not last
        self._stream = files.open.open("xb")
        fcntl.flock(
            self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # for as long as this process lives
        self._mcap = McapFile(self._stream, topics)

    def add(self, message: Message) -> None:
        """Write one message; it survives a kill of this process when this returns.

        Raises:
            OSError: the disk is full or fails. What was added before can be recovered.
        """
        self._mcap.add(message.topic, message.data, message.arrived_ns, message.moment_ns)

    @property
    def size_bytes(self) -> int:
        """What it takes on disk when it is closed now, at most."""
        return self._stream.tell() + self._mcap.summary_bytes

    def close(self) -> Path:
        """Make it whole and give it its name, each step durable; return its folder.

        Raises:
            OSError: as `add`.
        """
        self._mcap.finish()
        name_durably(self.files.open, self.files.whole)
        finished = name_bag(self.files, self._mcap)
        self._stream.close()
        return finished

    def abandon(self) -> None:
        """Leave it as it is, for `recovery.py`."""
        with suppress(OSError):  # a full disk again: what is in the file can be recovered
            self._stream.close()


def name_bag(files: BagFiles, mcap: "McapFile") -> Path:
    """Give a bag whose `files.whole` is on disk its metadata and its place; return its folder."""
    write_durably(files.folder / METADATA, mcap.metadata_yaml(files.whole.name))
    finished = files.spool / files.name
    rename_durably(files.folder, finished)
    return finished


class McapFile:
    """An .mcap as rosbag2 writes it, and what metadata.yaml says of it."""

    def __init__(self, stream: BinaryIO, topics: Mapping[str, TopicType]) -> None:
        self._stream = stream
        # Pictures are compressed already. A chunk of size 0 ends with its first message.
        self._writer = Writer(stream, chunk_size=0, compression=CompressionType.NONE)
        self._writer.start(profile="ros2", library="fleetlearn")
        self._topics, self._channels = topics, dict[str, int]()
        self.counts = dict[str, int]()
        for topic in list(topics):  # another thread may add one
            self._declare(topic)
        self._first_ns = self._last_ns = 0

    def add(self, topic: str, data: bytes, log_ns: int, publish_ns: int) -> None:
        """Write one message, through to the operating system."""
        if topic not in self._channels:  # its type was not known when the bag began
            self._declare(topic)
        if not any(self.counts.values()):
            self._first_ns = self._last_ns = log_ns
        self._first_ns, self._last_ns = min(log_ns, self._first_ns), max(log_ns, self._last_ns)
        self._writer.add_message(
            self._channels[topic], log_ns, data, publish_ns, sequence=self.counts[topic]
        )
        self._stream.flush()
        self.counts[topic] += 1

    def _declare(self, topic: str) -> None:
        type_ = self._topics[topic]
        encoding = "ros2msg" if type_.definition else ""
        schema = self._writer.register_schema(type_.type, encoding, type_.definition.encode())
        qos = {"offered_qos_profiles": _QOS}
        self._channels[topic] = self._writer.register_channel(topic, "cdr", schema, qos)
        self.counts[topic] = 0

    @property
    def summary_bytes(self) -> int:
        """What the summary and metadata.yaml take, at most."""
        definitions = sum(1000 + len(self._topics[topic].definition) for topic in self.counts)
        return definitions + 1000 + 120 * sum(self.counts.values())

    def finish(self) -> None:
        """Write the summary."""
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._stream.flush()

    def metadata_yaml(self, file: str) -> str:
        """Return the metadata.yaml of a bag of this one file: version 5, which all read."""
        total = sum(self.counts.values())
        span: dict[str, Any] = {
            "duration": {"nanoseconds": self._last_ns - self._first_ns},
            "starting_time": {"nanoseconds_since_epoch": self._first_ns},
            "message_count": total,
        }
        information = {
            "version": 5,
            "storage_identifier": "mcap",
            "relative_file_paths": [file],
            **span,
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": topic,
                        "type": self._topics[topic].type,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": _QOS,
                    },
                    "message_count": count,
                }
                for topic, count in self.counts.items()
            ],
            "compression_format": "",
            "compression_mode": "",
            "files": [{"path": file, **span}],
        }
        text: str = yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False)
        return text
