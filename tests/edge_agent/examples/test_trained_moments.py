"""What a robot was trained on is never measured with, whatever comes and goes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.examples.held_out import HeldOutSplit, Moment
from edge_agent.examples.trained_moments import TrainedMoments

pytestmark = pytest.mark.base

START_NS, SECOND = 1_760_000_000_000_000_000, 1_000_000_000
SEGMENT_S = 2.0


@st.composite
def recordings(draw):
    """Moments at different times, with labels that stay for a while."""
    steps = draw(st.lists(st.integers(1, 40), min_size=2, max_size=80))
    stays = draw(st.integers(1, 8))
    stamp, moments = START_NS, []
    for index, step in enumerate(steps):
        stamp += step * SECOND // 10
        moments.append(Moment(stamp, "r1/camera", "ab"[index // stays % 2], "camera"))
    return moments


@given(recordings(), st.data(), st.sampled_from([0.1, 0.2, 0.5]))
def test_no_eviction_and_no_late_recording_moves_a_moment_from_training_to_held_out(
    moments, data, share
):
    memory = TrainedMoments(None, SEGMENT_S)
    trained = set()
    for _ in range(4):
        now = data.draw(st.lists(st.sampled_from(moments), unique=True))
        split = HeldOutSplit(now, share, SEGMENT_S, memory)
        assert not trained & {moment for moment in now if split.holds_out(moment)}
        trained |= {moment for moment in now if not split.holds_out(moment)}
        memory.add(sorted(moment for moment in now if not split.holds_out(moment)))


@given(recordings(), st.sampled_from([0.1, 0.2, 0.5]))
def test_a_split_that_is_remembered_is_the_same_split(moments, share):
    memory = TrainedMoments(None, SEGMENT_S)
    first = HeldOutSplit(moments, share, SEGMENT_S, memory)
    memory.add(sorted(m for m in moments if not first.holds_out(m)))
    again = HeldOutSplit(moments, share, SEGMENT_S, memory)
    assert [again.holds_out(m) for m in moments] == [first.holds_out(m) for m in moments]


def test_a_later_process_remembers(tmp_path):
    file = tmp_path / "state" / "trained.json"
    old = Moment(START_NS + 5, "r1/camera", "star")
    TrainedMoments(file, 10.0).add([old])
    memory = TrainedMoments(file, 10.0)
    assert old in memory
    assert old._replace(label="circle") not in memory
    assert old._replace(stamp_ns=START_NS + 6) not in memory
    assert old._replace(stamp_ns=START_NS + 4) in memory  # of the same segment, so before the cut


def test_what_is_known_is_not_written_again(tmp_path):
    file = tmp_path / "trained.json"
    old = Moment(START_NS, "r1/camera", "star")
    TrainedMoments(file, 10.0).add([old])
    file.unlink()
    memory = TrainedMoments(None, 10.0)
    memory.add([old])
    memory.add([old])
    assert not file.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"segment_ns": 1, "labels": []}', "null"])
def test_a_damaged_file_or_one_of_other_segments_is_forgotten(tmp_path, content):
    file = tmp_path / "trained.json"
    file.write_text(content)
    memory = TrainedMoments(file, 1e-9)
    assert Moment(START_NS, "r1/camera", "star") not in memory
    memory.add([Moment(START_NS, "r1/camera", "star")])
    assert json.loads(file.read_text())["segment_ns"] == 1


def test_a_disk_that_takes_nothing_costs_only_the_memory(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    memory = TrainedMoments(tmp_path / "file" / "trained.json", 10.0)
    moment = Moment(START_NS, "r1/camera", "star")
    memory.add([moment])
    assert moment in memory
    assert "is not kept" in caplog.text
