import json
import struct

import pytest

from edge_agent.data.label_formats.data_set import open_format
from edge_agent.data.label_formats.tfds import tfds
from edge_agent.data.label_formats.tfds.tf_example import Features
from edge_agent.data.label_formats.tfds.tfrecord import write_record
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

pytestmark = pytest.mark.base


def feature(**content):
    return {"pythonClassName": "x", **content}


def index(features, names, length, **info):
    """Return the files of a directory as tensorflow_datasets writes them."""
    whole = feature(featuresDict={"features": features})
    split = {"name": "train", "shardLengths": [str(length)]}
    described = {"name": "cups", "splits": [split], "version": "1.0.0", "fileFormat": "tfrecord"}
    files = {
        "features.json": json.dumps(whole),
        "dataset_info.json": json.dumps(described | info),
    }
    return files | {f"{key}.labels.txt": "\n".join(value) for key, value in names.items()}


def write(root, files, records):
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_text(content)
    with (root / "cups-train.tfrecord-00000-of-00001").open("wb") as stream:
        for features in records:
            write_record(stream, features.record())
    return root


IMAGE = feature(image={"shape": {"dimensions": ["-1", "-1", "3"]}})
LABEL = feature(classLabel={"numClasses": "2"})


def objects(bbox_format=""):
    shape = {"shape": {"dimensions": ["4"]}} | ({"bboxFormat": bbox_format} if bbox_format else {})
    inner = {"bbox": feature(boundingBox=shape), "label": LABEL, "is_crowd": feature(tensor={})}
    whole = feature(featuresDict={"features": inner})
    return feature(sequence={"feature": whole, "length": "-1"})


def test_a_foreign_classification_set_is_read(tmp_path, make_picture, load_all):
    records = []
    for number in (0, 1, -1):
        features = Features()
        features.add_bytes("image", [make_picture(number + 1)])
        features.add_integers("label", [number])
        records.append(features)
    files = index({"image": IMAGE, "label": LABEL}, {"label": ["bin", "cup"]}, 3)
    path = write(tmp_path / "cups/1.0.0", files, records)
    for root in (path, path.parent, tmp_path):
        assert open_format("tfds").recognizes(root)
        found = load_all("tfds", root)
        assert [labelled.label for labelled in found] == ["bin", "cup", ""]
        assert found[0].frame.topic == "train/000000"
        assert len({labelled.frame.stamp_ns for labelled in found}) == 3
        assert bytes(found[0].frame.data) == make_picture(1)


@pytest.mark.parametrize(
    ("bbox_format", "numbers"),
    [
        ("", (0.25, 0.125, 0.75, 0.5)),
        ("REL_YXYX", (0.25, 0.125, 0.75, 0.5)),
        ("REL_XYXY", (0.125, 0.25, 0.5, 0.75)),
        ("XYXY", (4, 6, 16, 18)),
        ("XYWH", (4, 6, 12, 12)),
        ("CXCYWH", (10, 12, 12, 12)),
    ],
)
def test_a_foreign_detection_set_is_read(tmp_path, make_picture, load_all, bbox_format, numbers):
    features = Features()
    features.add_bytes("image", [make_picture(0)])
    features.add_bytes("image/filename", [b"kitchen.jpg"])
    features.add_floats("objects/bbox", numbers * 2)
    features.add_integers("objects/label", [1, 5])
    names = {"objects-label": ["bin", "cup"]}
    files = index({"image": IMAGE, "objects": objects(bbox_format)}, names, 1)
    path = write(tmp_path / "cups", files, [features])
    damage = DamageLog()
    (found,) = load_all("tfds", path, damage)
    assert found.boxes == (Box(label="cup", x0=4.0, y0=6.0, x1=16.0, y1=18.0),)
    assert (found.label, found.frame.topic) == ("cup", "kitchen.jpg")
    assert [each.kind for each in damage.all()] == ["unknown class"]


