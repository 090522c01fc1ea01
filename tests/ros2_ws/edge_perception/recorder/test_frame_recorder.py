"""What is kept of a stream, each frame once, in bounded memory."""

import os
import threading

import pytest
from edge_perception.recorder.frame_recorder import FrameRecorder, RecorderSettings
from edge_perception.recorder.limits import Limits
from edge_perception.recorder.spool import Spool, SpoolSettings
from recorded import (
    CAMERA,
    MS,
    T0,
    TOPICS,
    bags_in,
    by_rosbags,
    frame,
    frames_in,
    label,
    labels_in,
)

pytestmark = pytest.mark.base
S = 1000 * MS


@pytest.fixture
def recording(spool_folder):
    """Return recording(spool={...}, **settings): a recorder that the test closes."""

    def start(spool=None, **settings):
        spool_settings = SpoolSettings(folder=spool_folder, name="r1", **(spool or {}))
        settings = {"before_ns": S, "after_ns": S, "label_ns": 100 * MS, **settings}
        return FrameRecorder(RecorderSettings(**settings), Spool(spool_settings, TOPICS))

    return start


def at(ms):
    return T0 + ms * MS


def stream(recorder, begin_ms, end_ms, period_ms=100, labelled=False):
    for ms in range(begin_ms, end_ms, period_ms):
        recorder.offer(frame(ms))
        if labelled:
            recorder.offer(label(ms + 5))


def test_a_trigger_keeps_the_frames_before_and_after_it(recording, spool_folder):
    recorder = recording()
    stream(recorder, 0, 3000)
    triggered = recorder.trigger(at(2900), S, S)
    stream(recorder, 3000, 6000)
    recorder.close()
    assert frames_in(spool_folder) == list(range(1900, 4000, 100))
    assert (triggered.frames, triggered.missing_ns) == (11, 0)
    assert recorder.status().counts["kept by trigger"] == 21


def test_overlapping_triggers_keep_each_frame_once(recording, spool_folder):
    recorder = recording()
    stream(recorder, 0, 3000)
    recorder.trigger(at(2900), S, S)
    stream(recorder, 3000, 3500)
    recorder.trigger(at(3400), S, S)
    stream(recorder, 3500, 4200)
    recorder.trigger(at(4150), S, 100 * MS)
    stream(recorder, 4200, 8000)
    recorder.close()
    assert frames_in(spool_folder) == list(range(1900, 4500, 100))


def test_a_frame_that_arrives_late_belongs_to_the_moment_of_its_stamp(recording, spool_folder):
    recorder = recording()
    recorder.offer(frame(0, late_ms=500))
    recorder.trigger(at(1000), S, S)
    recorder.offer(frame(2000, late_ms=1500))
    recorder.offer(frame(2001, late_ms=1500))
    recorder.close()
    assert frames_in(spool_folder) == [0, 2000]


def test_labels_around_kept_frames_are_kept_with_them(recording, spool_folder):
    recorder = recording(rate_hz=1)
    stream(recorder, 0, 2000, labelled=True)
    recorder.close()
    assert frames_in(spool_folder) == [0, 1000]
    assert labels_in(spool_folder) == [5, 905, 1005]


def test_an_event_keeps_the_labels_around_its_frames(recording, spool_folder):
    recorder = recording()
    stream(recorder, 0, 2000, labelled=True)
    recorder.trigger(at(1500), 200 * MS, 800 * MS)
    stream(recorder, 2000, 3000, labelled=True)
    recorder.close()
    assert frames_in(spool_folder) == list(range(1300, 2400, 100))
    assert labels_in(spool_folder) == list(range(1205, 2405, 100))


def test_a_rate_keeps_frames_and_a_trigger_the_others_between_them(recording, spool_folder):
    recorder = recording(rate_hz=2)
    stream(recorder, 0, 3000)
    recorder.trigger(at(2950), S, 0)
    recorder.close()
    early, late = [0, 500, 1000, 1500], list(range(2000, 3000, 100))
    assert sorted(frames_in(spool_folder)) == early + late


