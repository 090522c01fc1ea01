"""Feed damaged camera messages to frame_of, decode and pixels: a picture of the right size, or a
FrameError, within two seconds; anything else ends the run.

    python tests/fuzz/fuzz_messages.py --inputs 1000000 --seed 1

Every input depends on the seed and its number alone, so a failure is repeated with --first NUMBER
--inputs 1. The last line on stdout is JSON: inputs, seconds, outcomes by reason.
"""

import argparse
import faulthandler
import gzip
import json
import os
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TextIO

import cv2
import numpy as np
from rosbags.typesys import Stores, get_typestore

from edge_agent.data.frames.message import frame_of
from edge_agent.data.pictures.raw import ENCODINGS
from edge_agent.data.storage import Topic
from edge_agent.data.storage.compression import zstd_module
from fleet_model.errors import FrameError
from fleet_model.pictures.image_file import image_frame
from fleet_model.pictures.tiff import write_tiff
from fleet_model.types import Frame

PATIENCE_S = 2.0
WATCH_EVERY = 2000  # inputs between two alarms against a hang in compiled code
HANGS_AFTER_S = 120
IMAGE, FILE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
TELLING = (0, 1, 2, 3, 4, 7, 8, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
PNG = b"\x89PNG\r\n\x1a\n"
TYPES = tuple(map(np.dtype, ("u1", "i1", "u2", "i2", "i4", "f4", "f8")))


class Message(NamedTuple):
    """A serialized message and what the bag says about it."""

    content: bytes
    topic: Topic
    payload_at: int = 0  # where the bytes of the picture begin, behind their length
    order: str = "<"  # of that length


def main() -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    log = _silence_compiled_code()
    messages = real_messages()
    outcomes: Counter[str] = Counter()
    begin = time.perf_counter()
    for number in range(arguments.first, arguments.first + arguments.inputs):
        if number % WATCH_EVERY == 0:
            faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True, file=log)
        message = damaged(messages, Random(arguments.seed << 40 | number))
        started = time.process_time()
        try:
            outcome = read(message)
        except Exception as error:
            print(f"input {number} of seed {arguments.seed}: {error!r}", file=log, flush=True)
            raise
        outcomes[outcome] += 1
        if time.process_time() - started > PATIENCE_S:
            print(f"input {number} of seed {arguments.seed}: too slow, {outcome}", file=log)
            return 1
    faulthandler.cancel_dump_traceback_later()
    seconds = round(time.perf_counter() - begin, 3)
    result = {"inputs": arguments.inputs, "seconds": seconds, "outcomes": dict(outcomes)}
    sys.stdout.write(f"{json.dumps(result)}\n")
    return 0


def read(message: Message) -> str:
    """Return how far a message gets: "decoded", or the stage and the reason where it ends."""
    try:
        frame = frame_of(message.content, message.topic, "bag", 1)
    except FrameError as error:
        return f"frame: {error.reason}"
    outcome = "decoded"
    _read_as_photo(frame)
    try:
        pixels = frame.pixels()
        assert pixels.shape[:2] == (frame.height, frame.width), (pixels.shape, frame)
        assert pixels.dtype in TYPES, pixels.dtype
    except FrameError as error:
        outcome = f"pixels: {error.reason}"
    try:
        picture = frame.decode()
        assert picture.shape == (frame.height, frame.width, 3), (picture.shape, frame)
        assert picture.dtype == np.uint8
    except FrameError as error:
        return outcome if outcome != "decoded" else f"decode: {error.reason}"
    return outcome


def _read_as_photo(frame: Frame) -> None:
    """Read the file inside as a folder does: upright, and for a model at half its size."""
    try:
        photo = image_frame(bytes(frame.data), "set", "a", 1, "set/a", upright=True)
        sizes = {photo.decode().shape[:2], photo.reduced(4).shape[:2]}
    except FrameError:
        return
    assert sizes == {(photo.height, photo.width)}, (sizes, photo)


