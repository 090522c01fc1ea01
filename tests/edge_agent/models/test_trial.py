"""What chance alone makes of the differences between two models, and a trial without an agent."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.models.answers import Answered
from edge_agent.models.trial import _compared, chance_of
from edge_agent.models.trial_process import TrialJob


@pytest.mark.parametrize(
    ("worse", "better", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1 / 2),
        (3, 0, 1 / 8),
        (6, 0, 1 / 64),
        (7, 0, 1 / 128),  # the fewest that the bound of 0.01 takes for no accident
        (1, 1, 3 / 4),
        (8, 1, 10 / 512),
        (0, 7, 1.0),
    ],
)
def test_the_chance_of_so_many_worse_answers(worse, better, expected):
    gains = np.array([-1.0] * worse + [1.0] * better + [0.0] * 20)
    assert chance_of(gains) == pytest.approx(expected, abs=0.012 if expected > 0.02 else 0.003)


def test_differences_that_are_no_number_tell_nothing():
    assert chance_of(np.array([np.nan, -np.inf, -1.0])) == chance_of(np.array([-1.0]))


def test_the_size_of_differences_counts():
    assert chance_of(np.array([-5.0, *[1.0] * 4])) == pytest.approx(15.5 / 32, abs=0.1)


def test_models_that_are_equal_but_for_noise_are_rarely_taken_for_worse():
    rng = np.random.default_rng(3)
    chances = [chance_of(rng.normal(size=60)) for _ in range(50)]
    assert sum(chance <= 0.01 for chance in chances) <= 2


def test_false_alarms_count_in_pictures_for_which_the_measure_has_no_number():
    """Boxes: the mean over a set has no value for a picture without a box, but each row may."""

    def engine(**methods):
        task = SimpleNamespace(measures={"map50": "higher"})
        return SimpleNamespace(workload=SimpleNamespace(task=task, **methods))

    def mean_of_pictures_with_boxes(outputs, targets):
        there = targets["boxes"] > 0
        return {"map50": outputs["right"][there].mean()} if there.any() else {}

    def each(outputs, targets):
        return np.where(targets["boxes"] > 0, outputs["right"], 1 - outputs["alarm"])

    def answered(boxes, right, alarm):
        outputs = {"right": np.array(right), "alarm": np.array(alarm)}
        return Answered([], 1.0, outputs, {"boxes": np.array(boxes)})

    quiet = [answered(1, 0.5, 0.0), *[answered(0, 0.0, 0.125)] * 7]
    loud = [answered(1, 0.5, 0.0), *[answered(0, 0.0, 0.875)] * 7]
    pairs = list(zip(loud, quiet, strict=True))

    plain = engine(measure=mean_of_pictures_with_boxes)
    found = _compared(plain, plain, pairs, labelled=True)
    assert (found["before"], found["after"], found["chance"]) == (0.5, 0.5, 1.0)
    by_row = engine(measure=mean_of_pictures_with_boxes, measure_each=each)
    found = _compared(by_row, by_row, pairs, labelled=True)
    assert (found["before"], found["after"]) == (0.5, 0.5)
    assert found["chance"] == pytest.approx(1 / 128, abs=0.003)


def test_a_trial_whose_agent_was_killed_ends_without_a_word(tmp_path):
    job = TrialJob(candidate=str(tmp_path), running="", precision="fp32", source=None, examples=0)
    command = [sys.executable, "-m", "edge_agent.models.trial_process", str(os.getpid())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        child.stdout.close()
        _, said = child.communicate(json.dumps(asdict(job)).encode())

    assert (said, child.returncode) == (b"", 1)
