"""Frames with boxes, written as a robot has them: a YOLO data set with a manifest that has stamps.

`edge-agent extract`, `predict` and the agent's examples read it as it is.
"""

import argparse
import json
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes.layers import HEIGHT, WIDTH
from edge_agent.data.label_formats.yolo.yolo import YoloFormat
from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from fleet_model.types import Box

TRAINING = ("hall-1/r1", "hall-1/r2", "hall-2/r1", "hall-2/r2")
UNSEEN = ("hall-3/r1", "hall-4/r1", "hall-5/r1")
TOPIC = "/camera/image/compressed"
START_NS = 1_735_722_000 * 10**9  # 2025-01-01 09:00 UTC
FRAME_NS, SLOT_NS = 10**9 // 2, 5 * 10**9
LONGEST = 8  # frames of a drive: 4 of the 5 seconds of its slot
EMPTY = 0.15  # share of frames without a box


class Shot(NamedTuple):
    """One frame and what is known of it."""

    jpeg: bytes
    boxes: tuple[Box, ...]
    shares: tuple[float, ...]  # of each box: how much of its thing can be seen
    left_out: tuple[str, ...]


def generator(*key: int | str) -> np.random.Generator:
    """Return a random stream that only the key decides (`hash()` changes with every process)."""
    return np.random.default_rng([k if isinstance(k, int) else zlib.crc32(k.encode()) for k in key])


def class_shares(rng: np.random.Generator, classes: int, prior: str) -> NDArray[np.float64]:
    """Return the share of each class that a robot meets.

    Args:
        rng: draws.
        classes: how many.
        prior: "uniform", or "dirichlet", which arXiv:1909.06335 draws label shares by; 0.5 leaves
            two or three frequent classes.
    """
    drawn = rng.dirichlet(np.full(classes, 0.5))
    return np.full(classes, 1 / classes) if prior == "uniform" else drawn


def drives(frames: int, rng: np.random.Generator) -> Iterator[tuple[int, bool]]:
    """Yield the frames of each drive, and whether it passes nothing that has a class.

    Args:
        frames: of all drives.
        rng: draws.
    """
    lengths = list[int]()
    while sum(lengths) < frames:
        lengths.append(min(int(rng.integers(4, LONGEST + 1)), frames - sum(lengths)))
    wanted, empty = round(EMPTY * frames), set[int]()
    for place in rng.permutation(len(lengths)).tolist():
        if lengths[place] <= wanted:
            empty.add(place)
            wanted -= lengths[place]
    yield from ((length, place in empty) for place, length in enumerate(lengths))


def stamps(lengths: Iterable[int]) -> Iterator[int]:
    """Yield when each frame was taken, in ns.

    A drive has five seconds to itself, and begins with them. So the ten seconds that robots hold
    out as a whole never end within a drive, and nothing held out is nearly a training frame.
    """
    for slot, length in enumerate(lengths):
        for frame in range(length):
            yield START_NS + slot * SLOT_NS + frame * FRAME_NS


def write_set(
    out: Path, robot: str, frames: int, seed: int, shots: Iterable[Shot]
) -> dict[str, Any]:
    """Write a new data set; it gets its name only when it is complete.

    Args:
        out: folder of the data set.
        robot: becomes the source of every frame.
        frames: that there are.
        seed: by which the drives were drawn.
        shots: in the order of time.

    Returns:
        What is in it: frames, empty frames, boxes by label, things left out by reason, the share
        of boxes whose thing is covered by a tenth or more, and this process's milliseconds for
        each frame.
    """
    begin = time.process_time()
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "images").mkdir(parents=True)
    lengths = [length for length, _ in drives(frames, generator(seed, "drives", robot))]
    rows, shares, left_out = list[ManifestRow](), list[float](), Counter[str]()
    for stamp_ns, shot in zip(stamps(lengths), shots, strict=True):
        rows.append(_row(robot, stamp_ns, shot.boxes))
        (aside / rows[-1].file).write_bytes(shot.jpeg)
        shares += shot.shares
        left_out.update(shot.left_out)
    YoloFormat().finish(aside, rows)
    write_manifest(aside / MANIFEST, rows)
    aside.rename(out)
    return {
        "robot": robot,
        "frames": len(rows),
        "empty": sum(not row.boxes for row in rows),
        "boxes": dict(sorted(Counter(box.label for row in rows for box in row.boxes).items())),
        "left_out": dict(sorted(left_out.items())),
        "covered": round(sum(share < 0.9 for share in shares) / max(len(shares), 1), 3),
        "ms_a_frame": round((time.process_time() - begin) / len(rows) * 1000, 1),
    }


def command_line(
    doc: str, write: Callable[[Path, str, int, int, str], Any], argv: list[str] | None = None
) -> None:
    """Write one robot's data set as the arguments say, and print what `write` returns as JSON.

    Args:
        doc: of the module; its first line becomes the description.
        write: gets the folder, the robot's name, the number of frames, the seed and the prior.
        argv: None: of the process.
    """
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet")
    parser.add_argument("--robot", default=TRAINING[0], help="site/name")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prior", choices=("dirichlet", "uniform"), default="dirichlet")
    args = parser.parse_args(argv)
    if args.out.exists():
        parser.error(f"{args.out} exists; remove it or choose another OUT")
    if args.frames < 1 or args.seed < 0:
        parser.error("--frames must be at least 1, --seed at least 0")
    cv2.setNumThreads(1)
    print(json.dumps(write(args.out, args.robot, args.frames, args.seed, args.prior)))


def _row(robot: str, stamp_ns: int, boxes: tuple[Box, ...]) -> ManifestRow:
    return ManifestRow(
        file=f"images/{stamp_ns}.jpg",
        topic=TOPIC,
        stamp_ns=stamp_ns,
        source=robot,
        width=WIDTH,
        height=HEIGHT,
        boxes=boxes,
        seen=True,
    )