def damaged(messages: list[Message], random: Random) -> Message:
    """Return a message with one to four changes, or raw pixels of sizes drawn at will."""
    if random.random() < 0.1:
        return random_pixels(random)
    message = messages[random.randrange(len(messages))]
    within = message.payload_at if random.random() < 0.5 else 0  # else its length would not fit
    changed = bytearray(message.content[within:])
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        random.choice(CHANGES)(changed, random, messages)
    if random.random() < 0.5:
        _repair_png(changed)
    if within:
        length = struct.pack(f"{message.order}I", len(changed))
        changed[:0] = message.content[: within - 4] + length
    return message._replace(content=bytes(changed))


def random_pixels(random: Random) -> Message:
    """Return an Image whose sizes fit each other, nearly or not at all."""
    encoding = random.choice(list(ENCODINGS))
    height, width = random.randrange(9), random.randrange(9)
    step = width * random.choice((1, 2, 3, 4, 6, 8)) + random.choice((0, 0, 0, 1, 5))
    size = height * step * random.choice((2, 2, 2, 3, 6)) // 2 + random.choice((0, 0, 0, 0, -1, 1))
    fields = (height, width, encoding, random.randrange(2), step)
    return serialized("cdr", IMAGE, *fields, np.zeros(max(0, size), np.uint8))


def _flip(content: bytearray, random: Random, _: list[Message]) -> None:
    for _ in range(random.choice((1, 1, 2, 8))):
        if content:
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)


def _cut(content: bytearray, random: Random, _: list[Message]) -> None:
    begin = random.randrange(len(content) + 1)
    end = len(content) if random.random() < 0.5 else begin + random.randrange(40)
    del content[begin:end]


def _splice(content: bytearray, random: Random, messages: list[Message]) -> None:
    other = messages[random.randrange(len(messages))].content
    begin, at = random.randrange(len(other)), random.randrange(len(content) + 1)
    if random.random() < 0.5:
        content[at:] = other[begin:]
    else:
        content[at:at] = other[begin : begin + random.randrange(60)]


def _number(content: bytearray, random: Random, _: list[Message]) -> None:
    """Write a telling number where one may be: at the begin, where the sizes are, or anywhere."""
    limit = len(content) - 4
    if limit < 0:
        return
    at = random.randrange(min(limit, 80) + 1 if random.random() < 0.7 else limit + 1)
    number = random.choice(TELLING) if random.random() < 0.6 else random.randrange(64)
    kind = random.choice(("<I", "<I", ">I", "<H", ">H"))
    number &= 0xFFFFFFFF if kind[1] == "I" else 0xFFFF
    struct.pack_into(kind, content, at, number)


def _overwrite(content: bytearray, random: Random, _: list[Message]) -> None:
    at, length = random.randrange(len(content) + 1), random.randrange(1, 24)
    content[at : at + length] = random.randbytes(length)


CHANGES: tuple[Callable[[bytearray, Random, list[Message]], None], ...] = (
    _flip,
    _cut,
    _splice,
    _number,
    _overwrite,
)


def _repair_png(content: bytearray) -> None:
    """Make the checksums right, so that the damage reaches the decoder."""
    at = content.find(PNG) + len(PNG)
    while len(PNG) <= at <= len(content) - 12:
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            return
        struct.pack_into(">I", content, end, zlib.crc32(content[at + 4 : end]))
        at = end + 4


def real_messages() -> list[Message]:
    """Return undamaged messages of every encoding and format, serialized in all three ways."""
    messages = []
    for way in ("cdr", "big", "ros1"):
        for name, encoding in ENCODINGS.items():
            step = 8 * encoding.channels * np.dtype(encoding.sample).itemsize + 3
            data = np.arange(int(6 * step * (1 + encoding.chroma_rows)), dtype=np.uint32)
            fields = (6, 8, name, int(way == "big"), step, data.astype(np.uint8))
            messages.append(serialized(way, IMAGE, *fields))
        for declared, content in picture_files():
            data = np.frombuffer(content, np.uint8)
            messages += [serialized(way, FILE, declared, data)] * 2
    return messages


