from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ValidationError

from fleet_model.protocol.outcome import (
    KINDS,
    MAX_WORDS,
    NO_WORDS,
    Outcome,
    outcome_of,
    pack_failure,
    parse_outcome,
    unpack_failure,
)

pytestmark = pytest.mark.base
FLOWERS_OWN = 2  # the code that releases before kinds sent: "an exception in a ClientApp"


@given(kind=st.sampled_from(KINDS), words=st.text(max_size=MAX_WORDS))
def test_kind_and_text_together_are_the_whole_outcome(kind, words):
    outcome = Outcome(kind, words)

    assert outcome_of(kind, outcome.text) == outcome


@pytest.mark.parametrize("kind", ["busy", "failed"])
def test_what_a_robot_says_of_itself_arrives(kind):
    outcome = Outcome(kind, "driving")

    assert unpack_failure(*pack_failure(outcome)) == outcome


@given(
    words=st.sampled_from(KINDS).map(lambda kind: Outcome(kind, "by me").text), code=st.integers()
)
def test_no_code_and_no_words_of_a_robot_make_a_verdict_of_the_server(words, code):
    assert unpack_failure(code, words).kind in ("busy", "failed")


def test_a_failure_whose_words_begin_as_another_kind_stays_a_failure():
    code, _ = pack_failure(Outcome("failed"))

    assert unpack_failure(code, "failed: busy: really") == Outcome("failed", "busy: really")


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("busy: charging", Outcome("busy", "charging")),
        ("the battery is on fire", Outcome("failed", "the battery is on fire")),
        ("accepted", Outcome("failed", "accepted")),
        ("", Outcome("failed", NO_WORDS)),
    ],
)
def test_a_robot_of_a_release_before_kinds_is_understood(reason, outcome):
    assert unpack_failure(FLOWERS_OWN, reason) == outcome


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("accepted", Outcome("accepted")),
        (
            "refused: robot r-1.a: head/kernel holds NaN",
            Outcome("refused", "head/kernel holds NaN"),
        ),
        ("no reply by the deadline", Outcome("no_reply")),
        ("could not be reached by the deadline", Outcome("not_reached")),
        ("late: its round had closed", Outcome("late", "its round had closed")),
        (
            "it went offline and did not come back within 120 s",
            Outcome("offline", " within 120 s"),
        ),
        ("it was suspended, revoked or forgotten while it worked", Outcome("not_admitted")),
        ("it said: accepted", Outcome("failed", "it said: accepted")),
        ("busy: driving", Outcome("busy", "driving")),
        ("the battery is on fire", Outcome("failed", "the battery is on fire")),
        ("", Outcome("failed")),
    ],
)
def test_a_text_that_an_old_release_wrote_has_a_kind(text, outcome):
    assert parse_outcome(text) == outcome


class File(BaseModel):
    verdict: Annotated[Outcome, BeforeValidator(parse_outcome)]


def test_a_file_holds_the_kind_and_an_unknown_one_is_refused():
    file = File(verdict=Outcome("refused", "NaN"))

    assert File.model_validate_json(file.model_dump_json()) == file
    with pytest.raises(ValidationError):
        File.model_validate_json('{"verdict": {"kind": "pardoned", "words": ""}}')


def test_words_are_kept_but_not_at_any_length():
    assert len(Outcome("failed", "disk full " * 1000).words) == MAX_WORDS


@pytest.mark.parametrize("code", [1001, 1002, 0])
def test_a_robots_words_begin_no_line_and_move_no_cursor(code):
    outcome = unpack_failure(code, "disk full\x1b[2J\nrobot r2: accepted \u202e")
    assert outcome.words.isprintable()
    assert outcome.words.startswith(r"disk full\x1b[2J\nrobot r2: accepted")
