"""The parts of benchmarks/detection.py that can be wrong without anyone noticing."""

from pathlib import Path

import pytest

from benchmarks.detection import result
from benchmarks.detection_fleet import ARMS, Job

FOUND = {
    ("federated", 1): [0.4],
    ("federated", 2): [0.3],
    ("central", 1): [0.41],
    ("central", 2): [0.35],
    ("single", 1): [0.1, 0.2, 0.3, 0.2],
    ("single", 2): [0.0, 0.1, 0.1, 0.2],
}
ENGINES = [{"fp32": 0.4, "int8": 0.39}, {"fp32": 0.3, "int8": 0.31}]


def job(arm, seed, data="scenes"):
    return Job(arm, data, seed, Path("work"), frames=240)


def figures(data="scenes"):
    found = {job(arm, seed, data): values for (arm, seed), values in FOUND.items()}
    return result(found, ENGINES, limited=True)


def test_the_fleet_beside_single_robots_and_all_frames_in_one_place():
    told = figures().figures
    assert told["unseen_map50"] == pytest.approx(0.35)
    assert told["unseen_map50_worst_seed"] == pytest.approx(0.3)
    assert told["single_map50"] == pytest.approx(0.15)
    assert told["best_single_map50"] == pytest.approx(0.25)
    assert told["gain_map50"] == pytest.approx(0.2)
    assert told["gap_to_central"] == pytest.approx(0.03)
    assert told["int8_loss"] == pytest.approx(0.0)
    assert told["int8_loss_most"] == pytest.approx(0.01)


def test_figures_of_composites_have_names_of_their_own():
    told = figures("composites").figures
    assert told["composites_gain_map50"] == pytest.approx(0.2)
    assert "gain_map50" not in told


def test_arms_of_one_fleet_share_frames_and_first_model_and_nothing_else():
    jobs = [job(arm, 1) for arm in ARMS]
    assert len({one.folder for one in jobs}) == 1
    assert len({one.server.root for one in jobs}) == 1
    assert len({one.learned for one in jobs}) == len(ARMS)
    assert job("federated", 2).folder != jobs[0].folder
