"""Maps of boxes by hand, and what other maps cost."""

import numpy as np
import pytest

from fleet_model.workloads.object_detector import map_loss as map_loss_of
from fleet_model.workloads.object_detector.detector import MOST_BOXES, NOTHING
from fleet_model.workloads.object_detector.map_loss import FEW, STRIDE, map_loss, truth_of

pytestmark = pytest.mark.tensorflow
SIZE = 128
GRID = SIZE // STRIDE  # 16


def targets(*rows):
    """Return a batch of one frame with boxes (class, x0, y0, x1, y1)."""
    boxes, classes = np.zeros((1, MOST_BOXES, 4), np.float32), np.full((1, MOST_BOXES), NOTHING)
    for i, (label, *box) in enumerate(rows):
        boxes[0, i], classes[0, i] = box, label
    return {"box": boxes, "class": classes.astype(np.int32)}


def test_a_box_is_a_bump_in_the_map_of_its_class_and_ways_to_its_sides():
    # 4 cells wide, 2 high; its middle (52, 44) lies in cell (6, 5).
    truth = truth_of(targets((1, 36, 36, 68, 52)), GRID, 2)
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
    truth = truth_of(targets((0, 0, 0, 64, 64), (1, 24, 24, 56, 56)), GRID, 2)
    heat, sides = np.asarray(truth.heat)[0], np.asarray(truth.sides)[0]
    assert heat[4, 4, 0] == 1.0
    assert heat[5, 5, 1] == 1.0
    assert sides[5, 5] == pytest.approx(np.log([2.5, 2.5, 1.5, 1.5]), rel=1e-5)  # of the second
    assert sides[3, 3] == pytest.approx(np.log([3.5, 3.5, 4.5, 4.5]), rel=1e-5)  # of the first


def test_where_two_things_claim_a_cell_alike_it_learns_the_mean():
    truth = truth_of(targets((0, 36, 36, 68, 52), (1, 36, 36, 68, 52)), GRID, 2)
    assert np.asarray(truth.sides)[0, 5, 6] == pytest.approx(np.log([2.0, 1.0, 2.0, 1.0]), rel=1e-5)


def test_a_frame_of_many_boxes_in_the_batch_changes_no_map_of_the_others():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, SIZE - 40, (FEW + 5, 2))
    boxes = [(i % 2, *low, *(low + rng.uniform(8, 40, 2))) for i, low in enumerate(corners)]
    few, many = targets(*boxes[:FEW]), targets(*boxes)
    both = {name: np.concatenate([few[name], many[name]]) for name in few}
    alone, beside = truth_of(few, GRID, 2), truth_of(both, GRID, 2)
    for name in ("heat", "share", "real"):
        first = np.asarray(getattr(alone, name))[0]
        np.testing.assert_array_equal(first, np.asarray(getattr(beside, name))[0])
    counts = np.asarray(alone.share)[0] > 0  # elsewhere sides teach nothing
    ways = [np.asarray(one.sides)[0][counts] for one in (alone, beside)]
    np.testing.assert_allclose(*ways, rtol=1e-5, atol=1e-6)
    # The boxes behind the first FEW are drawn, too.
    assert (np.asarray(beside.heat)[1] == 1).sum() > (np.asarray(alone.heat)[0] == 1).sum()


def test_near_a_middle_a_guess_costs_less():
    """As below, for a thing four cells wide: two cells beside its middle are of 1 - h to the 4."""
    z = -2.0
    p, h = 1 / (1 + np.exp(-z)), np.exp(-1 / (2 * (4 * 0.54 / 6) ** 2))
    told = targets((0, 36, 36, 68, 52))
    sides = np.asarray(truth_of(told, GRID, 2).sides)  # no loss of sides
    outputs = {"heat": np.full((1, GRID, GRID, 2), z, np.float32), "sides": sides}
    others = 2 * GRID**2 - 3 + 2 * (1 - h) ** 4
    expected = -((1 - p) ** 2 * np.log(p) + others * p**2 * np.log(1 - p))
    loss = float(map_loss(told, outputs, np.ones(1, np.float32)))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_loss_by_hand():
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
    loss = float(map_loss(told, outputs, np.ones(1, np.float32)))
    assert loss == pytest.approx(expected_heat + expected_sides, rel=1e-5)


def test_a_frame_with_nothing_teaches_that_nothing_is_there():
    outputs = {
        "heat": np.full((1, GRID, GRID, 2), -2.0, np.float32),
        "sides": np.ones((1, GRID, GRID, 4), np.float32),
    }
    p = 1 / (1 + np.exp(2.0))
    loss = float(map_loss(targets(), outputs, np.ones(1, np.float32)))
    assert loss == pytest.approx(-2 * GRID**2 * p**2 * np.log(1 - p), rel=1e-5)


def test_a_thing_whose_middle_is_outside_is_not_there_to_be_found():
    """Of a crop: its box reaches in from the left, its middle (-4, 44) does not."""
    told = targets((1, -52, 36, 44, 52), (0, 40, 40, 48, 48))
    heat = np.asarray(truth_of(told, GRID, 2).heat)[0]
    assert (heat[..., 1] == 1.0).sum() == 0
    assert heat[5, 0, 1] == pytest.approx(np.exp(-1 / (2 * (12 * 0.54 / 6) ** 2)), rel=1e-5)
    outputs = {
        "heat": np.full((1, GRID, GRID, 2), -2.0, np.float32),
        "sides": np.asarray(truth_of(told, GRID, 2).sides),  # no loss of sides
    }
    p = 1 / (1 + np.exp(2.0))
    near = ((1 - heat[..., 1].astype(np.float64)) ** 4).sum()
    others = near + GRID**2 - 1
    heat_loss = -((1 - p) ** 2 * np.log(p) + others * p**2 * np.log(1 - p))
    loss = float(map_loss(told, outputs, np.ones(1, np.float32), share=0.75))
    assert loss == pytest.approx(heat_loss / (0.75 * 2), rel=1e-5)  # two things are in the frame


