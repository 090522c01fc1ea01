from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.examples.held_out import HeldOutSplit, Moment
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base

START_NS, SECOND = 1_760_000_000_000_000_000, 1_000_000_000
LABELS = ["circle", "square", "star"]
shares = st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.3, 0.5])


@st.composite
def recordings(draw, min_size=2):
    """Moments at different times, with labels that stay for a while."""
    steps = draw(st.lists(st.integers(1, 40), min_size=min_size, max_size=80))
    stays = draw(st.integers(1, 8))
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=12))
    stamp, moments = START_NS, []
    for index, step in enumerate(steps):
        stamp += step * SECOND // 10
        moments.append(Moment(stamp, "r1/camera", labels[index // stays % len(labels)]))
    return moments


def held(moments, share=0.2, segment_s=2.0):
    split = HeldOutSplit(moments, share, segment_s)
    return {moment for moment in moments if split.holds_out(moment)}


@given(recordings(), shares)
def test_both_sides_get_something(moments, share):
    assert 0 < len(held(moments, share)) < len(moments)


@given(recordings(), st.data(), shares)
def test_newer_data_never_moves_a_moment_from_training_to_held_out(moments, data, share):
    count = data.draw(st.integers(0, len(moments)))
    earlier = held(moments[:count], share)
    trained = set(moments[:count]) - earlier
    assert not trained & held(moments, share)


@given(recordings(), st.randoms())
def test_the_order_in_which_recordings_are_read_does_not_matter(moments, random):
    shuffled = random.sample(moments, len(moments))
    assert held(shuffled) == held(moments)


@given(recordings())
def test_frames_of_one_label_in_one_segment_stay_together_unless_the_label_has_no_segment(moments):
    split = held(moments)
    for label in LABELS:
        sides = {}
        for moment in moments:
            if moment.label == label:
                sides.setdefault(moment.stamp_ns // (2 * SECOND), set()).add(moment in split)
        mixed = [segment for segment, side in sides.items() if len(side) == 2]
        newest = [segment for segment, side in sides.items() if side != {False}]
        if mixed:  # then only the newest share is held out, one cut in time
            assert len(mixed) == 1
            assert min(newest) == mixed[0]


@given(recordings(min_size=8))
def test_every_label_of_two_frames_is_trained_on(moments):
    split = held(moments, 0.2, 0.5)
    for label in LABELS:
        mine = [moment for moment in moments if moment.label == label]
        measured = [moment for moment in mine if moment in split]
        assert len(measured) < len(mine) or len(mine) < 2


@pytest.mark.parametrize("share", [0.1, 0.15, 0.2, 0.5])
def test_a_long_recording_holds_out_the_share_that_was_asked_for(share):
    moments = [
        Moment(START_NS + i * SECOND // 2, "r1/camera", LABELS[i // 6 % 3]) for i in range(6000)
    ]
    assert abs(len(held(moments, share, 10.0)) / 6000 - share) < 0.02


def test_two_cameras_of_one_time_are_on_the_same_side():
    def seen_by(camera):
        return [Moment(START_NS + i * SECOND, camera, "star") for i in range(400)]

    split = HeldOutSplit(seen_by("left") + seen_by("right"), 0.2, 10.0)
    left, right = ([split.holds_out(m) for m in seen_by(c)] for c in ("left", "right"))
    assert left == right
    assert 0.15 < sum(left) / 400 < 0.25


def test_a_recording_of_one_segment_holds_out_the_newest_fifth_of_each_label():
    start = START_NS // (1000 * SECOND) * 1000 * SECOND
    moments = [Moment(start + i, "r1/camera", LABELS[i % 2]) for i in range(20)]
    assert {moment.stamp_ns - start for moment in held(moments, 0.2, 1000.0)} == {16, 17, 18, 19}


def test_images_of_one_stamp_are_told_apart_by_their_names():
    moments = [Moment(START_NS, f"signs/star/{i}.png", "star") for i in range(10)]
    assert held(moments) == set(moments[8:])


def test_a_share_of_zero_holds_out_nothing_and_one_moment_is_trained_on():
    moments = [Moment(START_NS + i * SECOND, "r1/camera", "star") for i in range(100)]
    assert held(moments, 0.0) == set()
    assert held(moments[:1], 0.5) == set()


@pytest.mark.parametrize(("share", "segment_s"), [(-0.1, 1.0), (0.6, 1.0), (0.2, 0.0), (0.2, -1.0)])
def test_numbers_out_of_range_are_refused(share, segment_s):
    with pytest.raises(SettingsError, match="expected"):
        HeldOutSplit((), share, segment_s)


def seen_by_camera(count, period_ns, label="star"):
    return [Moment(START_NS + i * period_ns, "r1/camera", label, "/camera") for i in range(count)]


@given(recordings(min_size=8), shares)
def test_no_measured_frame_is_a_neighbor_of_a_training_frame_of_its_camera(moments, share):
    moments = [moment._replace(camera="/camera") for moment in moments]
    split = HeldOutSplit(moments, share, 20.0)  # so neighbors are less than two seconds apart
    training = [m.stamp_ns for m in moments if not split.holds_out(m)]
    for label in LABELS:
        held = [m for m in moments if m.label == label and split.holds_out(m)]
        measured = [m for m in held if not split.between(m)]
        far = [m for m in held if min(abs(m.stamp_ns - stamp) for stamp in training) >= 2 * SECOND]
        assert measured == (far or held)  # a label is measured, if need be with neighbors
        assert (label in split.near) == bool(held and not far)


def test_a_camera_at_30_hz_loses_a_second_at_each_end_of_what_is_held_out():
    moments = seen_by_camera(30 * 400, SECOND // 30)
    split = HeldOutSplit(moments, 0.2, 10.0)
    held = [split.holds_out(moment) for moment in moments]
    left_out = [moment for moment in moments if split.between(moment)]
    borders = sum(one != other for one, other in pairwise(held))
    assert len(left_out) == pytest.approx(30 * borders, abs=borders)
    assert all(split.holds_out(moment) for moment in left_out)


def test_pictures_without_a_camera_have_no_neighbors():
    moments = [Moment(START_NS + i, f"signs/{i}.png", "star") for i in range(10)]
    split = HeldOutSplit(moments, 0.2, 10.0)
    assert not any(map(split.between, moments))


def test_frames_without_a_label_lie_on_the_training_side_of_the_clock():
    """What a label would hold out, a model must not have seen before; nor its neighbors."""
    labelled = seen_by_camera(400, 100_000_000)
    split = HeldOutSplit(labelled, 0.2, 2.0)
    for moment in labelled:
        if split.holds_out(moment) and not split.between(moment):
            for near_ns in (0, 150_000_000, -150_000_000):
                unlabelled = moment._replace(stamp_ns=moment.stamp_ns + near_ns, label="")
                assert split.may_hold_out(unlabelled)
    later = [m._replace(stamp_ns=m.stamp_ns + 10**12, label="") for m in labelled]
    with_label = HeldOutSplit([*labelled, *(m._replace(label="star") for m in later)], 0.2, 2.0)
    for moment in later:
        assert split.may_hold_out(moment) == with_label.holds_out(moment._replace(label="star"))
    assert 0 < sum(map(split.may_hold_out, later)) < len(later) / 3


def test_where_nothing_is_held_out_no_frame_is_kept_away():
    split = HeldOutSplit(seen_by_camera(40, 100_000_000), 0.0, 2.0)
    assert not any(map(split.may_hold_out, seen_by_camera(40, 100_000_000, "")))