def test_the_newest_version_counts_and_several_sets_must_be_named(tmp_path, make_picture, load_all):
    features = Features()
    features.add_bytes("image", [make_picture(0)])
    for name in ("cups/1.9.0", "cups/1.10.0"):
        write(tmp_path / name, index({"image": IMAGE}, {}, 1), [features])
    (found,) = load_all("tfds", tmp_path / "cups")
    assert found.frame.source == "1.10.0"
    write(tmp_path / "bins/1.0.0", index({"image": IMAGE}, {}, 1), [features])
    with pytest.raises(FrameError, match=r"several data sets; name one of them: bins/1\.0\.0"):
        load_all("tfds", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fileFormat": "array_record"}, "stored as array_record; expected tfrecord"),
        ({"splits": 3}, "damaged index"),
        ({"splits": [{"name": "train", "shardLengths": ["x"]}]}, "damaged index"),
    ],
)
def test_an_index_that_cannot_be_used_is_an_error_that_says_why(
    tmp_path, load_all, change, message
):
    path = write(tmp_path / "cups", index({"image": IMAGE}, {}, 0, **change), [])
    with pytest.raises(FrameError, match=message):
        load_all("tfds", path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"featuresDict": {"features": {}}}', "[" * 99999]
)
def test_features_without_a_picture_are_an_error(tmp_path, load_all, text):
    path = write(tmp_path / "cups", index({"image": IMAGE}, {}, 0), [])
    (path / "features.json").write_text(text)
    with pytest.raises(FrameError, match=r"damaged index|names no picture"):
        load_all("tfds", path)


@pytest.mark.parametrize("name", ["../../etc/cups", "/etc/cups", "a\0", "a\ud800"])
def test_a_shard_cannot_lie_outside(tmp_path, load_all, name):
    files = index({"image": IMAGE}, {}, 1, name=name)
    damage = DamageLog()
    assert load_all("tfds", write(tmp_path / "cups", files, []), damage) == []
    assert [each.kind for each in damage.all()] == ["unsafe path"]


def test_a_damaged_record_costs_one_frame_and_stamps_stay_right(data_sets, load_all, make_box):
    rows = [data_sets.row(i, label="bin", boxes=(make_box(),)) for i in range(4)]
    path, _ = data_sets.write("tfds", rows)
    shard = next(path.glob("*.tfrecord-*"))
    content = bytearray(shard.read_bytes())
    (length,) = struct.unpack_from("<Q", content)
    content[16 + length] ^= 1  # the second record's header
    shard.write_bytes(content)
    damage = DamageLog()
    entries = list(open_format("tfds").entries(path, damage))
    assert [entry.time_ns for entry in entries] == [rows[i].stamp_ns for i in (0, 2, 3)]
    assert [entry.load().frame.stamp_ns for entry in entries] == [
        rows[i].stamp_ns for i in (0, 2, 3)
    ]
    assert [each.kind for each in damage.all()] == ["record checksum", "missing records"]


def test_a_missing_shard_is_named_and_the_others_are_read(data_sets, load_all, monkeypatch):
    monkeypatch.setattr(tfds, "_SHARD_BYTES", 3000)
    rows = [data_sets.row(i, label="bin") for i in range(7)]
    path, _ = data_sets.write("tfds", rows)
    shards = sorted(path.glob("*.tfrecord-*"))
    assert len(shards) > 2
    found = load_all("tfds", path)
    assert [labelled.frame.stamp_ns for labelled in found] == [row.stamp_ns for row in rows]
    shards[1].unlink()
    damage = DamageLog()
    assert 0 < len(load_all("tfds", path, damage)) < 7
    assert [each.kind for each in damage.all()] == ["missing file"]


def test_the_pictures_may_be_removed_once_the_records_are_written(data_sets, load_all):
    path, placed = data_sets.write("tfds", [data_sets.row(label="bin")])
    assert open_format("tfds").embeds_images
    (path / placed[0].file).unlink()
    assert load_all("tfds", path)[0].label == "bin"


def test_another_number_of_shards_leaves_none_behind(data_sets, load_all, monkeypatch):
    rows = [data_sets.row(i, label="bin") for i in range(7)]
    monkeypatch.setattr(tfds, "_SHARD_BYTES", 3000)
    data_sets.write("tfds", rows)
    monkeypatch.setattr(tfds, "_SHARD_BYTES", 1 << 28)
    path, _ = data_sets.write("tfds", rows)
    assert [file.name for file in path.glob("*.tfrecord-*")] == [
        "frames-train.tfrecord-00000-of-00001"
    ]
    assert len(load_all("tfds", path)) == 7


