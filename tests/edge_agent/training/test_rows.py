"""Batches out of rows."""

import numpy as np

from edge_agent.training.rows import RowAgain, stacked


def test_rows_of_several_lengths_have_the_longest_one():
    rows = [
        {"x": np.ones((2, 3), np.float32), "n": np.int32(4)},
        {"x": np.full((1, 3), 2, np.float32), "n": np.int32(5)},
    ]
    found = stacked(rows, 3)
    assert found["x"].dtype == np.float32
    assert found["n"].tolist() == [4, 5, 0]
    assert found["x"][:, :, 0].tolist() == [[1, 1], [2, 0], [0, 0]]


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
