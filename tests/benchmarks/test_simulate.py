"""The benchmark of virtual robots: its arms do the same work, its picture and figures hold."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import simulate, simulated_fleets
from benchmarks.measure import Limit
from benchmarks.simulate import Cost
from cloud_server.simulation.chart import BLUE, HEADING, PANEL, TEAL, WIDTH
from cloud_server.simulation.learning import KERNEL

ROOT = Path(__file__).resolve().parents[2]


def test_moments_are_found_among_whatever_else_is_printed():
    assert simulate.moments_of("INFO : starting\nmoment 10.5\nINFO\nmoment 12.0\n") == [10.5, 12.0]


@pytest.mark.parametrize("arm", ["ours", "flower"])
def test_an_arm_notes_its_start_and_every_round(arm):
    moments = []
    simulated_fleets.ARMS[arm](6, 3, lambda: moments.append(len(moments)))
    assert len(moments) == 4


def test_every_robot_answers_with_something_else():
    changes = [simulated_fleets.change_of(robot)[KERNEL] for robot in (0, 1, 9999)]
    assert changes[0].nbytes == 25_600
    assert not np.array_equal(changes[0], changes[1])
    assert not np.array_equal(changes[1], changes[2])


def costs(*, big=False, ray=False):
    sizes = (100, 1000, 10_000) if big else (100, 1000)
    return {
        "ours": {n: Cost(round_s=n / 10_000, peak_mb=100.0) for n in sizes},
        "flower": {n: Cost(round_s=n / 1000, peak_mb=150.0) for n in sizes},
        "ray": {100: Cost(round_s=2.0, peak_mb=900.0)} if ray else {},
    }


def test_figures_tell_what_a_robot_costs_and_ratios_what_it_costs_elsewhere():
    quick = simulate.result(costs())
    assert {c.key: round(c.ratio, 6) for c in quick.comparisons} == {
        "rounds_per_s": 10.0,
        "peak_memory": 1.5,
    }
    assert quick.figures["rounds_per_s"] == pytest.approx(10)
    assert quick.figures["us_per_robot_1000"] == pytest.approx(100)
    assert quick.figures["flower_us_per_robot_100"] == pytest.approx(1000)
    whole = simulate.result(costs(big=True, ray=True))
    assert {c.key for c in whole.comparisons} == {
        "rounds_per_s", "peak_memory", "rounds_per_s_10000", "rounds_per_s_ray",
    }  # fmt: skip


def test_flatness_is_the_dearest_robot_of_ours_by_the_cheapest_and_has_a_limit():
    even = simulate.result(costs())
    assert even.figures["flatness"] == pytest.approx(1)
    assert even.limits == [Limit("flatness", 2.0)]
    uneven = costs(big=True)
    uneven["ours"][100] = Cost(round_s=0.015, peak_mb=100.0)  # 150 us a robot
    uneven["ours"][10_000] = Cost(round_s=0.6, peak_mb=100.0)  # 60 us
    assert simulate.result(uneven).figures["flatness"] == pytest.approx(2.5)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Return what draws costs and returns the picture as RGB."""

    def drawn(costs):
        monkeypatch.setattr(simulate, "PICTURE", tmp_path / "p.png")
        simulate.draw(costs)
        return cv2.imread(str(tmp_path / "p.png"))[..., ::-1]

    return drawn


def heights(picture, color, column):
    """Return the rows of a color in one column above the x axis, in pixels above it."""
    bottom = HEADING + PANEL - 80
    rows = np.nonzero((picture[HEADING + 60 : bottom, column] == color).all(axis=-1))[0]
    return bottom - HEADING - 60 - rows


def test_the_picture_shows_what_a_robot_costs_from_zero_up(drawn):
    picture = drawn(costs(big=True))  # 100 us and 1000 us, however many robots
    for column in (500, 1100):  # between the points
        ours, flower = (heights(picture, color, column).mean() for color in (TEAL, BLUE))
        assert flower / ours == pytest.approx(10, rel=0.05)


def test_ten_times_the_robots_are_one_step_to_the_right(drawn):
    peaked = costs(big=True)
    peaked["ours"][1000] = Cost(round_s=0.5, peak_mb=100.0)  # 500 us a robot
    picture = drawn(peaked)
    middle = (130 + WIDTH - 60) // 2
    top = heights(picture, TEAL, middle - 12).mean()  # beside the dot
    for column in (middle - 320, middle + 320):  # about half a step
        assert heights(picture, TEAL, column).mean() / top == pytest.approx(0.6, abs=0.03)


@pytest.mark.slow
def test_simulate_ends_with_one_line_of_json():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.simulate", "--json", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["benchmark"] == "simulate"
    assert set(answer["ratios"]) == {"rounds_per_s", "peak_memory"}
    assert {"rounds_per_s", "peak_mb", "us_per_robot_100", "us_per_robot_1000"} <= set(
        answer["figures"]
    )