@pytest.mark.parametrize(
    "module", ["edge_agent.label_formats.tfds", "edge_agent.data.label_formats.tfds.tfds"]
)
def test_what_an_earlier_release_wrote_is_ours_although_the_module_has_moved(
    data_sets, load_all, module
):
    label = "50% full\nor more"  # only our own names are escaped
    path, _ = data_sets.write("tfds", [data_sets.row(label=label)])
    info = json.loads((path / "dataset_info.json").read_text())
    assert info["moduleName"] == "edge_agent.label_formats.tfds"  # earlier releases read it, too
    (path / "dataset_info.json").write_text(json.dumps({**info, "moduleName": module}))

    (found,) = load_all("tfds", path)

    assert found.label == label


def episode(make_picture, cameras, steps, labels=()):
    """Return an episode as tensorflow_datasets stores it: each feature one list over the steps."""
    features = Features()
    for number, camera in enumerate(cameras):
        pictures = [make_picture(100 * number + step) for step in range(steps)]
        features.add_bytes(f"steps/observation/{camera}", pictures)
    features.add_floats("steps/action", [0.5] * 7 * steps)
    if labels:
        features.add_integers("steps/done", labels)
    return features


def steps_of(**inner):
    whole = feature(featuresDict={"features": inner})
    return feature(sequence={"feature": whole, "length": "-1"})


def test_every_step_and_every_camera_of_an_episode_is_a_frame(tmp_path, make_picture, load_all):
    cameras = {"image": IMAGE, "wrist_image": IMAGE, "state": feature(tensor={})}
    observation = feature(featuresDict={"features": cameras})
    described = {"steps": steps_of(observation=observation, action=feature(tensor={}), done=LABEL)}
    records = [
        episode(make_picture, ("image", "wrist_image"), steps, [0] * (steps - 1) + [1])
        for steps in (5, 4)
    ]
    files = index(described, {"steps-done": ["moving", "done"]}, 2)
    path = write(tmp_path / "arm/1.0.0", files, records)
    found = load_all("tfds", path)
    assert len(found) == 2 * (5 + 4)
    topics = [each.frame.topic for each in found]
    assert topics == ["steps/observation/image", "steps/observation/wrist_image"] * 9
    expected = [(step, camera) for steps in (5, 4) for step in range(steps) for camera in (0, 1)]
    assert [bytes(each.frame.data) for each in found] == [
        make_picture(100 * camera + step) for step, camera in expected
    ]
    assert [each.label for each in found] == (
        ["moving"] * 8 + ["done"] * 2 + ["moving"] * 6 + ["done"] * 2
    )
    stamps = [each.frame.stamp_ns for each in found]
    assert stamps == sorted(set(stamps))
    entries = list(open_format("tfds").entries(path, DamageLog()))
    assert [entry.topic for entry in entries] == topics
    assert len({entry.place for entry in entries}) == 18


def test_a_damaged_episode_is_one_loss_and_the_others_are_whole(tmp_path, make_picture, load_all):
    described = {"steps": steps_of(image=IMAGE)}
    records = []
    for _ in range(2):
        features = Features()
        features.add_bytes("steps/image", [make_picture(0), make_picture(1)])
        records.append(features)
    path = write(tmp_path / "arm", index(described, {}, 2), records)
    file = path / "cups-train.tfrecord-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[60] ^= 1
    file.write_bytes(bytes(content))
    entries = list(open_format("tfds").entries(path, DamageLog()))
    assert len(entries) == 3
    with pytest.raises(FrameError, match="wrong checksum"):
        entries[0].load()
    assert [bytes(entry.load().frame.data) for entry in entries[1:]] == [
        make_picture(0),
        make_picture(1),
    ]


