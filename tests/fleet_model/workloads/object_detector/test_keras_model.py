"""What the detector computes: boxes of maps as plain NumPy has them, and how it starts."""

import numpy as np
import pytest

from fleet_model.workloads.object_detector import ObjectDetector
from fleet_model.workloads.object_detector.detector import ANSWERS
from fleet_model.workloads.object_detector.keras_model import OVERLAP, ObjectDetectorModel
from fleet_model.workloads.object_detector.map_loss import STRIDE
from fleet_model.workloads.object_detector.matching import iou

pytestmark = pytest.mark.tensorflow
SIZE = 128
GRID = SIZE // STRIDE  # 16


@pytest.fixture(scope="module")
def definition():
    return ObjectDetectorModel(ObjectDetector(["duck", "ball"], SIZE))


@pytest.fixture(scope="module")
def model(definition):
    return definition.build()


def read(heat, sides):
    """Return boxes, scores, classes of one frame's maps, as they are said to be, in plain loops."""
    p = 1 / (1 + np.exp(-heat.astype(np.float64)))
    found = []
    for y, x, label in np.ndindex(*heat.shape):
        around = heat[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2, label]
        if heat[y, x, label] >= around.max():
            ways = np.exp(sides[y, x].astype(np.float64)) * STRIDE
            cx, cy = (x + 0.5) * STRIDE, (y + 0.5) * STRIDE
            box = np.clip([cx - ways[0], cy - ways[1], cx + ways[2], cy + ways[3]], 0, SIZE)
            found.append((p[y, x, label], label, box))
    found = sorted(found, key=lambda one: -one[0])[:ANSWERS]
    scores = []
    for i, (score, label, box) in enumerate(found):
        better = [b for _, other, b in found[:i] if other == label]
        worst = iou(box[None], np.array(better)).max() if better else 0.0
        scores.append(score if worst < OVERLAP else 0.0)
    return np.array([b for _, _, b in found]), np.array(scores), [label for _, label, _ in found]


def test_boxes_whose_scores_are_all_1_in_float32_are_ranked_by_their_logits(definition):
    heat = np.full((1, GRID, GRID, 2), -20.0, np.float32)
    heat[0, 0, 0, 0], heat[0, 2, 2, 1] = 20.0, 30.0
    maps = {"heat": heat, "sides": np.zeros((1, GRID, GRID, 4), np.float32)}
    answers = {name: np.asarray(tensor) for name, tensor in definition.answer(maps).items()}
    assert answers["scores"][0, :2].tolist() == [1.0, 1.0]
    assert answers["classes"][0, :2].tolist() == [1, 0]
    # The middle of cell 2 is at 20 pixels, and the sides are exp(0) cells of 8 pixels away.
    assert answers["boxes"][0, 0].tolist() == [12.0, 12.0, 28.0, 28.0]


def test_boxes_are_read_from_maps_as_plain_loops_read_them(definition):
    rng = np.random.default_rng(1)
    heat = rng.normal(size=(3, GRID, GRID, 2)).astype(np.float32)
    sides = rng.normal(0.5, 0.5, size=(3, GRID, GRID, 4)).astype(np.float32)
    answers = {
        n: np.asarray(t) for n, t in definition.answer({"heat": heat, "sides": sides}).items()
    }
    for row in range(3):
        boxes, scores, classes = read(heat[row], sides[row])
        count = len(boxes)
        assert 20 < count < ANSWERS  # so many peaks have the maps: the rest is no peak
        assert (scores == 0).any()  # and some overlap
        np.testing.assert_allclose(answers["boxes"][row, :count], boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(answers["scores"][row, :count], scores, rtol=1e-5, atol=1e-7)
        assert answers["classes"][row, :count].tolist() == classes
        assert not answers["scores"][row, count:].any()


def test_it_starts_unsure_everywhere_and_the_same_at_every_call(definition, model):
    image = np.random.default_rng(0).uniform(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)
    first, again = model(image), definition.build()(image)
    heat = np.asarray(first["heat"])
    assert heat.shape == (1, GRID, GRID, 2)
    assert 0.001 < (1 / (1 + np.exp(-heat))).mean() < 0.05
    np.testing.assert_array_equal(heat, np.asarray(again["heat"]))
    assert np.asarray(first["sides"]).mean() == pytest.approx(np.log(2.5), abs=0.2)


def test_the_trunk_gives_channels_of_one_scale(definition, model):
    import keras

    pictures = [s.encoded.inputs["image"] for s in ObjectDetector(["a"], SIZE).samples(None)][:32]
    for tap in (4, 10, 15):
        norm = keras.Model(model.input, model.get_layer(f"norm_{tap}").output)
        channels = np.asarray(norm(np.stack(pictures)))
        assert abs(channels.mean()) < 0.01
        assert channels.std() == pytest.approx(1.0, abs=0.05)


def test_a_head_is_trained_or_the_last_block_with_it(definition, model):
    head = definition.trainable(model, "head")
    assert not any(path.startswith(("b1", "norm")) for path in head)
    assert {"heat/kernel", "sides/bias", "lateral_4/kernel"} <= set(head)
    more = definition.trainable(model, "last-block")
    assert set(more) - set(head) == {f"b15_{p}/kernel" for p in ("expand", "dw", "project")}
