"""Waits between tries."""

import pytest

from edge_agent.robot.backoff import GROWTH, Backoff

pytestmark = pytest.mark.base


@pytest.mark.parametrize("most_s", [60.0, 300.0])
def test_waits_grow_to_the_most_and_begin_short_again(most_s):
    backoff, step = Backoff(most_s), 1.0
    for _ in range(30):
        assert 0.5 * step <= backoff.next_s() <= 1.5 * step
        step = min(step * GROWTH, most_s)
    assert step == most_s
    backoff.reset()
    assert backoff.next_s() <= 1.5


def test_who_is_back_soon_is_met_soon():
    """A wait is at most half of the time that it has failed for, and a second and a half."""
    for _ in range(20):
        backoff, failed_s = Backoff(), 0.0
        while failed_s < 30:
            wait_s = backoff.next_s()
            assert wait_s <= 1.5 + failed_s
            failed_s += wait_s


def test_waits_are_spread():
    assert len({Backoff().next_s() for _ in range(20)}) > 15
