"""What of a robot's own runs a version, as it is kept beside the bundle."""

import logging

import pytest

from fleet_model.personal.choice import (
    FILE,
    OWN_SHARES,
    PersonalChoice,
    personal_for,
    read_personal,
    stamp,
    write_personal,
)

pytestmark = pytest.mark.base
BETTER = PersonalChoice(
    precision="fp32",
    asked=(OWN_SHARES,),
    uses=(OWN_SHARES,),
    measure="accuracy",
    shared=0.938,
    personal=0.96,
    examples=40,
    counts={"cup": 3.0},
)


def test_a_choice_is_read_as_it_was_written(tmp_path):
    write_personal(tmp_path, BETTER)

    assert read_personal(tmp_path) == BETTER
    assert personal_for(tmp_path, "fp32") == BETTER
    assert personal_for(tmp_path, "int8") is None  # measured with other outputs


def test_without_a_file_or_with_a_damaged_one_the_shared_model_runs(tmp_path, caplog):
    assert read_personal(tmp_path) is None
    assert read_personal(tmp_path / "none" / "such") is None
    assert not caplog.records
    (tmp_path / FILE).write_text('{"precision": ')
    with caplog.at_level(logging.WARNING):
        assert personal_for(tmp_path, "fp32") is None
    assert "the shared model runs" in caplog.text


def test_words_say_what_runs_and_both_values():
    values = (
        "accuracy 0.960 with own label shares, 0.938 with the shared model, on 40 held-out examples"
    )
    assert BETTER.words == f"the model with own label shares; {values}"
    worse = BETTER.model_copy(update={"uses": (), "why": "this robot's own part is not better"})
    assert worse.words == f"the shared model; {values}; this robot's own part is not better"
    unknown = PersonalChoice(precision="fp32", why="this robot has no examples")
    assert unknown.words == "the shared model; this robot has no examples"


def test_the_stamp_changes_with_each_choice(tmp_path):
    assert stamp(tmp_path) == (0, 0)
    write_personal(tmp_path, BETTER)
    first = stamp(tmp_path)
    write_personal(tmp_path, BETTER)
    assert stamp(tmp_path) != first
