"""When something happened, by its own bytes."""

import pytest
from edge_perception.recorder.message import moment_of, stamp_of
from recorded import MS, T0, frame

pytestmark = pytest.mark.base
S = 1000 * MS


def test_the_stamp_is_read_out_of_the_serialized_header():
    assert stamp_of(frame(1234).data) == T0 + 1234 * MS
    empty = (1).to_bytes(4, "big") + b"\0"  # a frame_id of no letters
    big_endian = b"\0\0\0\0" + (7).to_bytes(4, "big") + (8).to_bytes(4, "big")
    assert stamp_of(big_endian + empty) == 7 * S + 8
    assert stamp_of(big_endian + b"\xff" * 4) == 0  # it has not so many letters
    assert stamp_of(b"\0\1\0\0" + (7).to_bytes(4, "little")) == 0


@pytest.mark.parametrize("late_ms", [-2000, 0, 1, 2000])
def test_a_stamp_of_the_same_clock_is_the_moment(late_ms):
    assert moment_of(T0, T0 + late_ms * MS) == T0


@pytest.mark.parametrize("stamp_ns", [0, T0 - 2 * S - 1, T0 + 2 * S + 1])
def test_a_stamp_of_another_clock_or_none_is_not(stamp_ns):
    assert moment_of(stamp_ns, T0) == T0
