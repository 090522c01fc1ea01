"""Labelled pictures in folders, as a network of pictures takes them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cloud_server.compression.recipes.recipe import Data
from cloud_server.models.backend import NOTE, Progress
from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.folders import files_below, unreadable
from fleet_model.types import Frame, Tensor
from fleet_model.workloads.image_classifier import ImageClassifier

TRAIN, TEST = "train", "test"
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_LABELS = "labels.json"


class Part(NamedTuple):
    """Pictures of one part."""

    inputs: Tensor  # (pictures, S, S, 3) uint8
    classes: Tensor  # (pictures,) int64: index of the label


class _File(NamedTuple):
    path: Path
    content: bytes
    label: str


def read_pictures(
    data: Data, labels: Sequence[str], size: int, into: Path, progress: Progress
) -> None:
    """Fill a folder with both parts, decoded: the largest centered square of each, as on robots.

    Without folders train/ and test/, a share of the files is the test; the content of a file
    says which, so that the same picture is never on both sides.

    Args:
        data: where they are.
        labels: in the order of the network's outputs.
        size: pixels of the square's side.
        into: an empty folder.
        progress: is told how many there are, and what is left out.

    Raises:
        SettingsError: a folder has a name that is no label, or a part is empty.
        FrameError: the folder or a file cannot be read.
    """
    encode = ImageClassifier(labels, image_size=size).encode
    parts: dict[str, list[tuple[Tensor, int]]] = {TRAIN: [], TEST: []}
    left: list[str] = []
    for part, file in _divided(data, labels, left):
        frame = Frame(
            source=file.label, topic=file.path.name, stamp_ns=0, data=b"", format="rgb8",
            decode=lambda file=file: _decoded(file),  # type: ignore[misc]
        )  # fmt: skip
        picture = encode(frame).inputs["image"].astype(np.uint8)
        parts[part].append((picture, labels.index(file.label)))
    for part, found in parts.items():
        if not found:
            raise SettingsError(f"{data.folder}: has no picture to {part} with")
        inputs, classes = zip(*found, strict=True)
        np.save(into / f"{part}_inputs.npy", np.stack(inputs))
        np.save(into / f"{part}_classes.npy", np.array(classes, np.int64))
    (into / _LABELS).write_text(json.dumps(list(labels)), "utf-8")
    if left:
        progress(
            f"{NOTE}{len(left)} left out, first {left[0]}: pictures lie in a folder named as their "
            f"label, and end in {', '.join(SUFFIXES)}"
        )
    progress(f"{len(parts[TRAIN])} pictures to learn from, {len(parts[TEST])} to test with")


def part_of(pictures: Path, name: str) -> Part:
    """Return a part of what `read_pictures` wrote; files are mapped, not read."""
    return Part(
        np.load(pictures / f"{name}_inputs.npy", mmap_mode="r"),
        np.load(pictures / f"{name}_classes.npy"),
    )


def labels_of(pictures: Path) -> tuple[str, ...]:
    """Return the labels of what `read_pictures` wrote."""
    return tuple(json.loads((pictures / _LABELS).read_text("utf-8")))


def _divided(data: Data, labels: Sequence[str], left: list[str]) -> Iterator[tuple[str, _File]]:
    if not data.folder.is_dir():
        raise FrameError(f"{data.folder}: no such folder", "missing file")
    if all((data.folder / part).is_dir() for part in (TRAIN, TEST)):
        beside = {one.name for one in data.folder.iterdir()} - {TRAIN, TEST}
        left += sorted(name for name in beside if not name.startswith("."))
        for part in (TRAIN, TEST):
            for file in _files(data.folder / part, labels, left):
                yield part, file
        return
    for file in _files(data.folder, labels, left):
        drawn = int.from_bytes(hashlib.sha256(file.content).digest()[:8], "big") / 2**64
        yield (TEST if drawn < data.held_out else TRAIN), file


def _files(folder: Path, labels: Sequence[str], left: list[str]) -> Iterator[_File]:
    for below in sorted(folder.iterdir()):
        if below.name.startswith("."):
            continue
        if not below.is_dir():
            left.append(below.name)
            continue
        if below.name not in labels:
            raise SettingsError(
                f"{folder}: has a folder {below.name!r}, which is no label; known are "
                f"{', '.join(labels)}"
            )
        for path in files_below(below, _refuse):
            if path.suffix.lower() not in SUFFIXES:
                left.append(f"{below.name}/{path.name}")
                continue
            try:
                yield _File(path, path.read_bytes(), below.name)
            except OSError as error:
                raise unreadable(f"{below.name}/{path.name}", error) from None


def _refuse(folder: Path, error: OSError) -> None:
    raise unreadable(folder.name, error)


def _decoded(file: _File) -> Tensor:
    import cv2

    image = None
    if file.content:
        image = cv2.imdecode(np.frombuffer(file.content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise FrameError(
            f"{file.label}/{file.path.name}: is no picture that can be read", "damaged"
        )
    return np.asarray(image[..., ::-1])