def test_cameras_without_steps_and_videos_are_frames_too(tmp_path, make_picture, load_all):
    features = Features()
    for name, numbers in (("left", (0,)), ("right", (1,))):
        features.add_bytes(name, [make_picture(number) for number in numbers])
    path = write(tmp_path / "pair", index({"left": IMAGE, "right": IMAGE}, {}, 1), [features])
    assert [each.frame.topic for each in load_all("tfds", path)] == ["left", "right"]
    features = Features()
    features.add_bytes("video", [make_picture(number) for number in range(3)])
    path = write(tmp_path / "clip", index({"video": feature(video={})}, {}, 1), [features])
    assert [each.frame.topic for each in load_all("tfds", path)] == ["video"] * 3


def test_a_mask_beside_the_picture_is_no_frame_and_that_is_said(tmp_path, make_picture, load_all):
    records = []
    for number in range(2):
        features = Features()
        features.add_bytes("image", [make_picture(number)])
        features.add_bytes("segmentation_mask", [make_picture(9)])
        records.append(features)
    path = write(
        tmp_path / "pets", index({"image": IMAGE, "segmentation_mask": IMAGE}, {}, 2), records
    )
    damage = DamageLog()
    found = load_all("tfds", path, damage)
    assert [bytes(each.frame.data) for each in found] == [make_picture(0), make_picture(1)]
    (loss,) = damage.all()
    assert (loss.kind, loss.count) == ("feature not read", 2)
    assert loss.begins == "pets/features.json: segmentation_mask"


@pytest.mark.parametrize(("marks", "kept", "left_out"), [((1, 0), [1], 1), ((1, 1), [0, 1], 0)])
def test_crowds_are_left_out_unless_everything_is_one(
    tmp_path, make_picture, load_all, marks, kept, left_out
):
    shares = [(0.25, 0.125, 0.75, 0.5), (0.5, 0.5, 1.0, 1.0)]
    records = []
    for mark, numbers in zip(marks, shares, strict=True):
        features = Features()
        features.add_bytes("image", [make_picture(0)])
        features.add_floats("objects/bbox", numbers)
        features.add_integers("objects/label", [0])
        features.add_integers("objects/is_crowd", [mark])
        records.append(features)
    files = index({"image": IMAGE, "objects": objects()}, {"objects-label": ["cup"]}, 2)
    damage = DamageLog()
    found = load_all("tfds", write(tmp_path / "cups", files, records), damage)
    assert [number for number, each in enumerate(found) if each.boxes] == kept
    assert sum(loss.count for loss in damage.all()) == left_out
    assert {loss.kind for loss in damage.all()} <= {"crowd left out"}


def test_a_record_of_others_without_a_box_is_a_picture_of_nothing_unless_one_was_lost(
    tmp_path, make_picture, load_all
):
    def record(*boxes, crowd=0):
        features = Features()
        features.add_bytes("image", [make_picture(0)])
        features.add_floats("objects/bbox", [number for box in boxes for number in box])
        features.add_integers("objects/label", [0] * len(boxes))
        features.add_integers("objects/is_crowd", [crowd] * len(boxes))
        return features

    box = (0.25, 0.125, 0.75, 0.5)
    records = [record(box), record(), record(box, crowd=1), record((0.5, 0.5, 1.0))]
    files = index({"image": IMAGE, "objects": objects()}, {"objects-label": ["cup"]}, 4)
    found = load_all("tfds", write(tmp_path / "cups", files, records), DamageLog())
    assert [each.seen for each in found] == [True, True, False, False]
    files = index({"image": IMAGE}, {}, 1)
    (plain,) = load_all("tfds", write(tmp_path / "plain", files, [record()]))
    assert not plain.seen


def test_numbers_that_are_no_boxes_are_said_in_words(tmp_path, make_picture, load_all):
    features = Features()
    features.add_bytes("image", [make_picture(0)])
    features.add_floats("objects/bbox", [0.5, 0.5, 1.0])
    files = index({"image": IMAGE, "objects": objects()}, {}, 1)
    damage = DamageLog()
    load_all("tfds", write(tmp_path / "cups", files, [features]), damage)
    assert damage.sentence().endswith("3 numbers, expected four of REL_YXYX for each box")
