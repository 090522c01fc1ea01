"""Heads by hand, against one machine with all frames, and in any order."""

import numpy as np
import pytest

from cloud_server.closed_form.doubts import doubts_of
from cloud_server.closed_form.fleet_sums import MAX_FOLDS, fleet_sums
from cloud_server.closed_form.heads import class_means, lda, ridge
from cloud_server.closed_form.leave_one_out import choose_strength, class_errors, noise
from cloud_server.closed_form.moments import Basis, Moments
from cloud_server.closed_form.solve import solve
from fleet_model.sums.adding import added
from fleet_model.sums.class_sums import class_sums
from fleet_model.sums.packing import pack_sums, unpack_sums

CLASSES, WIDTH = 4, 30
MIDDLES = np.random.default_rng(99).normal(0, 1.2, (CLASSES, WIDTH))


def frames(seed, count=80, labels=(0, 1, 2, 3)):
    rng = np.random.default_rng(seed)
    classes = rng.choice(labels, count)
    return (MIDDLES[classes] + rng.normal(0, 1, (count, WIDTH))).astype(np.float32), classes


def robots(rank, number=4, turned=(), **of):
    found = {}
    for robot in range(number):
        features, classes = frames(robot, **of)
        if robot in turned:
            classes = CLASSES - 1 - classes
        found[f"r{robot:02}"] = class_sums(features, classes, CLASSES, rank)
    return found


def differs(one, other):
    """Return the largest relative difference of two heads."""
    return max(
        np.abs(a.astype(np.float64) - b).max() / np.abs(b).max()
        for a, b in ((one.kernel, other.kernel), (one.bias, other.bias))
    )


def test_ridge_by_hand():
    # Frames -1, 1 of class 0 and 2, 4 of class 1: mean 1.5, centred moment 22 - 4 * 1.5^2 = 13.
    moments = Moments(
        counts=np.array([2.0, 2.0]), sums=np.array([[0.0], [6.0]]), second=np.array([[22.0]])
    )
    head = ridge(moments, 1.0, 1)  # 13 + 1.0 * 13 on the diagonal
    np.testing.assert_allclose(head.kernel, [[-3 / 26, 3 / 26]])
    np.testing.assert_allclose(head.bias, [0.5 + 1.5 * 3 / 26, 0.5 - 1.5 * 3 / 26])


def test_lda_and_class_means_by_hand():
    moments = Moments(
        counts=np.array([2.0, 2.0]), sums=np.array([[0.0], [6.0]]), second=np.array([[22.0]])
    )
    # Means 0 and 3 around 1.5; within 22 - 18 = 4, a frame's variance 1, twice that with 1.0 on it.
    head = lda(moments, 1.0, 1)
    np.testing.assert_allclose(head.kernel, [[-0.75, 0.75]])
    np.testing.assert_allclose(head.bias, [-0.5 * 1.125 + 1.125, -0.5 * 1.125 - 1.125])
    head = class_means(moments, 0.0, 1)
    np.testing.assert_allclose(head.kernel, [[-1.5, 1.5]])
    logits = np.array([[1.4], [1.6]]) @ head.kernel + head.bias
    assert logits.argmax(axis=1).tolist() == [0, 1]  # the nearer mean


def test_the_error_of_a_robot_that_was_left_out_is_that_on_its_frames():
    features, classes = frames(7)
    own = Basis(None, WIDTH).moments(class_sums(features, classes, CLASSES, 0))
    head = ridge(fleet_sums(robots(0)).total, 0.3, WIDTH)
    answers = features.astype(np.float64) @ head.kernel + head.bias
    wrong = ((np.eye(CLASSES)[classes] - answers) ** 2).sum()
    np.testing.assert_allclose(
        class_errors(head, own.means) @ own.counts + noise(head, own), wrong, rtol=1e-9
    )


@pytest.mark.parametrize("method", ["ridge", "lda", "ncm"])
def test_exact_sums_in_any_order_and_partition_give_the_head_of_one_machine(method):
    parts = [frames(robot) for robot in range(6)]
    features, classes = (np.concatenate(side) for side in zip(*parts, strict=True))
    everything = class_sums(features, classes, CLASSES, 0)
    central = fleet_sums({"all": everything})
    several = {f"r{i}": class_sums(*part, CLASSES, 0) for i, part in enumerate(parts)}
    halves = {
        f"{i}-{half}": class_sums(features[half::2], classes[half::2], CLASSES, 0)
        for i, (features, classes) in enumerate(parts)
        for half in range(2)
    }
    for robots_ in (several, dict(reversed(several.items())), halves):
        travelled = {
            name: unpack_sums(pack_sums(one), CLASSES, WIDTH) for name, one in robots_.items()
        }
        for name in ("counts", "sums", "second"):
            np.testing.assert_allclose(
                getattr(fleet_sums(travelled).total, name), getattr(central.total, name), rtol=1e-9
            )
        for own in (robots_, travelled):
            head = _head(fleet_sums(own), method)
            np.testing.assert_allclose(head.kernel, _head(central, method).kernel, rtol=1e-9)
            np.testing.assert_allclose(head.bias, _head(central, method).bias, rtol=1e-9)


def _head(sums, method):
    return {"ridge": ridge, "lda": lda, "ncm": class_means}[method](sums.total, 0.3, sums.width)


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("number", [4, MAX_FOLDS + 7])
def test_the_order_of_robots_changes_no_bit(rank, number):
    own = robots(rank, number, count=24)
    names = list(own)
    np.random.default_rng(1).shuffle(names)
    mixed = {name: own[name] for name in names}
    for part in ("counts", "sums", "second"):
        added = [getattr(fleet_sums(robots_).total, part) for robots_ in (own, mixed)]
        assert np.array_equal(*added), part
    one, other = solve(own, "ridge"), solve(mixed, "ridge")
    assert np.array_equal(one.kernel, other.kernel)
    assert np.array_equal(one.bias, other.bias)


