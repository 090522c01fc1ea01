import pytest

from edge_agent.agent.pulse import STALL_S, Pulse

pytestmark = pytest.mark.base


class World:
    """A clock, and bytes that have arrived."""

    now_s, received = 0.0, 0

    def pulse(self):
        return Pulse(lambda: self.received, lambda: self.now_s)


def test_a_loop_that_does_not_come_back_is_dead_when_its_time_is_over():
    world = World()
    pulse = world.pulse()
    pulse.expect(100)

    world.now_s = 100 + STALL_S - 1
    assert pulse.is_alive()
    world.now_s += 1
    assert not pulse.is_alive()


def test_the_next_step_begins_a_time_of_its_own():
    world = World()
    pulse = world.pulse()
    pulse.expect(10_000)
    pulse.expect()

    world.now_s = STALL_S
    assert not pulse.is_alive()


def test_a_slow_download_is_alive_while_bytes_arrive():
    world = World()
    pulse = world.pulse()
    for _ in range(10):
        world.now_s += STALL_S - 1
        world.received += 1
        assert pulse.is_alive()

    world.now_s += STALL_S
    assert not pulse.is_alive()
