"""dataset_info.json and features.json of a TFDS directory, both ways.

They are protobuf messages as JSON: tensorflow_datasets/core/proto/{dataset_info,feature}.proto.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fleet_model.errors import FrameError
from fleet_model.files.folders import unreadable
from fleet_model.pictures.image_header import ImageHeader

INFO, FEATURES = "dataset_info.json", "features.json"
NAME, SPLIT = "frames", "train"  # of what is written here
# moduleName of what is written here: a mark in files, and no longer the name of a module. For a few
# days the module's new name was written.
_OURS = "edge_agent.label_formats.tfds"
_ALSO_OURS = "edge_agent.data.label_formats.tfds.tfds"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_CLASSES = "tensorflow_datasets.core.features."
_MOST_RECORDS = 1 << 31  # of one file
_LARGEST_JSON = 64 << 20  # bytes
_TF_DECODES = frozenset({"jpeg", "png", "bmp"})  # tf.image.decode_image, in every version
_ESCAPED = {"%": "%25", "\n": "%0A", "\r": "%0D"}  # one name has one line


class Shard(NamedTuple):
    """One file of records."""

    name: str
    split: str
    length: int  # records, by the index


class TfdsInfo(NamedTuple):
    """What the index says."""

    shards: tuple[Shard, ...]
    # Names of the features with pictures. One alone, with one picture a record, is plain. Else each
    # picture is a frame of its own: of every camera, and of every step of an episode (RLDS).
    images: tuple[str, ...]
    is_plain: bool
    unread: tuple[str, ...]  # features with pictures or boxes that are left out
    label: str  # of the class; "" for none
    bbox: str  # of boxes relative to the picture; "" for none
    bbox_format: str  # "REL_YXYX" or another order
    bbox_label: str  # of the boxes' classes; "" for none
    crowd: str  # tells which boxes are crowds; "" for none
    is_ours: bool  # written here
    label_names: tuple[str, ...]
    bbox_label_names: tuple[str, ...]


def read_info(root: Path) -> TfdsInfo:
    """Return what the index in `root` says.

    Raises:
        FrameError: it is damaged, has no pictures, or its records are stored in another way.
    """
    try:
        info, features = _read_json(root / INFO), _read_json(root / FEATURES)
        listed = list(_flat(features, ""))
        shards = tuple(_shards(info))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"lacks {error}" if isinstance(error, KeyError) else "is not what TFDS writes"
        message = f"{root.name}: a damaged index: {INFO} or {FEATURES} {why}"
        raise FrameError(message, "damaged index") from None
    flat, deep = {name: spec for name, spec, _ in listed}, {name for name, _, n in listed if n}
    pictures = [name for name, spec in flat.items() if "image" in spec or "video" in spec]
    images = [name for name in pictures if name in deep] or pictures
    if "image" in pictures and "image" not in deep:
        images = ["image"]  # what lies beside it are masks, or the picture once more
    text = _find(flat, "text", "image", only=True)
    images = images or ([text] if text else [])
    if not images:
        raise FrameError(f"{root.name}: its {FEATURES} names no picture", "damaged index")
    is_plain = len(images) == 1 and images[0] not in deep
    boxes = [name for name, spec in flat.items() if "boundingBox" in spec]
    bbox = _find(flat, "boundingBox", "objects/bbox") if is_plain else ""
    group = bbox.rpartition("/")[0]
    unread = [name for name in (*pictures, *boxes) if name not in images and name != bbox]
    classes = {name: spec for name, spec in flat.items() if "classLabel" in spec}
    of_boxes = {name: s for name, s in classes.items() if bbox and name.startswith(f"{group}/")}
    of_frames = {name: s for name, s in classes.items() if "/" not in name}
    if not (of_frames or is_plain):
        of_frames = {name: s for name, s in classes.items() if name in deep}
    label = _find(of_frames, "classLabel", "label")
    bbox_label = _find(of_boxes, "classLabel", f"{group}/label")
    crowd = next((n for n in (f"{group}/is_crowd", f"{group}/iscrowd") if bbox and n in flat), "")
    ours = info.get("moduleName") in (_OURS, _ALSO_OURS)
    return TfdsInfo(
        shards=shards,
        images=tuple(images),
        is_plain=is_plain,
        unread=tuple(unread),
        label=label,
        bbox=bbox,
        bbox_format=_bbox_format(flat[bbox]) if bbox else "",
        bbox_label=bbox_label,
        crowd=crowd,
        is_ours=ours,
        label_names=_read_names(root, label, ours),
        bbox_label_names=_read_names(root, bbox_label, ours),
    )


def shard_name(number: int, count: int) -> str:
    """Return the name of a shard that is written here."""
    return f"{NAME}-{SPLIT}.tfrecord-{number:05d}-of-{count:05d}"


def info_text(lengths: Iterable[int], size_bytes: int) -> str:
    """Return the dataset_info.json of shards with so many records each."""
    split = {
        "filepathTemplate": _TEMPLATE,
        "name": SPLIT,
        "numBytes": str(size_bytes),
        "shardLengths": [str(length) for length in lengths],
    }
    info = {
        "description": "Camera frames of a robot.",
        "fileFormat": "tfrecord",
        "moduleName": _OURS,
        "name": NAME,
        "splits": [split],
        "version": "1.0.0",
    }
    return json.dumps(info, indent=2) + "\n"


def features_text(pictures: Iterable[ImageHeader | None], names: list[str]) -> str:
    """Return the features.json of records with these kinds of pictures and classes.

    Args:
        pictures: one of each kind; None is one that TensorFlow cannot decode.
        names: of the classes; without them there are neither labels nor boxes.
    """
    text, integer = _feature("text_feature.Text", text={}), _tensor("scalar.Scalar", "int64")
    features = {
        "file": text,
        "image": _image_feature(list(pictures)),
        "seen": integer,
        "source": text,
        "stamp_ns": integer,
        "topic": text,
    }
    if names:
        label = _feature(
            "class_label_feature.ClassLabel", classLabel={"numClasses": str(len(names))}
        )
        box = {"bboxFormat": "REL_YXYX", "dtype": "float32", "shape": {"dimensions": ["4"]}}
        objects = {
            "bbox": _feature("bounding_boxes.BBoxFeature", boundingBox=box),
            "box_pixels": _tensor("tensor_feature.Tensor", "float64", ["4"], "bytes"),
            "label": label,
        }
        inner = _feature("features_dict.FeaturesDict", featuresDict={"features": objects})
        sequence = {"feature": inner, "length": "-1"}
        features["label"] = label
        features["objects"] = _feature("sequence_feature.Sequence", sequence=sequence)
    whole = _feature("features_dict.FeaturesDict", featuresDict={"features": features})
    return json.dumps(whole, indent=4, sort_keys=True) + "\n"


def label_files(names: list[str]) -> Mapping[str, str]:
    """Return file name -> content for the names of the classes."""
    lines = ["".join(_ESCAPED.get(character, character) for character in name) for name in names]
    text = "".join(f"{line}\n" for line in lines)
    return {_label_file("label"): text, _label_file("objects/label"): text} if names else {}


def _image_feature(pictures: list[ImageHeader | None]) -> Mapping[str, Any]:
    """Return the feature that TensorFlow decodes all pictures with, else plain bytes."""
    known = [picture for picture in pictures if picture and picture.format in _TF_DECODES]
    if len(known) < len(pictures):
        return _feature("text_feature.Text", text={})
    deep = bool(known) and all(picture.bits == 16 for picture in known)
    counts = {picture.channels for picture in known}
    channels = next((n for n in (1, 4) if counts == {n}), 3)
    image = {
        "dtype": "uint16" if deep else "uint8",
        "shape": {"dimensions": ["-1", "-1", str(channels)]},
    }
    if deep:
        image["encodingFormat"] = "png"
    return _feature("image_feature.Image", image=image)


def _tensor(
    kind: str, dtype: str, dimensions: list[str] | None = None, encoding: str = "none"
) -> Mapping[str, Any]:
    shape = {"dimensions": dimensions} if dimensions else {}
    return _feature(kind, tensor={"dtype": dtype, "encoding": encoding, "shape": shape})


def _feature(kind: str, **content: Any) -> Mapping[str, Any]:
    return {"pythonClassName": _CLASSES + kind, **content}


def _read_json(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            return json.loads(stream.read(_LARGEST_JSON))
    except OSError as error:
        raise unreadable(path.name, error) from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None


def _shards(info: Any) -> Iterator[Shard]:
    stored = info.get("fileFormat", "tfrecord")
    if stored not in ("", "tfrecord"):
        raise FrameError(
            f"its records are stored as {stored}; expected tfrecord: "
            'write it again with tfds and file_format="tfrecord"',
            "unknown format",
        )
    for split in info["splits"]:
        lengths = [int(length) for length in split.get("shardLengths", ())]
        if not all(0 <= length < _MOST_RECORDS for length in lengths):
            raise ValueError(f"shardLengths of split {split['name']}")
        template = split.get("filepathTemplate") or _TEMPLATE
        for number, length in enumerate(lengths):
            shard = f"{number:05d}-of-{len(lengths):05d}"
            values = {
                "{DATASET}": info["name"],
                "{SPLIT}": split["name"],
                "{FILEFORMAT}": "tfrecord",
                "{SHARD_X_OF_Y}": shard,
                "{SHARD_INDEX}": f"{number:05d}",
                "{NUM_SHARDS}": f"{len(lengths):05d}",
            }
            name = template
            for key, value in values.items():
                name = name.replace(key, value)
            yield Shard(name, split["name"], length)


def _flat(feature: Any, prefix: str, depth: int = 0) -> Iterator[tuple[str, Any, int]]:
    """Yield (name in the records, specification, how many lists it lies in) of every feature."""
    if "featuresDict" in feature:
        for key, inner in feature["featuresDict"]["features"].items():
            yield from _flat(inner, f"{prefix}/{key}" if prefix else key, depth)
    elif "sequence" in feature:
        yield from _flat(feature["sequence"]["feature"], prefix, depth + 1)
    else:
        yield prefix, feature, depth + ("video" in feature)


def _find(flat: Mapping[str, Any], kind: str, preferred: str, *, only: bool = False) -> str:
    """Return the name of a feature of this kind: the preferred one, else the first; "" for none."""
    names = [name for name, spec in flat.items() if kind in spec]
    if preferred in names:
        return preferred
    return names[0] if names and not only else ""


def _bbox_format(spec: Any) -> str:
    return str(spec["boundingBox"].get("bboxFormat") or "REL_YXYX")


def _label_file(feature: str) -> str:
    return f"{feature.replace('/', '-')}.labels.txt"


def _read_names(root: Path, feature: str, ours: bool) -> tuple[str, ...]:
    """Return the names of a class feature; () where nobody names them."""
    try:
        lines = (root / _label_file(feature)).read_text("utf-8", "replace").split("\n")
    except OSError:
        return ()
    names = [line for line in lines if line]
    if ours:
        for character, escape in reversed(_ESCAPED.items()):
            names = [name.replace(escape, character) for name in names]
    return tuple(names)
