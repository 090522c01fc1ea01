"""Batches out of rows."""

import numpy as np

from edge_agent.training.rows import RowAgain, Rows, from_float16, stacked
from fleet_model.types import Target


def test_rows_of_several_lengths_have_the_longest_one():
    rows = [
        {"x": np.ones((2, 3), np.float32), "n": np.int32(4)},
        {"x": np.full((1, 3), 2, np.float32), "n": np.int32(5)},
    ]
    found = stacked(rows, 3)
    assert found["x"].dtype == np.float32
    assert found["n"].tolist() == [4, 5, 0]
    assert found["x"][:, :, 0].tolist() == [[1, 1], [2, 0], [0, 0]]


def test_what_is_kept_in_float16_is_computed_with_in_float32():
    found = stacked([{"x": np.array([0.1, 3], np.float16)}], 1)
    assert found["x"].dtype == np.float32
    assert found["x"].tolist() == [[float(np.float16(0.1)), 3.0]]


def test_float16_has_the_value_that_numpy_gives_it():
    bits = np.arange(2**16, dtype=np.uint16)
    finite = bits[bits & 0x7C00 != 0x7C00].view(np.int16)
    found = from_float16(finite)
    assert found.dtype == np.float32
    expected = finite.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))  # -0 is -0
    for odd in (0x7C00, 0xFC00, 0x7E00):  # infinite, or not a number
        some = np.array([0x3C00, odd], np.uint16).view(np.int16)
        np.testing.assert_array_equal(from_float16(some), some.view(np.float16).astype(np.float32))
    assert from_float16(np.zeros((0, 3), np.int16)).shape == (0, 3)


def test_rows_in_float16_of_several_lengths_end_in_zeros():
    rows = [{"x": np.array([[1, 2]], np.float16)}, {"x": np.array([[3, 4], [-5, 0.5]], np.float16)}]
    assert stacked(rows, 3)["x"].tolist() == [
        [[1, 2], [0, 0]],
        [[3, 4], [-5, 0.5]],
        [[0, 0], [0, 0]],
    ]


def test_a_row_without_room_is_computed_once_a_batch():
    asked = []

    def compute():
        asked.append(1)
        return {"a": np.ones(2), "b": np.zeros(2)}

    row = RowAgain(("a", "b"), compute)
    assert not asked
    assert len(row) == 2
    found = stacked([row], 1)
    assert len(asked) == 1
    assert found["a"].tolist() == [[1, 1]]
    assert row["b"].tolist() == [0, 0]


class Crops:
    """A workload whose steps learn from two numbers of a row, in a row."""

    of_crops = "a workload"

    @staticmethod
    def crop(features, target, rng):
        first = int(rng.integers(0, 9))
        return {"x": features["x"][first : first + 2]}, {"first": target["first"] + first}


def test_each_batch_has_new_crops_and_the_same_seed_the_same():
    features = [{"x": np.arange(10.0)}, RowAgain(["x"], lambda: {"x": np.arange(10.0)})]
    whole = Rows(features, [Target(tensors={"first": np.int32(0)})] * 2)

    def drawn(seed):
        rows = whole.cropped(Crops(), seed)
        return [batch.features["x"] for _ in range(20) for batch in rows.batches([0, 1], 3)]

    first = drawn(7)
    assert {x.shape for x in first} == {(3, 2)}
    assert all((x[:2, 1] == x[:2, 0] + 1).all() and not x[2].any() for x in first)
    assert len({tuple(x[:2, 0]) for x in first}) > 5
    np.testing.assert_array_equal(first, drawn(7))
    assert not np.array_equal(first, drawn(8))
    (batch,) = whole.cropped(Crops(), 7).batches([0], 1)
    assert batch.targets["first"].tolist() == batch.features["x"][:, 0].tolist()


def test_rows_of_a_workload_without_crops_stay_whole():
    rows = Rows([{"x": np.arange(10.0)}], [Target(tensors={})])
    assert rows.cropped(object(), 0) is rows