@pytest.mark.parametrize("rank", [0, 3])
def test_a_robot_that_is_taken_out_leaves_no_trace(rank):
    own = robots(rank)
    rest = {name: one for name, one in own.items() if name != "r02"}
    taken = fleet_sums(own).without("r02").total
    np.testing.assert_allclose(
        ridge(taken, 1.0, WIDTH).kernel @ np.eye(CLASSES),
        _in_axes_of(own, rest, 1.0),
        rtol=1e-9,
        atol=1e-12,
    )
    assert solve(rest, "ridge").robots == ["r00", "r01", "r03"]


def _in_axes_of(own, rest, strength):
    """Return the kernel of `rest` in the axes that the sums of `own` have."""
    axes = fleet_sums(own).basis.axes
    sums = fleet_sums(rest)
    kernel = sums.basis.whole(ridge(sums.total, strength, WIDTH).kernel)
    return kernel if axes is None else axes @ kernel


def test_few_axes_give_the_head_that_all_give():
    own = robots(2, number=2)
    few = fleet_sums(own)
    assert few.basis.axes.shape[0] < WIDTH
    whole = Basis(None, WIDTH)
    moments = whole.moments(own["r00"]) + whole.moments(own["r01"])
    np.testing.assert_allclose(
        few.basis.whole(ridge(few.total, 0.3, WIDTH).kernel),
        ridge(moments, 0.3, WIDTH).kernel,
        rtol=1e-6,
        atol=1e-9,
    )


def test_heads_know_frames_that_they_have_not_seen():
    features, classes = frames(1000, 400)
    for method in ("ridge", "lda", "ncm"):
        made = solve(robots(6), method)
        right = (features @ made.kernel + made.bias).argmax(axis=1) == classes
        assert right.mean() > 0.95, method


def test_a_label_that_nobody_has_shown_is_never_the_answer():
    made = solve(robots(6, labels=(0, 1, 3)), "ridge")
    features, _ = frames(1000, 400)
    assert 2 not in (features @ made.kernel + made.bias).argmax(axis=1)
    assert np.isfinite(made.kernel).all()
    assert made.frames[2] == 0


def test_a_new_label_is_a_new_column():
    own = robots(6, labels=(0, 1, 2))
    own["new"] = class_sums(*frames(50, 40, labels=(0, 3)), CLASSES, 6)
    made = solve(own, "ridge")
    assert made.doubts == []
    features, classes = frames(1000, 400)
    right = (features @ made.kernel + made.bias).argmax(axis=1) == classes
    assert right[classes == 3].mean() > 0.9


@pytest.mark.parametrize("turned", [(), (0,), (3,)])
@pytest.mark.parametrize("number", [4, MAX_FOLDS + 5])
def test_a_robot_that_reverses_labels_is_named_and_nobody_else(turned, number):
    made = solve(robots(6, number, turned), "ridge")
    assert [doubt.robot for doubt in made.doubts] == [f"r{one:02}" for one in turned]
    if turned:
        rest = {n: s for n, s in robots(6, number, turned).items() if n not in made.doubts[0].robot}
        assert differs(made, solve(rest, "ridge")) < 1e-5
        assert "contradict" in made.doubts[0].words


def test_of_two_robots_nobody_is_taken_out():
    assert solve(robots(6, 2, (1,)), "ridge").doubts == []


def test_a_single_robot_makes_a_head():
    features, classes = frames(1000, 400)
    made = solve(robots(6, 1), "ridge")
    assert ((features @ made.kernel + made.bias).argmax(axis=1) == classes).mean() > 0.85


def test_noise_asks_for_a_stronger_ridge():
    noisy = {
        f"r{robot}": class_sums(
            *(lambda f, c: (f + np.random.default_rng(robot).normal(0, 8, f.shape), c))(
                *frames(robot, 20)
            ),
            CLASSES,
            0,
        )
        for robot in range(4)
    }
    assert choose_strength(fleet_sums(noisy)) > choose_strength(fleet_sums(robots(0, count=400)))


@pytest.mark.parametrize("method", ["ridge", "lda", "ncm"])
def test_two_buildings_behind_relays_give_the_head_of_their_robots(method):
    own = robots(0, 6)
    names = sorted(own)
    relayed = {
        f"relay-{k}": unpack_sums(
            pack_sums(added((own[name], 1.0) for name in names[k::2])), CLASSES, WIDTH
        )
        for k in range(2)
    }
    one, other = _head(fleet_sums(relayed), method), _head(fleet_sums(own), method)
    scale = np.abs(other.kernel).max()
    np.testing.assert_allclose(one.kernel / scale, other.kernel / scale, rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.bias, other.bias, rtol=1e-9)


@pytest.mark.parametrize(("number", "found"), [(4, ["r01"]), (2, [])])
def test_a_relay_finds_a_reversed_robot_as_the_server_would(number, found):
    own = robots(0, number, (1,))
    assert [doubt.robot for doubt in doubts_of(own, {})] == found
    assert solve(own, "ridge").doubts == doubts_of(own, {})


def test_frames_of_a_robot_count_what_they_are_said_to():
    own = robots(0, 2)
    twice = fleet_sums(own, {"r00": 2.0}).total
    double = Basis(None, WIDTH).moments(own["r00"])
    expected = double + double + Basis(None, WIDTH).moments(own["r01"])
    np.testing.assert_allclose(twice.second, expected.second, rtol=1e-12)
