"""What robot and server say of a model that was tried, made of kinds and numbers."""

import pytest
from pydantic import ValidationError

from fleet_model.protocol.report import RobotReport, pack_report, unpack_report
from fleet_model.protocol.trial import WHY, TrialOutcome

pytestmark = pytest.mark.base

MEASURED = {"running": 6, "measure": "accuracy", "before": 0.91, "after": 0.62, "examples": 40}
TIMED = {"running": 6, "before_ms": 2.0, "after_ms": 10.25}


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"state": "confirmed"}, "version 7 is confirmed"),
        (
            {"state": "probation", **MEASURED},
            "version 7 is on probation: accuracy 0.620, 0.910 with 6, on 40 held-out examples",
        ),
        (
            {"state": "confirmed", "measure": "error", "after": 0.5, "examples": 9},
            "version 7 is confirmed: error 0.500, on 9 held-out examples",
        ),
        (
            {"state": "confirmed", "running": 6, "agreeing": 38, "examples": 40},
            "version 7 is confirmed: the same answer as version 6 on 38 of 40 frames",
        ),
        (
            {"state": "refused", "why": "worse", **MEASURED},
            "version 7 is refused: accuracy 0.620, 0.910 with version 6, on 40 held-out examples",
        ),
        (
            {"state": "refused", "why": "disagrees", "running": 6, "agreeing": 3, "examples": 40},
            "version 7 is refused: the same answer as version 6 on 3 of 40 frames only",
        ),
        (
            {"state": "back", "why": "slower", **TIMED},
            "version 7 was given back: 10.2 ms for an answer, 2.0 ms with version 6",
        ),
        ({"state": "back", "why": "hung"}, "version 7 was given back: it did not answer in time"),
        # Of a newer agent, and of one that sends no number.
        ({"state": "refused", "why": "too_warm"}, "version 7 is refused: too_warm"),
        ({"state": "refused", "why": "worse"}, "version 7 is refused: worse"),
        ({"state": "asleep"}, "version 7 is asleep"),
    ],
)
def test_the_words_are_made_of_kind_and_numbers(about, words):
    assert TrialOutcome(version=7, **about).words == words


def test_what_was_measured_is_told_without_the_rest():
    trial = TrialOutcome(version=7, state="confirmed", **MEASURED)
    assert trial.told == "accuracy 0.620, 0.910 with 6, on 40 held-out examples"
    assert TrialOutcome(version=7, state="back", why="hung").told == "it did not answer in time"
    assert TrialOutcome(version=7, state="confirmed").told == ""


def test_every_reason_has_words_and_travels_in_a_report():
    numbers = {**MEASURED, **TIMED, "agreeing": 3, "confirmed": 0.97, "samples": 60}
    for why in WHY:
        trial = TrialOutcome(version=2**53, state="refused", why=why, **numbers)
        assert unpack_report(pack_report(RobotReport(trial=trial))).trial == trial
        assert trial.reason not in ("", why)
        assert "{" not in trial.reason


def test_a_field_of_a_newer_robot_is_ignored_and_words_of_its_own_are_none():
    report = RobotReport.model_validate({"trial": {"version": 7, "state": "confirmed", "new": 1}})
    assert report.trial == TrialOutcome(version=7, state="confirmed")
    for wrong in ("\x1b[31m", "a" * 41):
        with pytest.raises(ValidationError):
            TrialOutcome(version=7, state="confirmed", measure=wrong)
    assert TrialOutcome(version=7, state="refused", why="{version.__class__}").reason == (
        "{version.__class__}"
    )
