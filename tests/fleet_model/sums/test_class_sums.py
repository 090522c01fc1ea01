import numpy as np
import pytest

from fleet_model.errors import UpdateError
from fleet_model.sums.class_sums import class_sums
from fleet_model.sums.packing import MAX_RANK, pack_sums, require_scatter, unpack_sums

FEATURES = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [0.0, 5.0]], np.float32)
CLASSES = np.array([0, 0, 2, 2])


def frames(seed: int = 0, count: int = 60, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, count)
    return rng.normal(classes[:, None], 1.0, (count, width)).astype(np.float32), classes


def test_counts_means_and_scatter_by_hand():
    sums = class_sums(FEATURES, CLASSES, 3, 0)
    assert sums.counts.tolist() == [2, 0, 2]
    assert sums.means.tolist() == [[2, 0], [0, 0], [0, 5]]
    assert sums.scatter().tolist() == [[2, 0], [0, 0]]  # (1 - 2)^2 + (3 - 2)^2


def test_one_direction_is_enough_where_frames_differ_in_one():
    sums = class_sums(FEATURES, CLASSES, 3, 1)
    np.testing.assert_allclose(sums.directions, [[np.sqrt(2), 0]])


@pytest.mark.parametrize("count", [8, 60])
def test_leading_directions_are_the_best_of_their_rank(count):
    rows, _ = frames(count=count)
    found = class_sums(rows, np.zeros(count, int), 1, 3).directions
    rows = rows - rows.mean(axis=0, dtype=np.float64)
    _, lengths, axes = np.linalg.svd(rows, full_matrices=False)
    best = (axes[:3].T * lengths[:3] ** 2) @ axes[:3]
    np.testing.assert_allclose(found.T @ found, best, atol=1e-9 * lengths[0] ** 2)


def test_equal_frames_give_no_directions():
    sums = class_sums(np.ones((3, 4)), np.zeros(3, int), 2, 3)
    assert len(sums.directions) == 0
    assert sums.scatter().shape == (4, 4)


def test_rows_one_by_one_and_in_many_chunks_are_the_same_sums():
    rows, classes = frames(count=700)
    one, other = class_sums(rows, classes, 3, 0), class_sums(list(rows), classes, 3, 0)
    assert np.array_equal(one.scatter(), other.scatter())
    centred = rows - np.stack([rows[classes == k].mean(0, np.float64) for k in range(3)])[classes]
    np.testing.assert_allclose(one.scatter(), centred.T @ centred, rtol=1e-9)


def test_exact_sums_travel_as_two_float32_and_lose_nothing():
    features, classes = frames()
    sums = class_sums(features, classes, 4, 0)
    again = unpack_sums(pack_sums(sums), 4, 12)
    np.testing.assert_allclose(again.means, sums.means, rtol=1e-13)
    np.testing.assert_allclose(again.scatter(), sums.scatter(), rtol=1e-12, atol=1e-12)


def test_directions_of_1280_features_and_ten_labels_take_less_than_70_kb():
    rng = np.random.default_rng(0)
    tensors = pack_sums(class_sums(rng.normal(0, 1, (200, 1280)), np.arange(200) % 10, 10, 16))
    assert sum(tensor.nbytes for tensor in tensors.values()) < 70_000
    again = unpack_sums(tensors, 10, 1280)
    assert len(again.directions) == 16


WRONG = {
    "differ in 'means'": lambda t: t.pop("means"),
    "shape": lambda t: t.update(means=t["means"][:, :3]),
    "float64 of shape": lambda t: t.update(counts=t["counts"].astype(np.float64)),
    "not whole": lambda t: t.update(counts=t["counts"] + np.float32(0.5)),
    "NaN": lambda t: t["means"].fill(np.nan),
    "of its scale": lambda t: t["directions"].fill(2),
    "no frames": lambda t: t["counts"].fill(0),
    "above 1e": lambda t: t["means_scale"].fill(1e9),
    "differ in 'more'": lambda t: t.update(more=t["counts"]),
    f"more than {MAX_RANK}": lambda t: t.update(directions=np.zeros((99, 12), np.float16)),
}


@pytest.mark.parametrize("words", WRONG)
def test_tensors_of_a_stranger_that_are_no_sums_are_refused(words):
    features, classes = frames()
    tensors = dict(pack_sums(class_sums(features, classes, 3, 2)))
    WRONG[words](tensors)
    with pytest.raises(UpdateError, match=words):
        unpack_sums(tensors, 3, 12)


def test_a_scatter_that_no_frames_have_is_refused():
    features, classes = frames()
    tensors = dict(pack_sums(class_sums(features, classes, 3, 0)))
    tensors["within"] = -tensors["within"]
    with pytest.raises(UpdateError, match="semidefinite"):
        require_scatter(unpack_sums(tensors, 3, 12))


def test_frames_further_from_their_mean_than_any_features_are_refused():
    features, classes = frames()
    tensors = dict(pack_sums(class_sums(features, classes, 3, 2)))
    tensors["directions_scale"] = np.full(2, 1e30, np.float32)
    with pytest.raises(UpdateError, match="away from their means"):
        require_scatter(unpack_sums(tensors, 3, 12))
