"""Photos with an EXIF orientation in data sets: boxes belong to the upright picture."""

import json
import struct

import cv2
import numpy as np
import pytest

from edge_agent.data.extraction.extract import ExtractOptions, extract
from edge_agent.data.labels import LabelSettings, labelled_frames
from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from edge_agent.examples.example_store import ExampleStore
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

pytestmark = pytest.mark.base

# Stored 320 x 240, red in its lower left corner; turned clockwise that is the upper left.
STORED = np.zeros((240, 320, 3), np.uint8)
STORED[120:, :160] = (0, 0, 255)  # OpenCV's order
RED = Box(label="bin", x0=0, y0=0, x1=120, y1=160)


def photo(orientation=6):
    content = cv2.imencode(".jpg", STORED, (cv2.IMWRITE_JPEG_QUALITY, 98))[1].tobytes()
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]


def shows_red(frame, box):
    """Whether what the box frames is red, and nothing beside it."""
    picture = frame.decode()
    is_red = (picture[..., 0] > 128) & (picture[..., 2] < 128)
    x0, y0, x1, y1 = (round(v) for v in (box.x0, box.y0, box.x1, box.y1))
    inside = is_red[y0:y1, x0:x1]
    return inside.size > 0 and inside.mean() > 0.98 and is_red.sum() < 1.02 * inside.size


def load(path, damage=None):
    found = list(labelled_frames(path, LabelSettings(), DamageLog() if damage is None else damage))
    assert found
    return found


def yolo(folder):
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "images/a.jpg").write_bytes(photo())
    (folder / "data.yaml").write_text("train: images\nnames: [bin]\n")
    (folder / "labels/a.txt").write_text("0 .25 .25 .5 .5\n")
    return folder


def coco(folder, size, bbox):
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.jpg").write_bytes(photo())
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": bbox}],
        "categories": [{"id": 1, "name": "bin"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_yolo_boxes_are_shares_of_the_upright_picture(tmp_path):
    (found,) = load(yolo(tmp_path / "set"))
    assert (found.frame.width, found.frame.height) == (240, 320)
    assert found.boxes == (RED,)
    assert shows_red(found.frame, RED)


def test_what_is_converted_is_written_upright_so_that_every_reader_agrees(tmp_path):
    out = tmp_path / "out"
    extract(ExtractOptions(paths=(yolo(tmp_path / "set"),), out=out, format="coco"))
    content = json.loads((out / "annotations/instances.json").read_text())
    (image,), (annotation,) = content["images"], content["annotations"]
    assert (image["width"], image["height"]) == (240, 320)
    assert annotation["bbox"] == [0, 0, 120, 160]
    picture = cv2.imread(str(out / "images" / image["file_name"]))
    assert picture.shape == (320, 240, 3)
    assert image["file_name"].endswith(".png")
    (again,) = load(out)
    assert shows_red(again.frame, again.boxes[0])


def test_a_picture_without_orientation_keeps_its_bytes(tmp_path):
    path = yolo(tmp_path / "set")
    (path / "images/a.jpg").write_bytes(photo(1))
    (path / "labels/a.txt").write_text("0 .25 .75 .5 .5\n")
    extract(ExtractOptions(paths=(path,), out=tmp_path / "out"))
    (written,) = (tmp_path / "out").rglob("*.jpg")
    assert written.read_bytes() == photo(1)


@pytest.mark.parametrize(
    ("size", "bbox", "shown"),
    [
        ((240, 320), [0, 0, 120, 160], (240, 320)),  # a tool that turns
        ((320, 240), [0, 120, 160, 120], (320, 240)),  # one that does not
        ((0, 0), [0, 0, 120, 160], (240, 320)),  # one that does not say
    ],
)
def test_the_size_in_coco_says_whether_its_boxes_are_for_the_upright_picture(
    tmp_path, size, bbox, shown
):
    damage = DamageLog()
    (found,) = load(coco(tmp_path / "set", size, bbox), damage)
    assert (found.frame.width, found.frame.height) == shown
    assert shows_red(found.frame, found.boxes[0])
    assert not damage


def test_boxes_in_coco_for_another_size_are_left_out_and_told(tmp_path):
    damage = DamageLog()
    (found,) = load(coco(tmp_path / "set", (640, 480), [0, 0, 120, 160]), damage)
    assert found.boxes == ()
    told = "set/images/a.jpg: labelled as 640 x 480, has 240 x 320 pixels"
    assert damage.sentence() == f"1 x boxes of another size, first {told}"


@pytest.mark.parametrize(
    ("size", "corners"), [((240, 320), (0, 0, 120, 160)), ((320, 240), (0, 120, 160, 240))]
)
def test_the_size_in_pascal_voc_says_so_as_well(tmp_path, size, corners):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.jpg").write_bytes(photo())
    names = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{name}>{value}</{name}>" for name, value in names)
    (tmp_path / "set/a.xml").write_text(
        f"<annotation><filename>a.jpg</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height></size><object><name>bin</name><bndbox>{box}</bndbox></object>"
        "</annotation>"
    )
    (found,) = load(tmp_path / "set")
    assert (found.frame.width, found.frame.height) == size
    assert shows_red(found.frame, found.boxes[0])


def test_a_folder_of_photos_is_upright(tmp_path):
    (tmp_path / "set/bin").mkdir(parents=True)
    (tmp_path / "set/bin/a.jpg").write_bytes(photo())
    (found,) = load(tmp_path / "set")
    assert found.frame.decode().shape == (320, 240, 3)
    assert shows_red(found.frame, RED)


def test_pictures_that_a_manifest_knows_from_a_bag_stay_as_the_robot_sent_them(tmp_path):
    (tmp_path / "set/bin").mkdir(parents=True)
    (tmp_path / "set/bin/a.jpg").write_bytes(photo())
    stored = Box(label="bin", x0=0, y0=120, x1=160, y1=240)
    row = ManifestRow(
        file="bin/a.jpg", topic="/camera", stamp_ns=1, source="run", label="bin", boxes=(stored,)
    )
    write_manifest(tmp_path / "set" / MANIFEST, [row])
    (found,) = load(tmp_path / "set")
    assert found.frame.decode().shape == (240, 320, 3)
    assert shows_red(found.frame, found.boxes[0])


def test_frames_of_a_bag_stay_as_the_robot_sent_them(bags, tmp_path):
    bags.write(tmp_path / "r1", [("/camera", 7, bags.jpeg(7, photo()))])
    (found,) = load(tmp_path / "r1")
    assert found.frame.decode().shape == (240, 320, 3)
    assert (found.frame.format, found.frame.data) == ("jpeg", photo())


def test_an_example_is_upright_in_every_round(tmp_path):
    """Also where the frame is known and only its bytes are read again."""
    for path in (yolo(tmp_path / "1"), coco(tmp_path / "2", (320, 240), [0, 120, 160, 120])):
        for _ in range(2):
            store = ExampleStore((path,), "", "", ("bin",), index=tmp_path / "index")
            (example,) = store.examples()
            assert shows_red(example.raw, example.boxes[0])
            assert np.array_equal(example.raw.reduced(100), example.raw.decode())