def test_a_row_of_weight_0_changes_nothing():
    rng = np.random.default_rng(0)
    outputs = {
        "heat": rng.normal(size=(2, GRID, GRID, 2)).astype(np.float32),
        "sides": rng.normal(size=(2, GRID, GRID, 4)).astype(np.float32),
    }
    two = {name: np.concatenate([t, t]) for name, t in targets((0, 8, 8, 40, 60)).items()}
    two["box"][1], two["class"][1] = 0, 0  # padding is zeros: class 0 at no place
    one = {name: tensor[:1] for name, tensor in two.items()}
    alone = map_loss(one, {n: t[:1] for n, t in outputs.items()}, np.ones(1, np.float32))
    padded = map_loss(two, outputs, np.array([1, 0], np.float32))
    assert float(padded) == pytest.approx(float(alone), rel=1e-6)


def test_padding_is_not_drawn_whole(monkeypatch):
    """Two frames of few boxes, one of which pads the batch with 100 boxes of class 0."""
    drawn = []
    whole = map_loss_of._drawn
    monkeypatch.setattr(
        map_loss_of, "_drawn", lambda *given: drawn.append(given[0].shape[1]) or whole(*given)
    )
    two = {name: np.concatenate([t, t]) for name, t in targets((0, 8, 8, 40, 60)).items()}
    two["box"][1], two["class"][1] = 0, 0
    truth_of(two, GRID, 2, np.array([1, 0], np.float32))
    assert drawn == [FEW]
    truth_of(two, GRID, 2, np.array([1, 1], np.float32))
    assert drawn == [FEW, FEW, MOST_BOXES]


def drawn(counts):
    """Return boxes of a batch, so many of each frame; every third is too small to teach."""
    rng = np.random.default_rng(3)
    frames = []
    for count in counts:
        corners = rng.uniform(0, SIZE - 40, (count, 2))
        rows = [(i % 2, *low, *(low + rng.uniform(8, 40, 2))) for i, low in enumerate(corners)]
        frames.append(targets(*rows))
        frames[-1]["class"][0, 2:count:3] = -2
    return {name: np.concatenate([one[name] for one in frames]) for name in frames[0]}


def plain_loss(truth, heat, sides, weight):
    """Return the loss as its papers have it, in the type of the maps."""
    import tensorflow as tf

    kind = heat.dtype
    told, share, ways, real = (
        tf.cast(one, kind) for one in (truth.heat, truth.share, truth.sides, truth.real)
    )
    weight = tf.cast(weight, kind)[:, None, None]
    p, here = tf.sigmoid(heat), tf.cast(told == 1, kind)
    hit, miss = -tf.nn.softplus(-heat), -tf.nn.softplus(heat)
    rows = here * (1 - p) ** 2 * hit + (1 - here) * (1 - told) ** 4 * p**2 * miss
    things = tf.maximum(tf.reduce_sum(weight[..., 0] * real), 1)
    away = tf.reduce_sum(tf.sqrt((sides - ways) ** 2 + 1e-2) - 0.1, -1)
    owned = weight * share
    mean = tf.reduce_sum(owned * away) / tf.maximum(tf.reduce_sum(owned), 1e-6)
    return mean - tf.reduce_sum(weight[..., None] * rows) / things


@pytest.mark.parametrize(
    "counts", [(0, 0, 0), (1, 0, 3), (FEW, 2, 1), (FEW + 1, 0, 5), (100, 40, 9)]
)
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 40.0])
def test_the_gradient_is_that_of_the_papers_formula(counts, scale):
    """In float64, from logits that are all alike to those whose exponentials are infinite."""
    import tensorflow as tf

    rng = np.random.default_rng(len(counts) + int(scale))
    told, weight = drawn(counts), np.array([1.0, 0.5, 2.0], np.float32)
    truth = truth_of(told, GRID, 2)
    heat = tf.constant(rng.normal(-1, scale, (3, GRID, GRID, 2)), tf.float32)
    # A quarter of the sides is exactly right: there is the bend.
    wrong = rng.normal(0, scale, (3, GRID, GRID, 4)) * (rng.random((3, GRID, GRID, 1)) > 0.25)
    sides = tf.constant(np.asarray(truth.sides) + wrong, tf.float32)
    found, expected = [], []
    for into, kind in ((found, tf.float32), (expected, tf.float64)):
        maps = {"heat": tf.cast(heat, kind), "sides": tf.cast(sides, kind)}
        with tf.GradientTape() as tape:
            tape.watch(maps)
            if kind == tf.float32:
                loss = map_loss(told, maps, weight)
            else:
                loss = plain_loss(truth, maps["heat"], maps["sides"], weight)
        into += [loss, *tape.gradient(loss, [maps["heat"], maps["sides"]])]
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = ours.numpy(), theirs.numpy()
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * (1 + np.abs(theirs).max()))
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
