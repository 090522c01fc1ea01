"""Which numbers keep a model from a robot."""

import math

import pytest

from edge_agent.models.verdict import Findings, at_most, judge
from edge_agent.robot.model_settings import InstallSettings

LIMITS = InstallSettings()  # worse by .03, agreement .3, three times slower


def verdict(*, by_operator=False, **found):
    return judge(Findings(**{"running": 4, **found}), LIMITS, by_operator=by_operator)


@pytest.mark.parametrize(
    ("better", "before", "after", "chance", "expected"),
    [
        ("higher", 0.90, 0.80, 0.001, "worse"),
        ("higher", 0.90, 0.80, 0.01, "worse"),
        ("higher", 0.90, 0.80, 0.011, ""),  # chance may have done it
        ("higher", 0.90, 0.88, 0.001, ""),  # not by so much
        ("higher", 0.80, 0.90, 0.001, ""),
        ("lower", 0.80, 0.90, 0.001, "worse"),
        ("lower", 0.90, 0.80, 0.001, ""),
        ("higher", 0.90, math.nan, 1.0, "worse"),
        ("lower", math.inf, math.inf, 1.0, ""),
        ("higher", None, 0.1, 0.001, ""),  # nothing to compare with
    ],
)
def test_a_model_is_worse_by_its_measure_and_not_by_chance(better, before, after, chance, expected):
    found = {"better": better, "before": before, "after": after, "chance": chance}
    assert verdict(measure="error", examples=40, **found) == expected


@pytest.mark.parametrize(
    ("measure", "better", "confirmed", "after", "examples", "expected"),
    [
        ("accuracy", "higher", 0.97, 0.55, 40, "fallen"),  # labels that are late, say
        ("accuracy", "higher", 0.97, 0.55, 4, ""),  # of so few examples that is chance
        ("accuracy", "higher", 0.97, 0.88, 400, ""),  # not by so much
        ("accuracy", "higher", None, 0.10, 40, ""),  # it was confirmed without examples
        ("accuracy", "higher", 0.50, 0.97, 40, ""),
        ("error", "lower", 20.0, 25.0, 40, "fallen"),
        ("error", "lower", 20.0, 21.0, 40, ""),
    ],
)
def test_a_model_far_below_what_the_running_one_could_here_is_refused_though_that_is_worse_now(
    measure, better, confirmed, after, examples, expected
):
    worst = 0.0 if better == "higher" else 1e9
    found = {"before": worst, "after": after, "confirmed": confirmed, "examples": examples}
    assert verdict(measure=measure, better=better, **found) == expected


@pytest.mark.parametrize(
    ("kept", "samples", "running", "expected"),
    [
        (0, 64, 4, "one_label"),  # it gives the robot's only label to everything
        (0, 12, 4, ""),  # 0.7 ** 12 = 0.014
        (40, 64, 4, ""),
        (0, 0, 4, ""),  # the running model knows no other label either, or it was not asked
        (0, 64, 0, ""),  # beside the untrained model
    ],
)
def test_with_examples_of_one_label_a_model_must_still_give_others(
    kept, samples, running, expected
):
    assert verdict(kept=kept, samples=samples, running=running) == expected


@pytest.mark.parametrize(
    ("agreeing", "examples", "running", "expected"),
    [
        (0, 12, 4, ""),  # 0.7 ** 12 = 0.014
        (0, 13, 4, "disagrees"),  # 0.7 ** 13 = 0.0097
        (16, 100, 4, "disagrees"),  # 0.0010
        (20, 100, 4, ""),  # 0.016
        (0, 100, 0, ""),  # version 0 is untrained
        (None, 100, 4, ""),
    ],
)
def test_without_a_truth_too_few_equal_answers_are_no_accident(
    agreeing, examples, running, expected
):
    assert verdict(agreeing=agreeing, examples=examples, running=running) == expected


@pytest.mark.parametrize(
    ("before_ms", "after_ms", "expected"),
    [(10.0, 30.1, "slower"), (10.0, 30.0, ""), (0.01, 0.05, "slower"), (None, 30.0, "")],
)
def test_a_model_that_answers_too_slowly_is_refused(before_ms, after_ms, expected):
    assert verdict(before_ms=before_ms, after_ms=after_ms) == expected


@pytest.mark.parametrize(
    ("timed", "longer", "expected"),
    [
        (41, 24, ""),  # the shortest of the running model was luck: 24 or more of 41 is no wonder
        (41, 31, "slower"),  # 31 or more by chance: 0.0007
        (41, 41, "slower"),
        (7, 6, ""),  # 6 or more of 7 by chance: 0.06
        (6, 1, "slower"),  # six pairs cannot tell: the shortest decide
    ],
)
def test_on_a_busy_robot_most_answers_must_have_taken_longer(timed, longer, expected):
    assert verdict(before_ms=3.0, after_ms=23.9, timed=timed, longer=longer) == expected


def test_what_a_person_has_decided_for_is_only_asked_to_run():
    bad = {"before": 0.9, "after": 0.1, "chance": 0.001, "before_ms": 1.0, "after_ms": 9.0}
    assert verdict(**bad) == "worse"
    assert verdict(**bad, by_operator=True) == ""
    assert verdict(failed="hung", by_operator=True) == "hung"


def test_what_ended_the_trial_comes_before_all_numbers():
    assert verdict(failed="crashed", before=0.1, after=0.9) == "crashed"


def test_the_binomial_distribution_by_value():
    assert at_most(0, 3, 0.5) == 0.125
    assert at_most(1, 3, 0.5) == 0.5
    assert at_most(3, 3, 0.3) == pytest.approx(1.0)
