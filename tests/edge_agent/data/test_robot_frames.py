"""A bag of real robot frames goes through every format to the examples, unchanged."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from rosbags.typesys import get_types_from_msg

from edge_agent.data.extraction.extract import ExtractOptions, extract
from edge_agent.data.label_formats.vision_msgs import default_definitions
from edge_agent.data.labels import LabelSettings, labelled_frames
from edge_agent.examples.example_store import ExampleStore
from fleet_model.files.damage import DamageLog

ROBOT_FRAMES = Path(__file__).parents[2] / "data/robot_frames"
pytestmark = pytest.mark.base
NAMES = {"80": "fire extinguisher", "81": "trash can"}
CAMERA, LABELS = "/camera/image/compressed", "/detections"
PERIOD_NS = 500_000_000
DETECTIONS = "vision_msgs/msg/Detection2DArray"


class Real(NamedTuple):
    """A frame: its JPEG, and its boxes in exact pixels as (label, center x, y, width, height)."""

    data: bytes
    boxes: list


def real_frames():
    for image in sorted((ROBOT_FRAMES / "images").iterdir()):
        boxes = []
        for line in (ROBOT_FRAMES / "labels" / f"{image.stem}.txt").read_text().splitlines():
            number, *shares = line.split()
            x, y, w, h = map(Fraction, shares)
            boxes.append((NAMES[number], x * 1280, y * 720, w * 1280, h * 720))
        yield Real(image.read_bytes(), boxes)


def corners(x, y, w, h):
    return [float(corner) for corner in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]


def stamp_of(bags, index):
    return bags.START_NS + index * PERIOD_NS


def camera_messages(bags, frames):
    for index, frame in enumerate(frames):
        stamp = stamp_of(bags, index)
        yield CAMERA, stamp + 9_000_000, bags.jpeg(stamp, frame.data)


def labels_in_a_csv(bags, frames, folder):
    """Write bag and table; return (bag, labels, corners of every frame)."""
    found = [[(label, *corners(*box)) for label, *box in frame.boxes] for frame in frames]
    lines = [
        ",".join([str(stamp_of(bags, index)), label, *map(repr, numbers)])
        for index, boxes in enumerate(found)
        for label, *numbers in boxes
    ]
    (folder / "boxes.csv").write_text("stamp_ns,label,x0,y0,x1,y1\n" + "\n".join(lines) + "\n")
    bag = bags.write(folder / "corridor", camera_messages(bags, frames))
    return bag, str(folder / "boxes.csv"), found


def labels_in_a_topic(bags, frames, folder):
    """Write the bag; corners are those of the doubles that a message holds."""
    bags.store.register(get_types_from_msg(default_definitions(DETECTIONS)[0], DETECTIONS))
    messages = list(camera_messages(bags, frames))
    found = []
    for index, frame in enumerate(frames):
        doubles = [(label, *map(float, box)) for label, *box in frame.boxes]
        stamp = stamp_of(bags, index)
        messages.append((LABELS, stamp + 40_000_000, detections(bags, stamp, doubles)))
        found.append([(label, *corners(*map(Fraction, box))) for label, *box in doubles])
    messages.sort(key=lambda message: message[1])
    return bags.write(folder / "corridor", messages), LABELS, found


def detections(bags, stamp, boxes):
    """Return a Detection2DArray of (label, center x, y, width, height)."""

    def make(name, *fields):
        return bags.store.types[name.replace("/", "/msg/")](*fields)

    header = bags.header(stamp)
    point = make("geometry_msgs/Point", 0.0, 0.0, 0.0)
    pose = make("geometry_msgs/Pose", point, make("geometry_msgs/Quaternion", 0.0, 0.0, 0.0, 1.0))
    pose = make("geometry_msgs/PoseWithCovariance", pose, np.zeros(36))
    listed = []
    for label, x, y, w, h in boxes:
        result = make("vision_msgs/ObjectHypothesis", label, 0.9)
        result = make("vision_msgs/ObjectHypothesisWithPose", result, pose)
        center = make("vision_msgs/Pose2D", make("vision_msgs/Point2D", x, y), 0.0)
        box = make("vision_msgs/BoundingBox2D", center, w, h)
        listed.append(make("vision_msgs/Detection2D", header, [result], box, ""))
    return make("vision_msgs/Detection2DArray", header, listed)


def packed(found):
    """Return the boxes of every frame to the last bit."""
    return [
        [(box.label, struct.pack("<4d", box.x0, box.y0, box.x1, box.y1)) for box in boxes]
        for boxes in found
    ]


@pytest.mark.parametrize("write", [labels_in_a_csv, labels_in_a_topic])
def test_a_bag_with_boxes_goes_to_yolo_coco_tfds_and_examples(bags, tmp_path, write):
    frames = list(real_frames())
    pictures = [frame.data for frame in frames]
    assert len(pictures) == 14
    bag, label_topic, found = write(bags, frames, tmp_path)
    boxes = [[(label, struct.pack("<4d", *box)) for label, *box in each] for each in found]
    assert sum(map(len, boxes)) == 23

    source, labels = bag, LabelSettings(label_topic=label_topic)
    for form in ("yolo", "coco", "tfds", "folder", "yolo", "tfds"):
        out = tmp_path / f"{form}-of-{source.name}"
        summary = extract(ExtractOptions(paths=(source,), out=out, labels=labels, format=form))
        assert (summary.frames_written, summary.damage) == (14, ())
        source, labels = out, LabelSettings()
        damage = DamageLog()
        read = list(labelled_frames(out, LabelSettings(), damage))
        assert not damage
        assert [bytes(labelled.frame.data) for labelled in read] == pictures
        assert packed(labelled.boxes for labelled in read) == boxes

    for path, topic in ((source, ""), (bag, label_topic)):
        store = ExampleStore([path], "", topic, NAMES.values(), held_out=0.0)
        examples = sorted(store.examples(), key=lambda example: example.raw.stamp_ns)
        assert [bytes(example.raw.data) for example in examples] == pictures
        assert packed(example.boxes for example in examples) == boxes
        assert {example.raw.source for example in examples} == {"corridor"}