def test_frames_above_a_limit_are_refused_and_counted(recording, spool_folder):
    recorder = recording(rate_hz=10, frame_limits=Limits(per_minute=5))
    stream(recorder, 0, 1000)
    stream(recorder, 61_000, 61_300)
    recorder.close()
    assert frames_in(spool_folder) == [0, 100, 200, 300, 400, 61_000, 61_100, 61_200]
    assert recorder.status().left_out["frame limit per minute"] == 5


def test_triggers_above_a_limit_are_refused_and_counted(recording, spool_folder):
    recorder = recording(trigger_limits=Limits(per_hour=1))
    stream(recorder, 0, 1000)
    assert recorder.trigger(at(500), 100 * MS, 0).refusal == ""
    assert recorder.trigger(at(900), 100 * MS, 0).refusal == "per hour"
    recorder.close()
    assert frames_in(spool_folder) == [400, 500]
    assert recorder.status().left_out["event limit per hour"] == 1


def test_a_trigger_tells_what_the_buffer_does_not_reach_back_to(recording):
    recorder = recording()
    assert recorder.trigger(at(0), S, 0).missing_ns == S
    stream(recorder, 0, 500)
    assert recorder.trigger(at(400), S, 0).missing_ns == 600 * MS
    stream(recorder, 500, 9000)
    assert recorder.trigger(at(8900), 5 * S, 0).missing_ns > S
    recorder.close()


def test_memory_stays_within_its_bound_and_what_goes_early_is_counted(recording, spool_folder):
    bound = 20 * frame(0).size_bytes
    recorder = recording(before_ns=60 * S, max_bytes=bound)
    for ms in range(0, 5000, 100):
        recorder.offer(frame(ms))
        assert recorder.status().memory_bytes <= bound
    triggered = recorder.trigger(at(4900), 60 * S, 0)
    assert (triggered.frames, triggered.missing_ns > 0) == (20, True)
    recorder.close()
    assert frames_in(spool_folder) == list(range(3000, 5000, 100))
    assert recorder.status().left_out["memory bound"] == 30


