import dataclasses

import cv2
import numpy as np
import pytest

from edge_agent.data.inspection.contact_sheet import contact_sheet
from edge_agent.data.inspection.inspect import CameraSamples, Gap, Inspection, Sample, TopicReport
from fleet_model.files.damage import Damage

pytestmark = pytest.mark.base

T0 = 1_760_000_000_000_000_000
S = 1_000_000_000
GREEN, RED = (64, 176, 142), (236, 98, 84)
COLOR = (200, 30, 120)


def inspection(pictures, *, damage=(), gaps=(), damaged_ns=(), name="run", topic="/camera"):
    report = TopicReport(
        topic, "sensor_msgs/Image", 100, 10.0, T0, T0 + 10 * S, gaps, "cdr", "read"
    )
    step = 10 * S // max(1, len(pictures) - 1)
    samples = tuple(
        Sample(T0 + i * step, picture, "cut jpeg" if picture is None else "bgr8 40 x 30")
        for i, picture in enumerate(pictures)
    )
    return Inspection(name, (report,), damage, (CameraSamples(report, samples, damaged_ns),))


def plain(height=30, width=40):
    return np.full((height, width, 3), COLOR, np.uint8)


def share(sheet, color):
    return (np.abs(sheet.astype(int) - color).max(axis=2) < 3).mean()


def test_every_picture_is_on_the_sheet():
    one, four = (contact_sheet(inspection([plain()] * n)) for n in (1, 4))
    assert one.dtype == np.uint8
    assert one.shape == four.shape
    assert share(four, COLOR) == pytest.approx(4 * share(one, COLOR), rel=0.02)
    assert share(one, COLOR) * one.shape[0] * one.shape[1] == pytest.approx(300 * 225, rel=0.02)
    assert contact_sheet(inspection([plain()] * 6)).shape[0] > four.shape[0]


def test_a_damaged_frame_is_marked_in_its_place():
    good = contact_sheet(inspection([plain()] * 3))
    bad = contact_sheet(inspection([plain(), None, plain()], damaged_ns=(T0 + 5 * S,)))
    assert share(good, RED) == 0
    assert share(bad, RED) > 0
    assert share(bad, COLOR) == pytest.approx(2 / 3 * share(good, COLOR), rel=0.02)


def test_gaps_and_damaged_frames_are_red_on_the_time_line():
    whole = contact_sheet(inspection([plain()]))
    half = contact_sheet(inspection([plain()], gaps=(Gap(T0 + 2 * S, 5.0),)))
    lines = [
        np.flatnonzero((sheet == GREEN).all(axis=2).sum(axis=1) > 500) for sheet in (whole, half)
    ]
    row = int(lines[0][-1])
    assert np.isclose((whole[row] == GREEN).all(axis=1).sum(), 1556, atol=2)
    assert np.isclose((half[row] == RED).all(axis=1).sum(), 778, atol=3)
    assert np.isclose((half[row] == GREEN).all(axis=1).sum(), 778, atol=3)


def test_no_damage_is_green_and_damage_is_listed():
    good = contact_sheet(inspection([plain()]))
    bad = contact_sheet(inspection([plain()], damage=(Damage("cut file", 1, "run at byte 7"),)))
    assert bad.shape[0] > good.shape[0]
    corner = np.s_[30:40, -120:-60]
    assert share(good[corner], GREEN) > 0.5
    assert share(bad[corner], RED) > 0.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (1000, 1000), (2, 500)])
def test_any_shape_of_picture_fits(shape):
    assert contact_sheet(inspection([plain(*shape)] * 2)).shape[1] == 1636


def test_odd_words_and_times_are_drawn():
    found = inspection([plain()], name="ä" * 400, topic="/" + "wide/" * 200)
    assert contact_sheet(found).shape[1] == 1636
    (report,) = found.topics
    for first, last in [(0, 0), (-(2**63), 2**63 - 1), (2**63 - 2, 2**63 - 1)]:
        odd = dataclasses.replace(report, first_ns=first, last_ns=last, messages=1)
        samples = (Sample(first, plain(), "x"), Sample(last, None, "é" * 300))
        sheet = Inspection("run", (odd,), (), (CameraSamples(odd, samples, (first, last)),))
        assert contact_sheet(sheet).shape[1] == 1636


def test_a_bag_without_cameras_has_a_sheet_too():
    report = TopicReport("/chatter", "std_msgs/String", 0, 0.0, 0, 0, (), "cdr", "")
    assert contact_sheet(Inspection("run", (report,), (), ())).shape[1] == 1636
    assert contact_sheet(Inspection("run", (), (), ())).shape[1] == 1636


def test_it_is_written_as_png():
    encoded = cv2.imencode(".png", contact_sheet(inspection([plain()] * 20))[..., ::-1])[1]
    assert len(encoded) < 400_000
