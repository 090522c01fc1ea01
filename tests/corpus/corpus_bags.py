"""Bags of every storage and compression that robots record, of messages that are given.

Written by rosbags, by the `mcap` library and, for the layout of ROS 2 Humble, by sqlite3 itself.
"""

import shutil
import sqlite3
from typing import Any, NamedTuple

START_NS = 1_760_000_000_000_000_000
PERIOD_NS = 100_000_000
CAMERA, CHATTER = "/camera/image", "/chatter"
SLOW_NS = 4_000_000  # from the camera's stamp to the recorder


class Record(NamedTuple):
    """One message of a bag."""

    topic: str
    bag_ns: int
    type: str  # "sensor_msgs/msg/Image"
    make: Any  # called with a typestore and "header of its ROS version" builder


def evenly(index):
    """Return the bag time of picture `index`."""
    return START_NS + index * PERIOD_NS


def camera_records(messages, stamps=None, clock=evenly):
    """Return what a recorder sees of a camera: `stamps` are the header's, by default all set."""
    records = []
    for index, message in enumerate(messages):
        bag_ns = clock(index)
        stamp_ns = evenly(index) - SLOW_NS if stamps is None else stamps[index]
        records.append(_camera(message, bag_ns, stamp_ns))
        records.append(_chatter(index, bag_ns + 1))
    return records


def _camera(message, bag_ns, stamp_ns):
    name = f"sensor_msgs/msg/{message.type}"

    def make(store, is_ros1):
        time = store.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
        head = (time, "camera_optical_frame")
        header = store.types["std_msgs/msg/Header"](*((0, *head) if is_ros1 else head))
        return store.types[name](header, *message.fields)

    return Record(CAMERA, bag_ns, name, make)


def _chatter(index, bag_ns):
    name = "std_msgs/msg/String"
    return Record(CHATTER, bag_ns, name, lambda store, _: store.types[name](f"hello {index}"))


def ros2_store():
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


def serialized(record, store, bigendian=False):
    """Return the bytes as ROS 2 stores them."""
    message = record.make(store, False)
    return bytes(store.serialize_cdr(message, record.type, little_endian=not bigendian))


def rosbags2(plugin, mode=None, bigendian=False, short_types=False):
    """Return a writer of a rosbag2 folder."""

    def write(folder, records):
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        store = ros2_store()
        writer = Writer(folder, version=9, storage_plugin=StoragePlugin[plugin])
        if mode:
            writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
        with writer:
            connections = {}
            for record in records:
                if record.topic not in connections:
                    definition, _ = store.generate_msgdef(record.type, ros_version=2)
                    name = record.type.replace("/msg/", "/") if short_types else record.type
                    connections[record.topic] = writer.add_connection(
                        record.topic,
                        name,
                        msgdef=definition,
                        rihs01=store.hash_rihs01(record.type),
                    )
                content = serialized(record, store, bigendian)
                writer.write(connections[record.topic], record.bag_ns, content)
        return folder

    return write


def mcap_library(compression="NONE", per_chunk=None, publish=None, **options):
    """Return a writer of a bare .mcap file; `per_chunk` records go into each chunk.

    `publish` makes the publish time of a bag time, by default the same.
    """

    def write(folder, records):
        from mcap.writer import CompressionType, Writer

        store = ros2_store()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{folder.name}.mcap"
        with path.open("wb") as stream:
            writer = Writer(
                stream, chunk_size=2**30, compression=CompressionType[compression], **options
            )
            writer.start(profile="ros2", library="corpus")
            channels = {}
            for number, record in enumerate(records):
                if record.topic not in channels:
                    definition, _ = store.generate_msgdef(record.type, ros_version=2)
                    schema = writer.register_schema(record.type, "ros2msg", definition.encode())
                    channels[record.topic] = writer.register_channel(record.topic, "cdr", schema)
                content = serialized(record, store)
                log_ns = record.bag_ns % 2**64  # what lies before 1970 is stored so
                publish_ns = log_ns if publish is None else publish(record.bag_ns)
                writer.add_message(channels[record.topic], log_ns, content, publish_ns)
                if per_chunk and number % per_chunk == per_chunk - 1:
                    writer._Writer__finalize_chunk()  # it has no other way to end one
            writer.finish()
        return path

    return write


