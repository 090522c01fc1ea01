"""A bag of real robot frames goes through every format to the examples, unchanged."""

import struct
from fractions import Fraction
from pathlib import Path

import pytest

from edge_agent.example_store import ExampleStore
from edge_agent.extraction.extract import ExtractOptions, extract
from edge_agent.frames.damage import DamageLog
from edge_agent.labels import LabelSettings, labelled_frames

ROBOT_FRAMES = Path(__file__).parents[3] / "shared/data/robot_frames"
pytestmark = [
    pytest.mark.base,
    pytest.mark.skipif(not ROBOT_FRAMES.is_dir(), reason="the robot's frames are not here"),
]
NAMES = {"80": "fire extinguisher", "81": "trash can"}
CAMERA, LABELS = "/camera/image/compressed", "/detections"


def expected():
    """Yield (JPEG, boxes as (label, x0, y0, x1, y1)) by exact arithmetic on the label files."""
    for image in sorted((ROBOT_FRAMES / "images").iterdir()):
        boxes = []
        for line in (ROBOT_FRAMES / "labels" / f"{image.stem}.txt").read_text().splitlines():
            number, *shares = line.split()
            x, y, w, h = map(Fraction, shares)
            corners = ((x - w / 2) * 1280, (y - h / 2) * 720, (x + w / 2) * 1280, (y + h / 2) * 720)
            boxes.append((NAMES[number], *map(float, corners)))
        yield image.read_bytes(), boxes


def packed(boxes):
    return [(box.label, struct.pack("<4d", box.x0, box.y0, box.x1, box.y1)) for box in boxes]


def test_a_bag_with_boxes_goes_to_yolo_coco_tfds_and_examples(bags, tmp_path):
    frames = list(expected())
    assert len(frames) == 14
    messages = []
    for index, (content, _) in enumerate(frames):
        stamp = bags.START_NS + index * 500_000_000
        messages.append((CAMERA, stamp + 9_000_000, bags.jpeg(stamp, content)))
    bag = bags.write(tmp_path / "corridor", messages)
    table = tmp_path / "boxes.csv"
    lines = [
        ",".join([str(bags.START_NS + index * 500_000_000), label, *map(repr, corners)])
        for index, (_, boxes) in enumerate(frames)
        for label, *corners in boxes
    ]
    table.write_text("stamp_ns,label,x0,y0,x1,y1\n" + "\n".join(lines) + "\n")

    labels = LabelSettings(label_topic=str(table))
    source = bag
    for form in ("yolo", "coco", "tfds", "folder", "yolo", "tfds"):
        out = tmp_path / f"{form}-of-{source.name}"
        summary = extract(ExtractOptions(paths=(source,), out=out, labels=labels, format=form))
        assert (summary.frames_written, summary.damage) == (14, ())
        source, labels = out, LabelSettings()
        damage = DamageLog()
        found = list(labelled_frames(out, LabelSettings(), damage))
        assert not damage
        assert [bytes(labelled.frame.data) for labelled in found] == [data for data, _ in frames]
        assert [packed(labelled.boxes) for labelled in found] == [
            [(label, struct.pack("<4d", *corners)) for label, *corners in boxes]
            for _, boxes in frames
        ]

    store = ExampleStore([source], "", "", NAMES.values(), held_out=0.0)
    examples = sorted(store.examples(), key=lambda example: example.raw.stamp_ns)
    assert [bytes(example.raw.data) for example in examples] == [data for data, _ in frames]
    assert [packed(example.boxes) for example in examples] == [
        [(label, struct.pack("<4d", *corners)) for label, *corners in boxes] for _, boxes in frames
    ]
    assert {example.raw.source for example in examples} == {"corridor"}
