import pytest
from edge_perception.pacing import LONGEST_GAP_S, Pacer, RateLimit

pytestmark = pytest.mark.base

MS = 1_000_000


def sent_at(pacer, times_ms, now_s=100.0, late_s=0.0):
    """Return when each picture is sent, in seconds from the first; making one takes `late_s`."""
    begun_s, found = now_s, []
    for time_ms in times_ms:
        now_s += late_s
        now_s += pacer.wait_s(time_ms * MS, now_s)
        found.append(round(now_s - begun_s, 6))
    return found


def test_pictures_are_spaced_as_they_were_recorded():
    assert sent_at(Pacer(1, 0), [50, 80, 200]) == [0, 0.03, 0.15]


def test_twice_the_speed_halves_the_gaps():
    assert sent_at(Pacer(2, 0), [50, 80, 200]) == [0, 0.015, 0.075]


def test_a_rate_replaces_the_recorded_times():
    assert sent_at(Pacer(1, 20), [50, 51, 999_999]) == [0, 0.05, 0.1]


def test_time_that_a_picture_takes_is_not_added_to_its_gap():
    assert sent_at(Pacer(1, 0), [0, 100, 200], late_s=0.04) == [0.04, 0.14, 0.24]


def test_pictures_that_are_a_little_late_are_made_up_for():
    pacer = Pacer(1, 0)
    assert pacer.wait_s(0, 100.0) == 0
    assert pacer.wait_s(100 * MS, 100.5) == 0
    assert pacer.wait_s(600 * MS, 100.5) == pytest.approx(0.1)
    assert pacer.slipped == 0


def test_after_a_long_stop_the_pictures_go_on_in_their_own_time_and_it_is_counted():
    pacer = Pacer(1, 0)
    pacer.wait_s(0, 100.0)
    assert pacer.wait_s(100 * MS, 160.0) == 0
    assert pacer.wait_s(200 * MS, 160.0) == pytest.approx(0.1)
    assert pacer.slipped == 1


def test_a_gap_of_hours_is_shortened_and_counted():
    pacer = Pacer(1, 0)
    assert sent_at(pacer, [0, 3_600_000, 3_600_100]) == [0, LONGEST_GAP_S, LONGEST_GAP_S + 0.1]
    assert pacer.shortened == 1


def test_the_next_loop_and_a_clock_that_was_set_back_continue_with_the_last_gap():
    pacer = Pacer(1, 0)
    assert sent_at(pacer, [1000, 1100]) == [0, 0.1]
    pacer.rewind()
    assert pacer.wait_s(1000 * MS, 100.1) == pytest.approx(0.1)
    assert pacer.wait_s(500 * MS, 100.2) == pytest.approx(0.1)


@pytest.mark.parametrize(("rate_hz", "of_300"), [(0, 300), (15, 150), (20, 200), (60, 300)])
def test_a_camera_at_30_hz_gives_the_rate_that_was_asked_for(rate_hz, of_300):
    limit = RateLimit(rate_hz)
    jitter_s = [0, 0.003, -0.004, 0.001, -0.002]
    taken = sum(limit.takes(50 + i / 30 + jitter_s[i % 5]) for i in range(300))
    assert abs(taken - of_300) <= 1


def test_a_camera_that_was_away_is_not_made_up_for():
    limit = RateLimit(10)
    assert [limit.takes(now_s) for now_s in (0.0, 5.0, 5.01, 5.02, 5.1)] == [
        True, True, False, False, True,
    ]  # fmt: skip
