"""Directories go both ways between this project and the real tensorflow_datasets."""

import importlib.util
import struct

import cv2
import numpy as np
import pytest

from edge_agent.data.pictures.encode import encode_tiff
from fleet_model.types import Box

pytestmark = [
    pytest.mark.slow,
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow_datasets") is None,
        reason="tensorflow-datasets is not installed",
    ),
    pytest.mark.filterwarnings("ignore"),
]

BOXES = (
    Box(label="bin", x0=1 / 3, y0=2.2, x1=10.1, y1=20.3),
    Box(label="fire\next %", x0=0.1 + 0.2, y0=5e-3, x1=31.999999999999996, y1=24.0),
)


def examples(path):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(path))
    return builder, list(builder.as_dataset(split="train", shuffle_files=False))


def test_tensorflow_datasets_reads_what_is_written_here(data_sets, make_picture):
    rows = [
        data_sets.row(0, label="bin", boxes=BOXES),
        data_sets.row(1),
        data_sets.row(2, label="scene", boxes=BOXES[1:]),
    ]
    path, placed = data_sets.write("tfds", rows)
    builder, found = examples(path)
    assert builder.info.splits["train"].num_examples == 3
    names = builder.info.features["label"].names
    assert names[0] == "bin"
    assert names[2] == "scene"
    assert builder.info.features["objects"]["label"].names == names
    for index, (example, row) in enumerate(zip(found, placed, strict=True)):
        pixels = cv2.imdecode(np.frombuffer(make_picture(index), np.uint8), cv2.IMREAD_COLOR)
        difference = np.abs(example["image"].numpy().astype(int) - pixels[:, :, ::-1])
        assert difference.mean() < 2  # two JPEG decoders, and pictures of noise
        exact = example["objects"]["box_pixels"].numpy()
        expected = [(box.x0, box.y0, box.x1, box.y1) for box in row.boxes]
        assert exact.tolist() == [list(corners) for corners in expected]
        shares = [(y0 / 24, x0 / 32, y1 / 24, x1 / 32) for x0, y0, x1, y1 in expected]
        np.testing.assert_allclose(
            example["objects"]["bbox"].numpy(), np.reshape(shares, (-1, 4)), rtol=1e-6, atol=1e-9
        )
        assert [names[i] for i in example["objects"]["label"].numpy()] == [
            box.label.replace("%", "%25").replace("\n", "%0A") for box in row.boxes
        ]
        assert int(example["stamp_ns"]) == row.stamp_ns
        assert example["topic"].numpy() == b"/camera"
        assert example["file"].numpy() == row.file.encode()
    assert [int(example["label"]) for example in found] == [0, -1, 2]


@pytest.mark.parametrize(
    ("suffix", "shape", "dtype"),
    [
        (".png", (5, 7), np.uint16),
        (".png", (5, 7, 3), np.uint16),
        (".png", (5, 7), np.uint8),
        (".png", (5, 7, 4), np.uint8),
        (".bmp", (5, 7, 3), np.uint8),
    ],
)
def test_other_pictures_come_out_with_their_own_pixels(
    data_sets, make_picture, suffix, shape, dtype
):
    content = make_picture(1, suffix, shape, dtype)
    row = data_sets.row(file=f"a{suffix}", width=7, height=5)
    path, _ = data_sets.write("tfds", [row], pictures=[content])
    _, (example,) = examples(path)
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
    found = example["image"].numpy()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pixels[:, :, order])


def test_pictures_that_tensorflow_cannot_decode_come_out_as_bytes(data_sets, load_all):
    depth = np.random.default_rng(0).random((5, 7), np.float32)
    content = encode_tiff(depth)
    row = data_sets.row(file="a.tiff", width=7, height=5)
    path, _ = data_sets.write("tfds", [row], pictures=[content])
    _, (example,) = examples(path)
    assert example["image"].numpy() == content
    (found,) = load_all("tfds", path)
    np.testing.assert_array_equal(found.frame.pixels(), depth)


def test_what_tensorflow_datasets_writes_is_read_here(tmp_path, load_all):
    import tensorflow_datasets as tfds

    features = tfds.features
    label = features.ClassLabel(names=["bin", "fire ext"])
    objects = features.Sequence({"bbox": features.BBoxFeature(), "label": label})
    image = features.Image(shape=(None, None, 3))
    whole = features.FeaturesDict({"image": image, "label": label, "objects": objects})
    pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 3)).astype(np.uint8)

    def example(count):
        bbox = features.BBox(0.25, 0.125, 0.5, 0.75)
        found = [{"bbox": bbox, "label": i % 2} for i in range(count)]
        return {"image": pixels, "label": -1 if count == 0 else 1, "objects": found}

    tfds.dataset_builders.store_as_tfds_dataset(
        name="boxes",
        version="1.0.0",
        features=whole,
        split_datasets={"train": [(i, example(i)) for i in range(3)], "test": [(9, example(2))]},
        data_dir=tmp_path,
    )
    found = load_all("tfds", tmp_path)
    assert sorted(len(labelled.boxes) for labelled in found) == [0, 1, 2, 2]
    both = next(labelled for labelled in found if len(labelled.boxes) == 2)
    assert both.label == "fire ext"
    assert both.boxes[1] == Box(label="fire ext", x0=8.0, y0=10.0, x1=48.0, y1=20.0)
    np.testing.assert_array_equal(both.frame.decode(), pixels)


def test_a_shard_is_byte_for_byte_what_tensorflow_writes(data_sets, make_picture, tmp_path):
    import tensorflow as tf

    path, _ = data_sets.write("tfds", [data_sets.row(0, label="bin", boxes=BOXES[:1])])
    (shard,) = path.glob("*.tfrecord-*")
    records = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    parsed = tf.train.Example.FromString(records[0])
    corners = parsed.features.feature["objects/box_pixels"].bytes_list.value
    assert struct.unpack("<4d", corners[0]) == (1 / 3, 2.2, 10.1, 20.3)
    assert parsed.features.feature["image"].bytes_list.value[0] == make_picture(0)
    with tf.io.TFRecordWriter(str(tmp_path / "same")) as writer:
        for record in records:
            writer.write(record)
    assert (tmp_path / "same").read_bytes() == shard.read_bytes()
