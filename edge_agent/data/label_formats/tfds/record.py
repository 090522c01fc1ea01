"""One record of a TFDS directory: a frame with its label and boxes, both ways."""

import struct
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.data.frames.folder import read_image
from edge_agent.data.label_formats.data_set import LabelledFrame, inside, largest_label
from edge_agent.data.label_formats.exact_numbers import rounded
from edge_agent.data.label_formats.image_rows import sound_boxes
from edge_agent.data.label_formats.marks import is_seen
from edge_agent.data.label_formats.picture_size import size_of
from edge_agent.data.label_formats.tfds.info import Shard, TfdsInfo
from edge_agent.data.label_formats.tfds.tf_example import Features, Values, read_example
from edge_agent.data.label_formats.tfds.tfrecord import RecordPosition, read_record
from edge_agent.data.manifest import ManifestRow, encode_text
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.pictures.image_file import image_frame
from fleet_model.pictures.image_header import ImageHeader, read_header
from fleet_model.types import Box

_NAMES = ("file", "file_name", "image/filename", "filename")  # of pictures, as others call them
_BOX = struct.Struct("<4d")  # x0, y0, x1, y1 in pixels

# How four numbers of a box lie -> center or corner first, sizes or corners, x or y first.
_BBOX_ORDERS: Mapping[str, Callable[[Any, Any, Any, Any], tuple[Any, Any, Any, Any]]] = {
    "YXYX": lambda a, b, c, d: (b, a, d, c),
    "XYXY": lambda a, b, c, d: (a, b, c, d),
    "XYWH": lambda a, b, c, d: (a, b, a + c, b + d),
    "CXCYWH": lambda a, b, c, d: (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
}


class OpenShard(NamedTuple):
    """A file of records while it is read."""

    root: Path
    info: TfdsInfo
    shard: Shard
    first: int  # records before it
    damage: DamageLog
    crowds: "Crowds"

    @property
    def where(self) -> str:
        """Its name in errors."""
        return f"{self.root.name}/{self.shard.name}"


class Picture(NamedTuple):
    """One picture of a record."""

    feature: str
    at: int  # in the feature's list: the step of an episode


class Crowds:
    """Whether crowds are left out: only where anything is none, as in COCO's files."""

    def __init__(
        self, examples: Callable[[], Iterator[Mapping[str, Values]]], feature: str
    ) -> None:
        """Keep how to read all records, and the name of what tells crowds."""
        self._examples, self._feature = examples, feature

    @cached_property
    def are_left_out(self) -> bool:
        """Whether any box of the data set is no crowd; reads records until there is one."""
        return any(0 in example.get(self._feature, ()) for example in self._examples())


def load_record(
    opened: OpenShard, position: RecordPosition, picture: Picture, number: int, spare_ns: int
) -> LabelledFrame:
    """Return what a record holds about one of its pictures.

    Args:
        opened: its file.
        position: where in the file.
        picture: which one.
        number: of the record in its split, for its name where it has none.
        spare_ns: stamp of a record that has none.

    Raises:
        FrameError: the record or its picture is damaged.
    """
    example = read_whole(opened, position)
    info, where = opened.info, f"{opened.where} record at byte {position.at}"
    pictures = _pictures(example, picture.feature)
    content = pictures[picture.at] if picture.at < len(pictures) else None
    if not isinstance(content, bytes):
        raise FrameError(f"{where}: no picture in {picture.feature!r}", "empty")
    name = next(filter(None, (_text(example, key) for key in _NAMES)), "")
    topic = _text(example, "topic") or name or f"{opened.shard.split}/{number:06d}"
    frame = image_frame(
        content,
        _text(example, "source") or opened.root.name,
        topic if info.is_plain else picture.feature,
        _integer(example, "stamp_ns", spare_ns) if info.is_plain else spare_ns,
        where,
    )
    told = tuple(_boxes(opened, example, frame.width, frame.height, where))
    boxes = sound_boxes(told, frame.width, frame.height, where, opened.damage)
    episode, inner, _ = info.label.partition("/")
    is_other = bool(inner) and not picture.feature.startswith(f"{episode}/")
    labels = () if is_other else example.get(info.label, ())
    at = picture.at if len(labels) > 1 else 0  # one for each step, or one for all
    label = _class_name(opened, labels, at, info.label_names, where)
    seen = is_seen(told, boxes, _says_nothing(info, example, label))
    return LabelledFrame(frame, label or largest_label(boxes), boxes, seen)


def list_record(
    opened: OpenShard, position: RecordPosition, spare_ns: int
) -> tuple[int, list[Picture]]:
    """Return a record's stamp, the time of its file if it has none, and its pictures in order.

    A record that is damaged has one picture, so that it is counted when that is loaded.
    """
    info = opened.info
    first = [Picture(info.images[0], 0)]
    try:
        example = read_whole(opened, position)
    except FrameError:
        return spare_ns, first
    if info.is_plain:
        return _integer(example, "stamp_ns", spare_ns), first
    counts = {name: len(_pictures(example, name)) for name in info.images}
    steps = range(max(counts.values()))
    found = [Picture(name, at) for at in steps for name in info.images if at < counts[name]]
    return spare_ns, found or first


@lru_cache(
    1
)  # an episode is read once for all of its pictures, as long as they are asked for in turn
def read_whole(opened: OpenShard, position: RecordPosition) -> Mapping[str, Values]:
    """Return the lists of a record; raises FrameError where it is damaged."""
    record = read_record(opened.root / opened.shard.name, position, opened.where)
    try:
        return read_example(record)
    except FrameError as error:
        message = f"{opened.where}: the record at byte {position.at} {error}"
        raise FrameError(message, error.reason) from None


def record_of(
    out: Path, row: ManifestRow, numbers: Mapping[str, int]
) -> tuple[bytes, ImageHeader | None]:
    """Return a row's record and the kind of its picture, without its size."""
    content = read_image(inside(out, row.file), row.file)
    features = Features()
    features.add_bytes("file", [encode_text(row.file)])
    features.add_bytes("image", [content])
    if numbers:
        features.add_integers("label", [numbers.get(row.label, -1)])
        width, height = size_of(out, row) if row.boxes else (1, 1)
        shares = [
            share
            for box in row.boxes
            for share in (box.y0 / height, box.x0 / width, box.y1 / height, box.x1 / width)
        ]
        packed = [_BOX.pack(box.x0, box.y0, box.x1, box.y1) for box in row.boxes]
        features.add_floats("objects/bbox", shares)
        features.add_bytes("objects/box_pixels", packed)
        features.add_integers("objects/label", [numbers[box.label] for box in row.boxes])
    features.add_integers("seen", [int(row.seen)])
    features.add_bytes("source", [encode_text(row.source)])
    features.add_integers("stamp_ns", [row.stamp_ns])
    features.add_bytes("topic", [encode_text(row.topic)])
    return features.record(), _kind(content)


def _pictures(example: Mapping[str, Values], feature: str) -> Values:
    """Return the pictures of a feature; lists of lists are stored one after the other."""
    return example.get(feature) or example.get(f"{feature}/ragged_flat_values", ())


def _says_nothing(info: TfdsInfo, example: Mapping[str, Values], label: str) -> bool:
    """Return whether a record without boxes says that nothing is in its picture."""
    if info.is_ours:
        return _integer(example, "seen", 0) == 1
    return bool(info.bbox) and not example.get(info.bbox) and not label


def _boxes(
    opened: OpenShard, example: Mapping[str, Values], width: int, height: int, where: str
) -> Iterator[Box]:
    info = opened.info
    corners: list[tuple[float, ...]] = []
    group = info.bbox.rpartition("/")[0]
    exact = example.get(f"{group}/box_pixels", ()) if info.bbox else ()
    numbers = example.get(info.bbox, ()) if info.bbox else ()
    if exact and all(isinstance(b, bytes) and len(b) == _BOX.size for b in exact):
        corners = [_BOX.unpack(packed) for packed in exact if isinstance(packed, bytes)]
    else:
        try:
            for at in range(0, len(numbers), 4):
                four = [Fraction(float(number)) for number in numbers[at : at + 4]]
                corners.append(_pixels(four, info.bbox_format, width, height))
        except (ValueError, TypeError, OverflowError, KeyError):
            what = f"{len(numbers)} numbers, expected four of {info.bbox_format} for each box"
            opened.damage.add("bad label", f"{where}: {what}")
    labels = example.get(info.bbox_label, ())
    crowds = example.get(info.crowd, ())
    for number, (x0, y0, x1, y1) in enumerate(corners):
        if number < len(crowds) and crowds[number] == 1 and opened.crowds.are_left_out:
            opened.damage.add("crowd left out", f"{where}: {info.crowd}")
            continue
        label = _class_name(opened, labels, number, info.bbox_label_names, where)
        if label:
            yield Box(label=label, x0=x0, y0=y0, x1=x1, y1=y1)


def _pixels(
    numbers: list[Fraction], bbox_format: str, width: int, height: int
) -> tuple[float, ...]:
    relative = bbox_format.startswith("REL_")
    a, b, c, d = numbers
    x0, y0, x1, y1 = _BBOX_ORDERS[bbox_format.removeprefix("REL_")](a, b, c, d)
    across, down = (width, height) if relative else (1, 1)
    return rounded(x0 * across), rounded(y0 * down), rounded(x1 * across), rounded(y1 * down)


def _class_name(
    opened: OpenShard, values: Values, at: int, names: tuple[str, ...], where: str
) -> str:
    """Return the name of a class, or its number where nobody names it; "" for -1 and unknown."""
    value = values[at] if at < len(values) else -1
    if not isinstance(value, int) or value == -1:
        return ""
    if not names:
        return str(value)
    if 0 <= value < len(names):
        return names[value]
    opened.damage.add("unknown class", f"{where}: class {value} of {len(names)}")
    return ""


def _text(example: Mapping[str, Values], name: str) -> str:
    values = example.get(name, ())
    if not values or not isinstance(values[0], bytes):
        return ""
    return values[0].decode("utf-8", "replace")


def _integer(example: Mapping[str, Values], name: str, otherwise: int) -> int:
    values = example.get(name, ())
    return values[0] if values and isinstance(values[0], int) else otherwise


def _kind(content: bytes) -> ImageHeader | None:
    try:
        return read_header(content)._replace(width=0, height=0)
    except FrameError:
        return None
