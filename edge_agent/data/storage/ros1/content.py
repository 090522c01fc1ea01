"""The content of one chunk of a ROS 1 bag, decompressed once: messages are taken out of it."""

from edge_agent.data.storage.compression import too_large_chunk
from edge_agent.data.storage.ros1.chunk import Chunk, Position, chunk_reader, is_beyond
from edge_agent.data.storage.ros1.records import MESSAGE, Read, Record, read_record
from edge_agent.data.storage.ros1.scan import Scan
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog


class Content:
    """What is in a chunk. Never raises before a message is asked for."""

    def __init__(self, read: Read, chunk: Chunk, name: str) -> None:
        """Decompress the chunk of the file that `read` reads; `name` is the file's, for people."""
        self.chunk = chunk
        self._where = f"{name} at byte {chunk.data}"
        self._offsets: dict[tuple[int, int], list[int]] | None = None
        self._failure: FrameError | None = None
        self._size = 0
        try:
            self._read, self._size = chunk_reader(read, chunk)
        except FrameError as error:
            self._failure = FrameError(f"{self._where}: {error}", error.reason)

    @property
    def held_bytes(self) -> int:
        """How much memory it takes."""
        return self._size if self.chunk.compression != b"none" else 0

    def message(self, position: Position) -> bytes:
        """Return the serialized message; raises FrameError."""
        if self._failure is not None:
            raise FrameError(str(self._failure), self._failure.reason)
        record = self._record(position, position.offset)
        if record is None:  # the index may be wrong, and the message all right
            elsewhere = self._find(position)
            record = self._record(position, elsewhere[0]) if len(elsewhere) == 1 else None
        if (record is None or record.end > self._size) and is_beyond(self.chunk, self._size):
            raise too_large_chunk(self._where, self.chunk.unpacked)
        if record is None:
            raise FrameError(f"{self._where}: not the message that the index says", "damaged file")
        if record.end > self._size:
            reason = "damaged file" if self.chunk.whole else "cut file"
            raise FrameError(f"{self._where}: a message reaches past the end", reason)
        data = self._read(record.data, record.end - record.data)
        if len(data) != record.end - record.data:
            raise FrameError(f"{self._where}: the file became shorter", "cut file")
        return data

    def _record(self, position: Position, offset: int) -> Record | None:
        """Return the record at `offset` if it is a message of the connection.

        Its time may differ: no two places of an index have the same offset, so then the time in the
        index is what is wrong.
        """
        try:
            record = read_record(self._read, offset)
        except FrameError:
            return None
        if record.op != MESSAGE or record.number(b"conn") != position.connection:
            return None
        return record

    def _find(self, position: Position) -> list[int]:
        """Return where else messages of this connection and time are, at most a few."""
        if self._offsets is None:
            self._offsets = {}
            scan = Scan(self._read, "", DamageLog())
            scan.take(Chunk(0, self._size, b"none"))
            for i in range(0, len(scan.positions), 4):
                _, stamp_ns, connection, offset = scan.positions[i : i + 4]
                self._offsets.setdefault((stamp_ns, connection), []).append(offset)
        return self._offsets.get((position.stamp_ns, position.connection), [])
