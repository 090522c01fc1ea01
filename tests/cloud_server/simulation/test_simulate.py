"""Virtual robots under the real round loop, rule and checks."""

import math
from dataclasses import replace

import numpy as np
import pytest

from cloud_server.simulation import virtual_fleet
from cloud_server.simulation.learning import BIAS, KERNEL, LABELS, WIDTH
from cloud_server.simulation.population import Traits
from cloud_server.simulation.simulate import Simulation, SimulationPlan
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import SettingsError
from fleet_model.types import Update


def plan(rounds=3, traits=None, model_mb=0.0, checks=None, rule="fedavg", **settings):
    sections = {"rounds": settings, "checks": checks or {}, "aggregation": {"rule": rule}}
    return SimulationPlan(
        traits=Traits(**{"robots": 20, "off": 0.0, "drop": 0.0, **(traits or {})}),
        settings=ServerSettings.model_validate(sections),
        rounds=rounds,
        model_mb=model_mb,
    )


def run(plan, work=None):
    simulation = Simulation(plan, work)
    return list(simulation.rounds()), simulation.summary()


def test_robots_that_are_all_there_take_part_in_every_round_and_learn():
    lines, summary = run(plan(rounds=8))
    assert [(line.round, line.asked, line.accepted) for line in lines] == [
        (number, 20, 20) for number in range(1, 9)
    ]
    assert lines[-1].accuracy > lines[0].accuracy > 0.25
    assert lines[-1].loss < lines[0].loss
    assert (summary.rounds, summary.failed, summary.used) == (8, 0, 1.0)
    assert summary.accuracy == lines[-1].accuracy


def test_the_same_plan_gives_the_same_course_to_the_last_bit():
    unsteady = plan(traits={"off": 0.2, "drop": 0.1}, target=10)
    first, again = run(unsteady), run(unsteady)
    assert first[0] == again[0]
    assert replace(first[1], wall_s=0) == replace(again[1], wall_s=0)
    assert run(replace(unsteady, traits=replace(unsteady.traits, seed=1)))[0] != first[0]


def test_scaffold_learns_more_of_few_robots_a_round_at_twice_the_bytes():
    world = {"traits": {"robots": 60, "skew": 0.3}, "rounds": 20, "target": 10}
    lines, summary = run(plan(rule="scaffold", **world))
    _, plain = run(plan(**world))
    assert [line.accepted for line in lines] == [10] * 20
    assert summary.accuracy > plain.accuracy + 0.01
    assert summary.gb_up == pytest.approx(2 * plain.gb_up, rel=0.02)
    assert run(plan(rule="scaffold", **world))[0] == lines


def test_every_question_is_accounted_for():
    lines, summary = run(plan(rounds=6, traits={"drop": 0.2}, deadline_s=60.0))
    for line in lines:
        assert line.asked == line.accepted + line.refused + line.gone + line.late
    assert sum(line.gone + line.late for line in lines) > 0
    assert summary.used == sum(line.accepted for line in lines) / sum(line.asked for line in lines)


def test_a_short_deadline_leaves_the_slow_ones_behind():
    patient, _ = run(plan(rounds=2))
    hasty, _ = run(plan(rounds=2, deadline_s=patient[0].seconds / 3))
    assert patient[0].late == 0
    assert hasty[0].late > 0
    assert hasty[0].seconds < patient[0].seconds / 2


def test_replies_that_came_in_time_count_however_seldom_the_loop_looks(monkeypatch):
    short = plan(rounds=1, traits={"robots": 30}, deadline_s=run(plan(rounds=1))[0][0].seconds / 2)
    often, _ = run(short)
    monkeypatch.setattr(virtual_fleet, "SKIP_S", 1.0)
    seldom, _ = run(short)
    assert 0 < often[0].late == seldom[0].late


def test_a_round_that_does_not_close_costs_its_time_and_the_next_is_tried():
    lines, summary = run(plan(rounds=2, quorum=20, deadline_s=1.0))
    assert all(line.error.startswith(f"round {line.round}: ") for line in lines)
    assert all(line.seconds >= 1.0 for line in lines)
    assert lines[1].accuracy == lines[0].accuracy  # of version 0
    assert (summary.rounds, summary.failed, summary.used) == (0, 2, 0.0)


def test_a_fleet_that_is_switched_off_fails_its_rounds_for_want_of_robots():
    lines, summary = run(plan(traits={"off": 1.0}, wait_s=50.0))
    assert all("0 robots online" in line.error and line.asked == 0 for line in lines)
    assert summary.failed == 3
    assert summary.hours >= 3 * 50 / 3600


def test_buffered_rounds_close_with_the_fastest_and_lose_nobodys_work():
    sync, _ = run(plan(rounds=4))
    buffered, summary = run(plan(rounds=15, mode="buffered", quorum=5))
    assert buffered[0].seconds < sync[0].seconds / 2
    assert all(line.accepted >= 5 and not line.error for line in buffered)
    assert buffered[-1].accuracy > 0.4
    assert summary.rounds == 15


def test_a_larger_model_costs_bytes_and_time_and_learns_the_same():
    small, light = run(plan(rounds=2))
    large, heavy = run(plan(rounds=2, model_mb=100.0))
    assert [line.accuracy for line in large] == [line.accuracy for line in small]
    assert large[0].seconds > small[0].seconds + 60
    assert heavy.gb_down == pytest.approx(2 * 20 * 0.1)
    assert light.gb_down == pytest.approx(2 * 20 * 25_620 / 1e9)


def test_an_update_that_is_far_too_long_counts_as_on_a_server():
    def work(robot, request):
        kernel = np.full((WIDTH, LABELS), 1000.0 if robot == 7 else 0.01, np.float32)
        return Update(
            robot="",
            base_version=request.checkpoint.version,
            weights={KERNEL: kernel, BIAS: np.zeros(LABELS, np.float32)},
            num_examples=10,
            num_steps=1,
        )

    lines, _ = run(plan(rounds=2), work)
    assert [(line.accepted, line.refused) for line in lines] == [(20, 0), (20, 0)]
    assert abs(lines[-1].loss - math.log(LABELS)) < 1e-3  # equal changes of all labels


def test_settings_that_tell_real_robots_apart_are_left_out():
    lines, _ = run(plan(rounds=1, robots=["hall-1"], labels=["gpu"], query="battery > 90"))
    assert lines[0].accepted == 20


def test_a_quorum_that_no_fleet_of_this_size_can_reach_is_refused_at_once():
    with pytest.raises(SettingsError, match=r"20 robots cannot give a quorum of 21; lower"):
        Simulation(plan(quorum=21))