HUMBLE = (
    "id INTEGER PRIMARY KEY,topic_id INTEGER NOT NULL,timestamp INTEGER NOT NULL,data BLOB NOT NULL"
)


def sqlite_db3(columns=HUMBLE, more=""):
    """Return a writer of a .db3 without message definitions; `more` SQL comes after the messages.

    By default it is what ROS 2 Humble and older have.
    """

    def write(folder, records):
        store = ros2_store()
        folder.mkdir(parents=True)
        path = folder / f"{folder.name}.db3"
        with sqlite3.connect(path) as connection:
            connection.executescript(
                "CREATE TABLE topics(id INTEGER PRIMARY KEY,name TEXT NOT NULL,type TEXT NOT NULL,"
                "serialization_format TEXT NOT NULL,offered_qos_profiles TEXT NOT NULL);"
                f"CREATE TABLE messages({columns});"
                "CREATE INDEX timestamp_idx ON messages (timestamp ASC);"
            )
            ids = {}
            for record in records:
                if record.topic not in ids:
                    ids[record.topic] = len(ids) + 1
                    row = (ids[record.topic], record.topic, record.type, "cdr", "")
                    connection.execute("INSERT INTO topics VALUES (?,?,?,?,?)", row)
                row = (ids[record.topic], record.bag_ns, serialized(record, store))
                insert = "INSERT INTO messages(topic_id,timestamp,data) VALUES (?,?,?)"
                connection.execute(insert, row)
            connection.executescript(more)
        connection.close()
        return path

    return write


def in_capitals(write_bag):
    """Return a writer of a storage file whose name is in capitals."""

    def write(folder, records):
        path = write_bag(folder, records)
        return path.rename(path.with_name(path.name.upper()))

    return write


def ros1(compression=None, chunk_bytes=None, publishers=1):
    """Return a writer of a ROS 1 bag; each topic has `publishers`, in turn."""

    def write(folder, records):
        from rosbags.rosbag1 import Writer
        from rosbags.typesys import Stores, get_typestore

        store = get_typestore(Stores.ROS1_NOETIC)
        folder.mkdir(parents=True)
        writer = Writer(folder / f"{folder.name}.bag")
        if compression:
            writer.set_compression(Writer.CompressionFormat[compression])
        if chunk_bytes:
            writer.chunk_threshold = chunk_bytes
        with writer:
            connections = {}
            for number, record in enumerate(records):
                key = record.topic, f"/driver_{number // 2 % publishers}"
                if key not in connections:
                    connections[key] = writer.add_connection(
                        record.topic, record.type, typestore=store, callerid=key[1]
                    )
                message = record.make(store, True)
                content = store.serialize_ros1(message, record.type)
                writer.write(connections[key], record.bag_ns, content)
        return folder / f"{folder.name}.bag"

    return write


