import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.extraction.selection import Selection, TimeLimit, parse_moment, reason_to_skip
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base

T0 = 1_760_000_000_000_000_000
S = 1_000_000_000


def kept(times_ns, **wanted):
    """Return the indexes of the frames that are kept."""
    reason = reason_to_skip(Selection(**wanted))
    return [index for index, time_ns in enumerate(times_ns) if not reason(time_ns)]


def camera(rate_hz, count, jitter_ns=0):
    """Return times that are up to `jitter_ns` early or late by turns."""
    shift = (0, jitter_ns, -jitter_ns, jitter_ns // 2)
    return [T0 + round(i * S / rate_hz) + (shift[i % 4] if i else 0) for i in range(count)]


def test_everything_is_wanted_without_a_word():
    assert kept(camera(30, 10)) == list(range(10))


def test_every_nth_frame_begins_with_the_first():
    assert kept(camera(30, 10), every_n=4) == [0, 4, 8]


@pytest.mark.parametrize("jitter_ms", [0, 2, 7])
@pytest.mark.parametrize(("rate_hz", "step"), [(30, 1), (100, 1), (15, 2), (10, 3), (1, 30)])
def test_a_rate_takes_evenly_spaced_frames_though_the_clock_jitters(rate_hz, step, jitter_ms):
    times = camera(30, 240, jitter_ms * 1_000_000)
    assert kept(times, rate_hz=rate_hz) == list(range(0, 240, step))


@given(st.lists(st.integers(0, 20 * S), min_size=1, max_size=200), st.floats(0.1, 50))
def test_there_are_never_more_frames_than_the_rate_allows(offsets, rate_hz):
    times = sorted(T0 + offset for offset in offsets)
    indexes = kept(times, rate_hz=rate_hz)
    assert indexes[0] == 0
    assert len(indexes) <= (times[-1] - times[0]) / S * rate_hz + 1.5 + 1e-6


def test_after_a_clock_that_was_set_back_frames_are_taken_again():
    times = [*camera(10, 20), *(t - 3600 * S for t in camera(10, 20))]
    assert len(kept(times, rate_hz=5)) == 20


def test_a_range_counts_from_the_first_frame_or_is_absolute():
    times = camera(1, 10)
    relative = {"start": TimeLimit(2 * S, absolute=False), "end": TimeLimit(5 * S, absolute=False)}
    assert kept(times, **relative) == [2, 3, 4]
    absolute = {"start": TimeLimit(T0 + 8 * S, absolute=True)}
    assert kept(times, **absolute) == [8, 9]
    assert kept(times, **relative, every_n=2) == [2, 4]


def test_the_reason_says_range_or_rate():
    reason = reason_to_skip(Selection(TimeLimit(S, absolute=False), None, 2, 0.0))
    assert [reason(time_ns) for time_ns in camera(1, 4)] == ["time range", "", "rate", ""]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("", None),
        ("12.5", TimeLimit(12_500_000_000, absolute=False)),
        ("0", TimeLimit(0, absolute=False)),
        ("1760000000000000001", TimeLimit(T0 + 1, absolute=True)),
        ("2025-10-09T08:53:20Z", TimeLimit(T0, absolute=True)),
        ("2025-10-09T08:53:20", TimeLimit(T0, absolute=True)),
        ("2025-10-09T10:53:20.000000001+02:00", TimeLimit(T0 + 1, absolute=True)),
        ("2025-10-09 08:53:20.5", TimeLimit(T0 + 500_000_000, absolute=True)),
        ("2025-10-09", TimeLimit(T0 - 32_000 * S, absolute=True)),
    ],
)
def test_a_moment_is_seconds_ns_or_iso(text, moment):
    assert parse_moment(text, "--start") == moment


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "12:30", "1e400"])
def test_other_moments_are_refused_with_the_flag(text):
    with pytest.raises(SettingsError, match="--end"):
        parse_moment(text, "--end")
