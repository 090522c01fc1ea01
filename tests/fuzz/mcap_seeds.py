"""Small .mcap files of every flavor, written by rosbags and by the mcap library."""

import io
import tempfile
from pathlib import Path

CAMERA, TEXT = "/camera", "/label"
T0 = 1_760_000_000_000_000_000
COUNT = 4  # camera messages of a seed; as many texts


def content(index):
    """Return the bytes of camera message `index`: of its own length, never twice the same."""
    flat = bytes([index % 200 + 1]) * (90 + 7 * (index % 40))  # as sky and walls are
    return b"\0\1\0\0" + index.to_bytes(4, "big") + flat + b"end"


def text(index):
    return b"\0\1\0\0" + index.to_bytes(4, "big") + b"\xa0" * (5 + index % 9)


def seeds():
    """Return name -> bytes."""
    made = {f"rosbags {mode}": by_rosbags(mode) for mode in ("none", "storage", "message")}
    for compression in ("NONE", "ZSTD", "LZ4"):
        made[f"mcap {compression} crc"] = by_mcap(compression)
    made["mcap no crc"] = by_mcap("NONE", enable_crcs=False, enable_data_crcs=False)
    made["mcap zstd no crc"] = by_mcap("ZSTD", enable_crcs=False)
    made["mcap no chunks"] = by_mcap("NONE", use_chunking=False)
    made["mcap no chunks, no summary"] = by_mcap("NONE", use_chunking=False, **NO_SUMMARY)
    made["mcap no summary"] = by_mcap("NONE", enable_crcs=False, **NO_SUMMARY)
    made["mcap lz4 no summary"] = by_mcap("LZ4", enable_crcs=False, **NO_SUMMARY)
    made["mcap no index"] = by_mcap("NONE", index=False)
    made["mcap zstd no index, no summary"] = by_mcap("ZSTD", index=False, **NO_SUMMARY)
    made["mcap no chunks, published at 0"] = by_mcap("NONE", times=at_zero, use_chunking=False)
    made["mcap no index, before 1970"] = by_mcap("NONE", times=before_1970, index=False)
    return made


NO_SUMMARY = {
    "use_statistics": False,
    "use_summary_offsets": False,
    "repeat_channels": False,
    "repeat_schemas": False,
}


def evenly(index):
    """Return the log time and the publish time of camera message `index`."""
    return T0 + index * 10**9, T0 + index * 10**9


def at_zero(index):
    return T0 + index * 10**9, 0


def before_1970(index):
    return (index - 2) * 10**9, T0


def by_mcap(
    compression,
    *,
    index=True,
    camera=content,
    count=COUNT,
    chunk_size=400,
    times=evenly,
    **options,
):
    """Return a file of the mcap library; `camera` makes its messages, `options` go on."""
    from mcap.writer import CompressionType, IndexType, Writer

    kinds = IndexType.ALL if index else IndexType.NONE
    if index and "use_statistics" in options:
        kinds = IndexType.MESSAGE
    stream = io.BytesIO()
    writer = Writer(
        stream,
        chunk_size=chunk_size,
        compression=CompressionType[compression],
        index_types=kinds,
        **options,
    )
    writer.start(profile="ros2", library="test")
    image = writer.register_schema("sensor_msgs/msg/CompressedImage", "ros2msg", b"uint8[] data")
    string = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
    pictures = writer.register_channel(CAMERA, "cdr", image)
    label = writer.register_channel(TEXT, "cdr", string)
    for i in range(count):
        at, published = times(i)
        writer.add_message(pictures, at % 2**64, camera(i), published, i)
        writer.add_message(label, (at + 10**8) % 2**64, text(i), published, i)
    writer.finish()
    return stream.getvalue()


def by_rosbags(mode):
    """Return the storage file of a rosbags bag; mode none, storage or message."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder) / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
        if mode != "none":
            writer.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
        with writer:
            kinds = {"camera": "sensor_msgs/msg/CompressedImage", "label": "std_msgs/msg/String"}
            camera = writer.add_connection(CAMERA, kinds["camera"], typestore=store)
            label = writer.add_connection(TEXT, kinds["label"], typestore=store)
            for i in range(COUNT):
                writer.write(camera, T0 + i * 10**9, content(i))
                writer.write(label, T0 + i * 10**9 + 10**8, text(i))
        (file,) = (Path(folder) / "bag").glob("*.mcap")
        return file.read_bytes()
