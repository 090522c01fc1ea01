"""One arm of benchmarks.extract in a process of its own: ARM TASK BAG OUT, or write KIND BAG N.

The peers' code is what their documentation shows, with OpenCV for the pictures.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

TOPIC = "/camera/image"
JPEG, RAW = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"
HEIGHT, WIDTH, SIDE, BATCH = 480, 640, 224, 32
START_NS, PERIOD_NS = 1_760_000_000 * 10**9, 33_333_333
MODULES = {
    "ours": (
        "edge_agent.data.ahead",
        "edge_agent.data.extraction.extract",
        "edge_agent.data.frames.bag",
        "edge_agent.data.storage.db3.file",
        "edge_agent.data.storage.mcap.file",
        "edge_agent.training.trainer",
        "fleet_model.workloads.image_classifier",
        "numpy.ma",  # NumPy's own, at the first np.unique
    ),
    "rosbags": ("rosbags.highlevel",),
    "mcap": ("mcap.reader", "mcap_ros2.decoder"),
}
TASKS = ("jpeg_passthrough", "raw_mcap_1_in_5", "raw_db3_1_in_5", "decode_batch")


# What every arm is handed: the bag, and an empty folder to write to.
def _ours_passthrough(bag: Path, out: Path) -> int:
    from edge_agent.data.extraction.extract import ExtractOptions, extract

    return extract(ExtractOptions(paths=(bag,), out=out)).frames_written


def _ours_one_in_five(bag: Path, out: Path) -> int:
    from edge_agent.data.frames.bag import BagFrames
    from fleet_model.files.damage import DamageLog

    entries = islice(BagFrames(bag).entries(DamageLog()), 0, None, 5)
    return sum(_touch(entry.load().pixels()) for entry in entries)


def _ours_batches(bag: Path, out: Path) -> int:
    from edge_agent.data.ahead import map_ahead
    from edge_agent.data.frames.bag import BagFrames
    from edge_agent.training.trainer import ENCODERS, WINDOW
    from fleet_model.files.damage import DamageLog
    from fleet_model.workloads.image_classifier import ImageClassifier

    workload = ImageClassifier(labels=("a", "b"), image_size=SIDE)
    frames = (entry.load() for entry in BagFrames(bag).entries(DamageLog()))
    return _batches(
        row.inputs["image"] for row in map_ahead(workload.encode, frames, ENCODERS, WINDOW)
    )


def _rosbags_passthrough(bag: Path, out: Path) -> int:
    out.mkdir()
    count = 0
    for message in _rosbags_messages(bag):
        stamp = message.header.stamp
        picture = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
        cv2.imwrite(f"{out}/{stamp.sec}_{stamp.nanosec:09d}.jpg", picture)
        count += 1
    return count


def _rosbags_one_in_five(bag: Path, out: Path) -> int:
    pictures = (m.data.reshape(m.height, m.width, 3) for m in _rosbags_messages(bag, every=5))
    return sum(map(_touch, pictures))


def _rosbags_batches(bag: Path, out: Path) -> int:
    return _batches(_input(message.data) for message in _rosbags_messages(bag))


def _mcap_passthrough(bag: Path, out: Path) -> int:
    out.mkdir()
    count = 0
    for message in _mcap_messages(bag):
        stamp = message.header.stamp
        data = np.frombuffer(message.data, np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        cv2.imwrite(f"{out}/{stamp.sec}_{stamp.nanosec:09d}.jpg", picture)
        count += 1
    return count


def _mcap_one_in_five(bag: Path, out: Path) -> int:
    messages = _mcap_messages(bag, every=5)
    shaped = (np.frombuffer(m.data, np.uint8).reshape(m.height, m.width, 3) for m in messages)
    return sum(map(_touch, shaped))


def _mcap_batches(bag: Path, out: Path) -> int:
    messages = _mcap_messages(bag)
    return _batches(_input(np.frombuffer(message.data, np.uint8)) for message in messages)


def limit_all(bag: Path, out: Path) -> int:
    """Read the bytes of the bag."""
    return _read(bag, every=1)


def limit_one_in_five(bag: Path, out: Path) -> int:
    """Read a fifth of the bytes of the bag, in pieces of one frame."""
    return _read(bag, every=5)


ARMS: dict[str, dict[str, Callable[[Path, Path], int]]] = {
    "ours": dict(
        zip(
            TASKS,
            (_ours_passthrough, _ours_one_in_five, _ours_one_in_five, _ours_batches),
            strict=True,
        )
    ),
    "rosbags": dict(
        zip(
            TASKS,
            (_rosbags_passthrough, _rosbags_one_in_five, _rosbags_one_in_five, _rosbags_batches),
            strict=True,
        )
    ),
    "mcap": {
        "jpeg_passthrough": _mcap_passthrough,
        "raw_mcap_1_in_5": _mcap_one_in_five,
        "decode_batch": _mcap_batches,
    },
    "limit": dict(
        zip(TASKS, (limit_all, limit_one_in_five, limit_one_in_five, limit_all), strict=True)
    ),
}


def _rosbags_messages(bag: Path, every: int = 1) -> Iterator[Any]:
    from rosbags.highlevel import AnyReader

    with AnyReader([bag]) as reader:
        wanted = [c for c in reader.connections if c.topic == TOPIC]
        for number, (connection, _, raw) in enumerate(reader.messages(connections=wanted)):
            if number % every == 0:
                yield reader.deserialize(raw, connection.msgtype)


def _mcap_messages(bag: Path, every: int = 1) -> Iterator[Any]:
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    with next(bag.glob("*.mcap")).open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        messages = reader.iter_decoded_messages(topics=[TOPIC])
        for number, (_, _, _, decoded) in enumerate(messages):
            if number % every == 0:
                yield decoded


def _input(jpeg: Any) -> Any:
    """Return what a classifier takes: decoded, the centre square, scaled."""
    picture = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    left = (picture.shape[1] - picture.shape[0]) // 2
    square = picture[:, left : left + picture.shape[0]]
    return cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _batches(rows: Iterator[Any]) -> int:
    """Stack rows to batches; return how many rows there were."""
    count = 0
    while batch := list(islice(rows, BATCH)):
        stacked = np.stack(batch)  # (rows, SIDE, SIDE, 3) float32
        assert (stacked.shape[1:], stacked.dtype) == ((SIDE, SIDE, 3), np.float32)
        count += len(stacked)
    return count


def _touch(picture: Any) -> int:
    """Look at some pixels of the whole picture; count it."""
    assert picture.shape == (HEIGHT, WIDTH, 3)
    return int(picture[::16, ::64].sum() >= 0)


def _read(bag: Path, every: int) -> int:
    piece, count = HEIGHT * WIDTH * 3, 0
    buffer = bytearray(piece)
    for file in sorted(bag.glob("*.mcap")) + sorted(bag.glob("*.db3")):
        descriptor = os.open(file, os.O_RDONLY)
        for offset in range(0, os.fstat(descriptor).st_size, piece * every):
            count += os.preadv(descriptor, [buffer], offset)
        os.close(descriptor)
    return count


def write(kind: str, bag: Path, count: int) -> None:
    """Write a bag of 30 different noisy pictures in turn; a JPEG has about 50 kB."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    storage = (
        StoragePlugin.MCAP if bag.name.endswith(("_mcap", "_large")) else StoragePlugin.SQLITE3
    )
    time_type, header = (
        store.types["builtin_interfaces/msg/Time"],
        store.types["std_msgs/msg/Header"],
    )
    pictures = [_picture(number) for number in range(30)]
    jpegs = [cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].ravel() for p in pictures]
    bag.parent.mkdir(parents=True, exist_ok=True)
    with Writer(bag, version=9, storage_plugin=storage) as writer:
        connection = writer.add_connection(TOPIC, kind, typestore=store)
        for number in range(count):
            stamp_ns = START_NS + number * PERIOD_NS
            head = header(time_type(*divmod(stamp_ns, 10**9)), "camera")
            picture = pictures[number % 30]
            message = (
                store.types[kind](head, "jpeg", jpegs[number % 30])
                if kind == JPEG
                else store.types[kind](
                    head, HEIGHT, WIDTH, "rgb8", 0, WIDTH * 3, picture.reshape(-1)
                )
            )
            writer.write(connection, stamp_ns + 5_000_000, store.serialize_cdr(message, kind))


def _picture(number: int) -> Any:
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (24, 32, 3), np.uint8)
    smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return cv2.add(smooth, random.integers(0, 19, smooth.shape, np.uint8))


def main(argv: list[str]) -> None:
    """Run one arm; print seconds, frames and the peak of resident memory in MB (1e6)."""
    if argv[0] == "write":
        write(argv[1], Path(argv[2]), int(argv[3]))
        print("{}")
        return
    arm, bag, out = ARMS[argv[0]][argv[1]], Path(argv[2]), Path(argv[3])
    if "large" not in bag.name:
        _read(bag, every=1)  # warms the disk cache
    _import(argv[0])
    start = time.perf_counter()
    count = arm(bag, out)
    seconds = time.perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "frames": count, "peak_mb": peak_mb}))


def _import(arm: str) -> None:
    """Import what the arm imports, so that only its work is timed."""
    for module in MODULES.get(arm, ()):
        import_module(module)


if __name__ == "__main__":
    main(sys.argv[1:])
