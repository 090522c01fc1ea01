"""Make bags of what a killed recorder has left unfinished."""

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edge_perception.recorder.bag import HIDDEN, PART, BagFiles, McapFile, TopicType, name_bag
from mcap.exceptions import McapError
from mcap.records import Channel, DataEnd, McapRecord, Message, MessageIndex, Schema
from mcap.stream_reader import StreamReader

from fleet_model.durable import remove_asides, writing

_ABANDONED_S = 60.0  # an empty folder that is younger may be one where a recorder begins


class Recovered(NamedTuple):
    """What became of one unfinished bag."""

    name: str
    messages: int  # in the bag now; 0: there is none, for nothing was in it
    lost_bytes: int  # behind the last whole message: at most one message, after a kill


def recover_bags(spool: Path) -> Iterator[Recovered]:
    """Finish the bags that nobody writes any more. May itself be killed at any moment.

    Raises:
        OSError: the disk is full or fails; what is left is done the next time.
    """
    for folder in sorted(spool.glob(f"{HIDDEN}*{PART}")):
        files = BagFiles(spool, folder.name[len(HIDDEN) : -len(PART)])
        with suppress(FileNotFoundError):  # another process was faster
            if any(folder.iterdir()):
                with _alone(files) as source:
                    yield _recover(files, source)
            elif time.time() - folder.stat().st_mtime > _ABANDONED_S:
                folder.rmdir()


@contextmanager
def _alone(files: BagFiles) -> Iterator[BinaryIO]:
    """Hold the lock of the bag's file; FileNotFoundError if its recorder lives, or it is gone."""
    path = files.open if files.open.exists() else files.whole
    with path.open("rb") as source:
        try:
            fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileNotFoundError(path) from None
        yield source


def _recover(files: BagFiles, source: BinaryIO) -> Recovered:
    remove_asides(files.folder)  # of a recovery that was killed
    size_bytes = source.seek(0, os.SEEK_END)
    topics: dict[int, str] = {}
    types: dict[str, TopicType] = {}
    for channel, type_ in _channels(source):
        topics[channel.id], types[channel.topic] = channel.topic, type_
    read_to = 0
    with writing(files.whole) as stream:
        mcap = McapFile(stream, types)
        for record, end in _readable(source):
            if isinstance(record, Message):
                mcap.add(
                    topics[record.channel_id], record.data, record.log_time, record.publish_time
                )
                read_to = end
            elif isinstance(record, MessageIndex):  # of the message before it
                read_to = end
            elif isinstance(record, DataEnd):  # nothing is lost with the summary
                read_to = size_bytes
        mcap.finish()
    files.open.unlink(missing_ok=True)
    messages = sum(mcap.counts.values())
    if messages:
        name_bag(files, mcap)
    else:
        files.whole.unlink()
        files.folder.rmdir()
    return Recovered(files.name, messages, size_bytes - read_to)


def _channels(source: BinaryIO) -> Iterator[tuple[Channel, TopicType]]:
    """Yield what the recorder has declared."""
    schemas: dict[int, Schema] = {}
    for record, _ in _readable(source):
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel):
            schema = schemas[record.schema_id]
            yield record, TopicType(schema.name, schema.data.decode())


def _readable(source: BinaryIO) -> Iterator[tuple[McapRecord, int]]:
    """Yield the records up to the first that is not whole, each with where its chunk ends."""
    limit_bytes = source.seek(0, os.SEEK_END)
    source.seek(0)
    reader = StreamReader(source, validate_crcs=True, record_size_limit=limit_bytes)
    # What follows a cut is no record; mcap has several ways to say so.
    with suppress(McapError, ValueError, KeyError, struct.error):
        for record in reader.records:
            yield record, source.tell()