def test_what_is_written_takes_no_memory_any_more(recording, spool_folder):
    recorder = recording(rate_hz=10, max_bytes=4 * frame(0).size_bytes)
    for ms in range(0, 2000, 100):
        recorder.offer(frame(ms))
        wait_for(lambda ms=ms: recorder.status().counts["frames written"] == ms // 100 + 1)
    recorder.close()
    assert frames_in(spool_folder) == list(range(0, 2000, 100))
    assert recorder.status().memory_bytes == 0


def test_a_disk_that_is_too_slow_costs_frames_not_memory(recording, spool_folder, monkeypatch):
    may_write, add = threading.Event(), Spool.add
    monkeypatch.setattr(Spool, "add", lambda self, m: (may_write.wait(240), add(self, m))[1])
    bound = 5 * frame(0).size_bytes
    recorder = recording(rate_hz=10, max_bytes=bound)
    stream(recorder, 0, 1000)
    assert recorder.status().memory_bytes <= bound
    may_write.set()
    recorder.close()
    assert frames_in(spool_folder) == [0, 100, 200, 300, 400]
    assert recorder.status().left_out["disk too slow"] == 5


def test_a_clock_that_is_set_back_empties_the_buffer(recording, spool_folder):
    recorder = recording()
    stream(recorder, 100_000, 101_000)
    stream(recorder, 0, 1000)
    assert recorder.trigger(at(900), S, 0).frames == 10
    recorder.close()
    assert frames_in(spool_folder) == list(range(0, 1000, 100))


def test_an_event_that_is_over_is_a_bag_while_the_recorder_goes_on(recording, spool_folder):
    recorder = recording()
    stream(recorder, 0, 1000)
    recorder.trigger(at(900), S, S)
    stream(recorder, 1000, 9000)
    wait_for(lambda: bags_in(spool_folder))
    assert frames_in(spool_folder) == list(range(0, 2000, 100))
    recorder.close()


def wait_for(holds):
    ended = threading.Event()
    for _ in range(2400):
        if holds():
            return
        ended.wait(0.1)
    raise AssertionError("it did not happen in time")


def test_the_disk_budget_holds_and_what_it_refuses_is_counted(recording, spool_folder):
    recorder = recording({"budget_bytes": 20_000}, rate_hz=10)
    stream(recorder, 0, 6000)
    recorder.close()
    stamps = frames_in(spool_folder)
    refused = recorder.status().left_out["disk budget"]
    assert 5 < len(stamps) < 30
    assert stamps == list(range(0, 100 * len(stamps), 100))
    assert refused == 60 - len(stamps)
    assert on_disk(spool_folder) <= 20_000


def test_the_budget_counts_the_bags_of_before_the_start(recording, spool_folder):
    recorder = recording(rate_hz=10)
    stream(recorder, 0, 1000)
    recorder.close()
    recorder = recording({"budget_bytes": on_disk(spool_folder) + 100}, rate_hz=10)
    stream(recorder, 10_000, 11_000)
    recorder.close()
    assert frames_in(spool_folder) == list(range(0, 1000, 100))
    assert recorder.status().left_out["disk budget"] == 10


def test_the_oldest_bags_make_room_where_that_is_wanted(recording, spool_folder):
    options = {"budget_bytes": 40_000, "remove_oldest": True, "bag_bytes": 8000}
    recorder = recording(options, rate_hz=10)
    stream(recorder, 0, 9000)
    recorder.close()
    stamps = frames_in(spool_folder)
    assert stamps[-1] == 8900
    assert stamps[0] > 0
    assert "disk budget" not in recorder.status().left_out
    assert on_disk(spool_folder) <= 40_000


def on_disk(spool_folder):
    return sum(f.stat().st_size for f in spool_folder.rglob("*") if f.is_file())


def test_bags_that_follow_each_other_have_each_frame_once_with_its_labels(recording, spool_folder):
    """One label comes before its frame, the other one behind the next frame."""
    recorder = recording({"bag_bytes": 5000, "label_ns": 200 * MS}, rate_hz=10, label_ns=200 * MS)
    early, late, stamps = -30, 150, range(0, 1500, 100)
    messages = [frame(ms) for ms in stamps]
    messages += [label(ms + offset) for ms in stamps for offset in (early, late)]
    for message in sorted(messages, key=lambda m: m.arrived_ns):
        recorder.offer(message)
    recorder.close()
    assert len(bags_in(spool_folder)) > 2
    assert frames_in(spool_folder) == list(stamps)
    for bag in bags_in(spool_folder):
        found = by_rosbags(bag)
        labels = {ms for topic, ms in found if topic != CAMERA}
        for ms in (ms for topic, ms in found if topic == CAMERA):
            assert {ms + early, ms + late} <= labels


def test_a_spool_that_cannot_be_written_is_told_and_frames_are_counted(recording, spool_folder):
    recorder = recording(rate_hz=10)
    spool_folder.rmdir()
    spool_folder.write_text("a file")
    stream(recorder, 0, 1000)
    recorder.close()
    status = recorder.status()
    assert status.left_out["disk fails"] == 10
    assert status.error


def test_a_frame_that_the_model_wants_is_kept_once(recording, spool_folder):
    recorder = recording(frame_limits=Limits(per_day=2))
    frames = [frame(ms) for ms in range(0, 500, 100)]
    for wanted in frames:
        recorder.offer(wanted)
    for wanted in (frames[1], frames[1], frames[3], frames[4]):
        recorder.keep(wanted, "by margin")
    recorder.trigger(at(300), 100 * MS, 0)
    recorder.close()
    assert sorted(frames_in(spool_folder)) == [100, 200, 300]
    status = recorder.status()
    assert (status.counts["kept by margin"], status.left_out["frame limit per day"]) == (2, 1)


def test_a_spool_that_may_not_be_written_is_told_at_the_start(recording, spool_folder, monkeypatch):
    access = os.access  # root may write everywhere
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != spool_folder and access(path, mode)
    )
    with pytest.raises(PermissionError, match="Permission denied"):
        recording()
