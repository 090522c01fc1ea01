"""What a robot reports to the server about its failures: the reason, and nothing of its disk."""

import logging
import re

from fleet_model.errors import BusyError, FleetError, FrameError
from fleet_model.protocol.outcome import Outcome, OutcomeKind

# From a root, ~ or drive: to the closing quote; without quotes to the last separator of the clause,
# since names may hold spaces, and the name after it. A clause ends where punctuation meets a space
# or the end. "head/kernel" is no path.
PATH = re.compile(
    r"""(?<=(['"])) (?:~\w*|[A-Za-z]:)?[/\\] [^\n]*? (?=\1(?!\w))
    | (?<![\w.]) (?:~\w*|[A-Za-z]:)?[/\\]
      (?: (?:(?![:;,.)'"]+(?:\s|$))[^\n])* [/\\] )?  (?:(?![:;,.)'"]+(?:\s|$))\S)*""",
    re.VERBOSE,
)
log = logging.getLogger(__name__)


def outcome_of(error: Exception) -> Outcome:
    """Return what the server may know of a training that sends nothing; the log keeps all of it."""
    if not isinstance(error, FleetError):
        log.error("training", exc_info=error)
        words = f"training failed with {type(error).__name__}; details are in the robot's log"
        return Outcome("failed", words)
    log.error("training: %s", error)
    if isinstance(error, FrameError):  # names files and folders; a folder's name may be a label
        return Outcome("failed", "its recordings cannot be read; details are in the robot's log")
    kind: OutcomeKind = "busy" if isinstance(error, BusyError) else "failed"
    return Outcome(kind, without_paths(str(error)))


def without_paths(text: str) -> str:
    """Replace file paths: what a robot's disk looks like is nobody's business."""
    return PATH.sub("<path>", text)
