"""What became of a robot's part in a round: a kind for programs and words for people.

The server decides every kind but two: a robot may only say that it is busy or that it failed. So no
words of a robot can pass for a verdict of the server.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from fleet_model.errors import one_line

OutcomeKind: TypeAlias = Literal[
    "accepted",  # the update was folded in, or will be
    "refused",  # the update failed a check of the server
    "late",  # the update came too late to be folded in; no offense
    "no_reply",  # nothing came by the deadline
    "offline",  # the robot lost its connection and did not come back
    "not_admitted",  # the robot was suspended, revoked or forgotten while it worked
    "not_reached",  # the question could not be delivered
    "busy",  # the robot does not want to train now
    "failed",  # the robot's training failed
]
KINDS: tuple[OutcomeKind, ...] = get_args(OutcomeKind)
MAX_WORDS = 300  # characters; they may come from a robot
NO_WORDS = "an error without a reason"
# How the text of a kind begins. Releases before kinds existed wrote and sent the text only.
_BEGINS: Mapping[OutcomeKind, str] = {
    "accepted": "accepted",
    "refused": "refused: ",
    "late": "late: ",
    "no_reply": "no reply by the deadline",
    "offline": "it went offline and did not come back",
    "not_admitted": "it was suspended, revoked or forgotten while it worked",
    "not_reached": "could not be reached by the deadline",
    "busy": "busy: ",
    "failed": "failed: ",
}
# Those releases named the robot in it, too.
_OLD_NAME = re.compile(r"^robot [A-Za-z0-9_.-]{1,63}: ")
# The code of Flower's Error message. Flower itself uses 0 to 8.
_CODES: Mapping[OutcomeKind, int] = {"busy": 1001, "failed": 1002}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict on one robot in one round; the words do not name the robot."""

    kind: OutcomeKind
    words: str = ""  # more than the kind says; on one line, cut at MAX_WORDS

    def __post_init__(self) -> None:
        # They may be a robot's: they end in terminals, headers and files.
        object.__setattr__(self, "words", one_line(self.words[:MAX_WORDS])[:MAX_WORDS])

    @property
    def text(self) -> str:
        """Return a sentence for people; how it begins shows the kind."""
        return f"{_BEGINS[self.kind]}{self.words}"


ACCEPTED = Outcome("accepted")
FAILED = Outcome("failed", NO_WORDS)
NO_REPLY = Outcome("no_reply")
NOT_ADMITTED = Outcome("not_admitted")
NOT_REACHED = Outcome("not_reached")


def outcome_of(kind: OutcomeKind, text: str) -> Outcome:
    """Return the outcome whose `text` this is."""
    return Outcome(kind, text.removeprefix(_BEGINS[kind]))


def parse_outcome(value: Any) -> Any:
    """Return the outcome that a release before kinds wrote as text; anything else is unchanged.

    For pydantic's BeforeValidator: files of this release hold {"kind": ..., "words": ...}.
    """
    return _of_old_text(value, KINDS) if isinstance(value, str) else value


def pack_failure(outcome: Outcome) -> tuple[int, str]:
    """Robot side: code and reason of the Error that is sent in place of an update."""
    return _CODES[outcome.kind], outcome.text


def unpack_failure(code: int, reason: str) -> Outcome:
    """Server side: busy or failed, whatever the robot says."""
    for kind, number in _CODES.items():
        if number == code:
            outcome = outcome_of(kind, reason)
            break
    else:  # an agent before kinds, or Flower itself
        outcome = _of_old_text(reason, ("busy",))
    return outcome if outcome.words else Outcome(outcome.kind, NO_WORDS)


def _of_old_text(text: str, kinds: Iterable[OutcomeKind]) -> Outcome:
    for kind in kinds:
        if kind != "failed" and text.startswith(_BEGINS[kind]):
            return Outcome(kind, _OLD_NAME.sub("", outcome_of(kind, text).words))
    return Outcome("failed", text)
