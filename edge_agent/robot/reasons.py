"""What a robot reports to the server about its failures: the reason, and nothing of its disk."""

import builtins
import logging
import re
import traceback

from edge_agent.data.frames.damage import SEVERAL_CAMERAS, WRONG_CAMERA_TOPIC, WRONG_LABEL_TOPIC
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
OURS = ("edge_agent", "fleet_model", "__main__")  # the last: the training process itself
_CAUSES = {  # FrameError.reason -> what is true of every recording, without a name
    WRONG_LABEL_TOPIC: "its label topic is in none of its recordings, or holds no labels",
    WRONG_CAMERA_TOPIC: "its camera topic is in none of its recordings, or holds no pictures",
    SEVERAL_CAMERAS: "several topics of its recordings could be its camera",
}
log = logging.getLogger(__name__)


def outcome_of(error: Exception) -> Outcome:
    """Return what the server may know of a training that sends nothing; the log keeps all of it."""
    if not isinstance(error, FleetError):
        log.error("training", exc_info=error)
        return Outcome("failed", unexpected(error))
    log.error("training: %s", error)
    if isinstance(error, FrameError):  # names files and folders; a folder's name may be a label
        cause = "" if error.foreign else _CAUSES.get(error.reason, "")
        cause = cause or "its recordings cannot be read"
        return Outcome("failed", f"{cause}; see `edge-agent status` or the log on the robot")
    kind: OutcomeKind = "busy" if isinstance(error, BusyError) else "failed"
    if error.foreign:  # no filter knows what a plug-in's words may hold
        return Outcome(kind, "a plug-in on the robot says why; details are in the robot's log")
    return Outcome(kind, without_paths(str(error)))


def is_ours(error: BaseException) -> bool:
    """Return whether fleetlearn's own code has raised an error; one that nobody raised is ours."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    name = str(frames[-1].f_globals.get("__name__", "")) if frames else OURS[0]
    return name.partition(".")[0] in OURS


def unexpected(error: Exception) -> str:
    """Return what may be said of an error that nobody expected: no word of it, no odd name."""
    known = getattr(builtins, type(error).__name__, None) is type(error)
    kind = f" with {type(error).__name__}" if known else ""
    return f"training failed{kind}; details are in the robot's log"


def without_paths(text: str) -> str:
    """Replace file paths: what a robot's disk looks like is nobody's business."""
    return PATH.sub("<path>", text)
