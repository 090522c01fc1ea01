"""What the detector computes: maps of boxes by hand, boxes of maps as plain NumPy has them."""

import numpy as np
import pytest

from fleet_model.workloads.object_detector import ObjectDetector
from fleet_model.workloads.object_detector.detector import ANSWERS, MOST_BOXES, NOTHING
from fleet_model.workloads.object_detector.keras_model import (
    OVERLAP,
    STRIDE,
    ObjectDetectorModel,
    _truth,
)
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


def targets(*rows):
    """Return a batch of one frame with boxes (class, x0, y0, x1, y1)."""
    boxes, classes = np.zeros((1, MOST_BOXES, 4), np.float32), np.full((1, MOST_BOXES), NOTHING)
    for i, (label, *box) in enumerate(rows):
        boxes[0, i], classes[0, i] = box, label
    return {"box": boxes, "class": classes.astype(np.int32)}


def test_a_box_is_a_bump_in_the_map_of_its_class_and_ways_to_its_sides():
    # 4 cells wide, 2 high; its middle (52, 44) lies in cell (6, 5).
    truth = _truth(targets((1, 36, 36, 68, 52)), GRID, 2)
    heat, sides = np.asarray(truth.heat)[0], np.asarray(truth.sides)[0]
    assert not heat[..., 0].any()
    assert heat[5, 6, 1] == 1.0
    assert (heat[..., 1] == 1.0).sum() == 1
    spread = 4 * 0.54 / 6  # cells
    assert heat[5, 7, 1] == pytest.approx(np.exp(-1 / (2 * spread**2)), rel=1e-5)
    assert heat[6, 6, 1] == 0.0  # below .01: two cells high is a narrow bump
    # From the middle of the cell, (52, 44): 16, 8, 16, 8 pixels.
    assert sides[5, 6] == pytest.approx(np.log([2.0, 1.0, 2.0, 1.0]), rel=1e-5)
    # One cell to the right: 24, 8, 8, 8.
    assert sides[5, 7] == pytest.approx(np.log([3.0, 1.0, 1.0, 1.0]), rel=1e-5)
    assert np.asarray(truth.share)[0, 5, 7] == heat[5, 7, 1]


def test_of_two_things_the_nearer_one_has_a_cell_and_each_class_its_own_bump():
    truth = _truth(targets((0, 0, 0, 64, 64), (1, 24, 24, 56, 56)), GRID, 2)
    heat, sides = np.asarray(truth.heat)[0], np.asarray(truth.sides)[0]
    assert heat[4, 4, 0] == 1.0
    assert heat[5, 5, 1] == 1.0
    assert sides[5, 5] == pytest.approx(np.log([2.5, 2.5, 1.5, 1.5]), rel=1e-5)  # of the second
    assert sides[3, 3] == pytest.approx(np.log([3.5, 3.5, 4.5, 4.5]), rel=1e-5)  # of the first


def test_where_two_things_claim_a_cell_alike_it_learns_the_mean():
    truth = _truth(targets((0, 36, 36, 68, 52), (1, 36, 36, 68, 52)), GRID, 2)
    assert np.asarray(truth.sides)[0, 5, 6] == pytest.approx(np.log([2.0, 1.0, 2.0, 1.0]), rel=1e-5)


def test_near_a_middle_a_guess_costs_less(definition):
    """As below, for a thing four cells wide: two cells beside its middle are of 1 - h to the 4."""
    z = -2.0
    p, h = 1 / (1 + np.exp(-z)), np.exp(-1 / (2 * (4 * 0.54 / 6) ** 2))
    told = targets((0, 36, 36, 68, 52))
    sides = np.asarray(_truth(told, GRID, 2).sides)  # no loss of sides
    outputs = {"heat": np.full((1, GRID, GRID, 2), z, np.float32), "sides": sides}
    others = 2 * GRID**2 - 3 + 2 * (1 - h) ** 4
    expected = -((1 - p) ** 2 * np.log(p) + others * p**2 * np.log(1 - p))
    loss = float(definition.loss(told, outputs, np.ones(1, np.float32)))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_loss_by_hand(definition):
    """One thing of one cell, the same logit z everywhere: then all terms are powers of p."""
    z = -2.0
    p = 1 / (1 + np.exp(-z))
    outputs = {
        "heat": np.full((1, GRID, GRID, 2), z, np.float32),
        "sides": np.zeros((1, GRID, GRID, 4), np.float32),
    }
    told = targets((0, 40, 40, 48, 48))  # its sides are half a cell away; no other cell is near
    expected_heat = -((1 - p) ** 2 * np.log(p) + (2 * GRID**2 - 1) * p**2 * np.log(1 - p))
    gap = np.log(0.5)
    expected_sides = 4 * (np.sqrt(gap**2 + 0.01) - 0.1)
    loss = float(definition.loss(told, outputs, np.ones(1, np.float32)))
    assert loss == pytest.approx(expected_heat + expected_sides, rel=1e-5)


def test_a_frame_with_nothing_teaches_that_nothing_is_there(definition):
    outputs = {
        "heat": np.full((1, GRID, GRID, 2), -2.0, np.float32),
        "sides": np.ones((1, GRID, GRID, 4), np.float32),
    }
    p = 1 / (1 + np.exp(2.0))
    loss = float(definition.loss(targets(), outputs, np.ones(1, np.float32)))
    assert loss == pytest.approx(-2 * GRID**2 * p**2 * np.log(1 - p), rel=1e-5)


def test_a_row_of_weight_0_changes_nothing(definition):
    rng = np.random.default_rng(0)
    outputs = {
        "heat": rng.normal(size=(2, GRID, GRID, 2)).astype(np.float32),
        "sides": rng.normal(size=(2, GRID, GRID, 4)).astype(np.float32),
    }
    two = {name: np.concatenate([t, t]) for name, t in targets((0, 8, 8, 40, 60)).items()}
    two["box"][1], two["class"][1, 0] = 0, 0  # padding is zeros: class 0 at no place
    one = {name: tensor[:1] for name, tensor in two.items()}
    alone = definition.loss(one, {n: t[:1] for n, t in outputs.items()}, np.ones(1, np.float32))
    padded = definition.loss(two, outputs, np.array([1, 0], np.float32))
    assert float(padded) == pytest.approx(float(alone), rel=1e-6)


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