def picture_files() -> list[tuple[str, bytes]]:
    """Return (format, file) of pictures of 16 x 12 pixels."""
    random = np.random.default_rng(0)
    color = random.integers(0, 256, (12, 16, 3), np.uint8)
    depth = random.integers(0, 5000, (12, 16), np.uint16)
    restarts = (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)

    def file(suffix: str, pixels: np.ndarray, settings: tuple[int, ...] = ()) -> bytes:
        return cv2.imencode(suffix, pixels, settings)[1].tobytes()

    # 100 zeros, 92 others, their differences: see RVL in compressed_depth.py
    nibbles = ("cc1" + "cb1" + "1234567" * 13 + "2").ljust(104, "0")
    words = [int(nibbles[at : at + 8], 16) for at in range(0, len(nibbles), 8)]
    rvl = struct.pack(f"<II{len(words)}I", 16, 12, *words)
    parameters = struct.pack("<iff", 0, 100.0, 0.5)
    raw = struct.pack("<IIBII", 12, 16, 0, 48, 4) + b"rgb8" + gzip.compress(color.tobytes())
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    jpeg = file(".jpg", color)
    photo = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    packing = cv2.IMWRITE_TIFF_COMPRESSION
    return [
        ("jpeg", photo),
        ("bayer_rggb8; jpeg compressed ", file(".jpg", color[..., 0])),
        ("bayer_gbrg16; png compressed ", file(".png", depth)),
        ("rgb8; tiff compressed ", file(".tiff", color)),
        ("mono16; tiff compressed ", file(".tiff", depth)),
        ("8SC1; tiff compressed ", file(".tiff", color[..., 0].view(np.int8))),
        ("tiff", file(".tiff", color, (packing, 32946))),
        ("tiff", file(".tiff", color[..., 0], (packing, 32773))),
        ("tiff", write_tiff(color.astype(np.float64))),
        ("zstd", raw),
        ("YUYV; zstd; 16x12 step=32", zstd_module().compress(color.tobytes()[:384])),
        ("jpeg", file(".jpg", color)),
        ("bgr8; jpeg compressed bgr8", file(".jpg", color, restarts)),
        ("jpeg", file(".jpg", color, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))),
        ("mono8; jpeg compressed ", file(".jpg", color[..., 0])),
        ("png", file(".png", color)),
        ("png", file(".png", np.dstack([color, color[..., :1]]))),
        ("mono16; png compressed ", file(".png", depth)),
        ("webp", file(".webp", color, (cv2.IMWRITE_WEBP_QUALITY, 60))),
        ("webp", file(".webp", color, (cv2.IMWRITE_WEBP_QUALITY, 101))),
        ("bmp", file(".bmp", color)),
        ("16UC1; compressedDepth png", parameters + file(".png", depth)),
        ("32FC1; compressedDepth png", parameters + file(".png", depth)),
        ("16UC1; compressedDepth rvl", parameters + rvl),
    ]


def serialized(way: str, kind: str, *fields: Any) -> Message:
    """Return a message as rosbags writes it: "cdr" little-endian, "big" or "ros1"."""
    store = ROS1 if way == "ros1" else ROS2
    stamp = store.types["builtin_interfaces/msg/Time"](12, 34)
    number = (1,) if way == "ros1" else ()
    header = store.types["std_msgs/msg/Header"](*number, stamp, "camera")
    message = store.types[kind](header, *fields)
    if way == "ros1":
        content = bytes(store.serialize_ros1(message, kind))
    else:
        content = bytes(store.serialize_cdr(message, kind, little_endian=way == "cdr"))
    encoding = "ros1" if way == "ros1" else "cdr"
    topic = Topic("/camera", kind.replace("/msg/", "/"), encoding, "", 0)
    payload_at = len(content) - len(fields[-1])
    return Message(content, topic, payload_at, ">" if way == "big" else "<")


ROS2, ROS1 = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC)


def _silence_compiled_code() -> TextIO:
    """Return the real stderr; libjpeg and libpng write a line a picture to file descriptor 2."""
    log = os.fdopen(os.dup(2), "w")
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 2)
    return log


if __name__ == "__main__":
    sys.exit(main())
