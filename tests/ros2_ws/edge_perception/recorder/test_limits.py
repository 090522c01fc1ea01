"""How many are enough."""

import pytest
from edge_perception.recorder.limits import LimitedCount, Limits, at_rate
from edge_perception.recorder.pre_event_buffer import Windows
from recorded import MS, T0

pytestmark = pytest.mark.base
S = 1000 * MS


def chosen(rate_hz, times_ns):
    return list(filter(at_rate(rate_hz), times_ns))


@pytest.mark.parametrize(("rate_hz", "expected"), [(30, 300), (10, 100), (4, 40), (0.5, 5), (0, 0)])
def test_a_camera_of_30_hz_that_jitters_is_thinned_to_the_wanted_rate(rate_hz, expected):
    times = [T0 + i * S // 30 + (i * 7919 % 13 - 6) * MS for i in range(300)]
    assert len(chosen(rate_hz, times)) == pytest.approx(expected, abs=1)


def test_a_clock_that_is_set_back_begins_again():
    later = [T0 + 3600 * S + i * S for i in range(5)]
    assert chosen(1, [*later, *(T0 + i * S for i in range(5))])[5:] == [
        T0 + i * S for i in range(5)
    ]


def test_a_limit_stands_until_the_oldest_is_old_enough():
    count = LimitedCount(Limits(per_minute=2, per_hour=3))
    refusals = []
    for second in (0, 10, 20, 61, 75, 3601):
        refusals.append(count.refusal(T0 + second * S))
        if not refusals[-1]:
            count.add(T0 + second * S)
    assert refusals == ["", "", "per minute", "", "per hour", ""]


def test_without_a_limit_everything_is_allowed():
    count = LimitedCount(Limits())
    for _ in range(1000):
        assert count.refusal(T0) == ""
        count.add(T0)


def test_spans_that_touch_become_one_and_old_ones_are_forgotten():
    windows = Windows()
    for span in ((10, 20), (40, 50), (15, 30), (60, 70), (29, 41)):
        windows.add(*span)
    inside = [moment for moment in range(80) if windows.cover(moment)]
    assert inside == [*range(10, 51), *range(60, 71)]
    windows.forget_before(51)
    assert not windows.cover(50)
    assert windows.cover(60)
    windows.forget_before(71)
    assert not windows
