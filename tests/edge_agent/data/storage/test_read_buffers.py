"""Memory is used again exactly when no view of it is left."""

import numpy as np
import pytest

from edge_agent.data.storage.read_buffers import ReadBuffers

pytestmark = pytest.mark.base
LARGE = 1 << 20


def test_memory_that_nobody_looks_at_is_used_again():
    buffers = ReadBuffers()
    first = buffers.take(LARGE)
    first[:] = b"7" * LARGE
    del first
    assert set(bytes(buffers.take(LARGE // 2))) == {ord("7")}  # fresh memory holds zeros


def test_a_view_that_is_left_keeps_its_bytes_however_many_follow():
    buffers = ReadBuffers()
    kept = []
    for number in range(10):
        view = buffers.take(LARGE)
        view[:] = bytes([number]) * LARGE
        kept.append(np.frombuffer(view.toreadonly(), np.uint8)[::4096])  # a view of a view
        del view
    assert [set(rows.tolist()) for rows in kept] == [{number} for number in range(10)]


def test_small_pieces_are_their_own():
    buffers = ReadBuffers()
    first, second = buffers.take(10), buffers.take(10)
    first[:] = b"a" * 10
    second[:] = b"b" * 10
    assert bytes(first) == b"a" * 10