def split(write_part, first=9):
    """Return a writer of a bag of three files, whose names sort by number only: 9, 10, 11."""

    def write(folder, records):
        folder.mkdir(parents=True)
        third = -(-len(records) // 6) * 2  # a camera record and the chatter behind it
        listed = []
        for number, begin in enumerate(range(0, len(records), third), first):
            part = write_part(folder / f"part_{number}", records[begin : begin + third])
            (file,) = storage_files(part)
            listed.append(f"{folder.name}_{number}{''.join(file.suffixes)}")
            file.rename(folder / listed[-1])
            shutil.rmtree(folder / f"part_{number}")
        lines = ["rosbag2_bagfile_information:", "  version: 9", "  relative_file_paths:"]
        lines += [f"    - {name}" for name in listed]
        (folder / "metadata.yaml").write_text("\n".join(lines) + "\n")
        return folder

    return write


def without_metadata(write_bag):
    """Return a writer of a folder as a power loss leaves it."""

    def write(folder, records):
        path = write_bag(folder, records)
        (folder / "metadata.yaml").unlink()
        return path

    return write


def bare(write_bag):
    """Return a writer of the storage file alone."""

    def write(folder, records):
        (file,) = storage_files(write_bag(folder, records))
        (folder / "metadata.yaml").unlink()
        return file

    return write


def storage_files(path):
    """Return the storage files of a bag, in the order of their numbers."""
    if path.is_file():
        return [path]
    files = [file for file in path.iterdir() if file.name != "metadata.yaml"]
    return sorted(files, key=lambda file: (len(file.name), file.name))


STORAGES = {
    "mcap": rosbags2("MCAP"),
    "mcap, zstd chunks": rosbags2("MCAP", "STORAGE"),
    "mcap, zstd messages": rosbags2("MCAP", "MESSAGE"),
    "mcap, zstd file": rosbags2("MCAP", "FILE"),
    "mcap, short type names": rosbags2("MCAP", short_types=True),
    "mcap, big-endian": rosbags2("MCAP", bigendian=True),
    "mcap, bare": bare(rosbags2("MCAP")),
    "mcap, bare zstd file": bare(rosbags2("MCAP", "FILE")),
    "mcap, without metadata": without_metadata(rosbags2("MCAP")),
    "mcap, split": split(rosbags2("MCAP")),
    "mcap library": mcap_library(),
    "mcap library, a message a chunk": mcap_library(per_chunk=1),
    "mcap library, zstd": mcap_library("ZSTD", per_chunk=4),
    "mcap library, lz4": mcap_library("LZ4", per_chunk=4),
    "mcap library, without chunks": mcap_library(use_chunking=False),
    "mcap library, without indexes": mcap_library(
        per_chunk=4, use_statistics=False, use_summary_offsets=False, repeat_channels=False
    ),
    "db3": rosbags2("SQLITE3"),
    "db3, zstd messages": rosbags2("SQLITE3", "MESSAGE"),
    "db3, zstd file": rosbags2("SQLITE3", "FILE"),
    "db3, short type names": rosbags2("SQLITE3", short_types=True),
    "db3, without metadata": without_metadata(rosbags2("SQLITE3")),
    "db3, bare": bare(rosbags2("SQLITE3")),
    "db3, split": split(rosbags2("SQLITE3")),
    "db3 of Humble": sqlite_db3(),
    "ROS 1": ros1(),
    "ROS 1, bz2": ros1("BZ2"),
    "ROS 1, lz4": ros1("LZ4"),
    "ROS 1, small chunks": ros1(chunk_bytes=2000),
    "ROS 1, small bz2 chunks": ros1("BZ2", 2000),
    "ROS 1, small lz4 chunks": ros1("LZ4", 2000),
    "db3 without ids": sqlite_db3("topic_id INTEGER,timestamp INTEGER,data BLOB"),
    "db3 with ids that are no row ids": sqlite_db3(
        "id INT,topic_id INT,timestamp INT,data,PRIMARY KEY (topic_id, timestamp)"
    ),
    "db3 with more columns": sqlite_db3(f"{HUMBLE},note TEXT,size INT DEFAULT 77"),
    "db3 with a column added later": sqlite_db3(more="ALTER TABLE messages ADD COLUMN note TEXT"),
    "db3 in another order": sqlite_db3("timestamp INT,note TEXT,topic_id INT,data BLOB"),
    "mcap, in capitals": in_capitals(bare(rosbags2("MCAP"))),
    "mcap, zstd file in capitals": in_capitals(bare(rosbags2("MCAP", "FILE"))),
    "db3, in capitals": in_capitals(bare(rosbags2("SQLITE3"))),
    "ROS 1, in capitals": in_capitals(ros1()),
}
