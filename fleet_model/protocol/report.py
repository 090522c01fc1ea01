"""What a robot reports about itself with every look at the server, and what the server answers.

Either side ignores fields of a newer one. Servers of protocol 1 refuse a report with a field that
they do not know, so a robot sends newer fields only to servers that announce a higher number.
Neither holds frames, paths or labels: numbers, yes or no, and short words.
"""

import base64
import binascii
import json
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from fleet_model.errors import UpdateError, one_line
from fleet_model.protocol.trial import MAX_INT, Count, TrialOutcome, printable
from fleet_model.protocol.version import FIRST_PROTOCOL, PROTOCOL

_Words = Annotated[str, AfterValidator(printable)]
_Shown = Annotated[str, AfterValidator(one_line)]  # the robot shows and logs what a server says
Fact: TypeAlias = (
    bool
    | Annotated[int, Field(ge=-MAX_INT, le=MAX_INT)]
    | float
    | Annotated[_Words, StringConstraints(pattern=r"^[^/\\]*$", max_length=64)]
)
MAX_REPORT_BYTES = 2000
MAX_STANDING_BYTES = 2000
REPORT_PARAMETER = "report"  # of the query, so that the proof of the request covers it
AGENT_PARAMETER = (
    "agent"  # of the query: a random number of the agent process; see Standing.warning
)
STANDING_HEADER = "x-robot-standing"


class RobotReport(BaseModel):
    """One robot's state, in its own words; the server chooses robots by it."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    model_version: Count | None = None  # that it predicts with
    busy: Annotated[_Words, StringConstraints(max_length=100)] = ""  # why it wants no training now
    battery: Annotated[float, Field(ge=0, le=100)] | None = None  # percent
    charging: bool | None = None
    free_disk_mb: Count | None = None
    examples: Count | None = None
    trainer: Annotated[_Words, StringConstraints(max_length=100)] = ""
    software: Annotated[_Words, StringConstraints(max_length=40)] = ""  # fleetlearn's version
    # Protocol 2: why the newest published model is not the one that it predicts with.
    not_installed: Annotated[_Words, StringConstraints(max_length=200)] = ""
    # What became of the last model that was tried; a server of before ignores it.
    trial: TrialOutcome | None = None
    # The site by which it chooses models: the one that it was told first, or that a person gave.
    models_site: Annotated[_Words, StringConstraints(max_length=63)] = ""
    # The operator's own facts, from a file on the robot: {"docked": true, "floor": 2}
    facts: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")], Fact],
        Field(max_length=16),
    ] = Field(default_factory=dict)


class Standing(BaseModel):
    """What the server thinks of one robot."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: Literal["pending", "approved", "suspended"] = "approved"
    reason: _Shown = ""  # why it is not approved
    notice: _Shown = ""  # the last verdict on an update of it, when it does not count in full
    notice_id: str = ""  # changes with every new notice
    protocol: int = FIRST_PROTOCOL  # of the server
    warning: str = ""  # what a person has to mend on this robot
    moves_to: str = ""  # host:port where the server will be, or is already
    # The last update of it that was folded in; "" and 0: none. What an update lost on its way is
    # sent with the next one, if that update counted: edge_agent/training/residual.py.
    counted_run: str = ""
    counted_version: int = 0
    signs: bool = False  # whether the models are signed; before that, robots ask for no signature
    # How long the server holds a request for news, and whether it moves small messages whole; 0: a
    # server of before, or one that shall not: robots look every few seconds.
    hold_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    # How long a whole reply may be, if its head proves who sends it; 0: see protocol/whole.py.
    whole_reply_bytes: Count = 0

    @property
    def told(self) -> "Standing":
        """Return what is for people or for a look: all but what changes with every round."""
        return self.model_copy(update={"counted_run": "", "counted_version": 0})


def pack_report(report: RobotReport) -> str:
    """Robot side: the value of the query's `report`; raises UpdateError if it is too long."""
    content = report.model_dump_json(exclude_defaults=True).encode()
    text = base64.urlsafe_b64encode(content).decode().rstrip("=")
    _require_short(text)
    return text


def unpack_report(text: str) -> RobotReport:
    """Server side; raises UpdateError that names the wrong field."""
    _require_short(text)
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return RobotReport.model_validate(json.loads(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ascii(".".join(map(str, first["loc"])))[:60]  # may hold the robot's own words
        raise UpdateError(f"report: {where}: {first['msg']}") from None
    except (ValueError, binascii.Error, RecursionError):
        raise UpdateError("report: not base64 of a JSON object") from None


def pack_standing(standing: Standing) -> str:
    """Server side: the value of the header, ASCII."""
    return json.dumps({**standing.model_dump(exclude_defaults=True), "protocol": PROTOCOL})


def unpack_standing(text: str) -> Standing:
    """Robot side: the default if the server sent none or nonsense."""
    try:
        return Standing.model_validate(json.loads(text[: MAX_STANDING_BYTES * 4] or "{}"))
    except (ValueError, RecursionError):
        return Standing()


def _require_short(text: str) -> None:
    if len(text) > MAX_REPORT_BYTES:
        raise UpdateError(
            f"report: {len(text)} bytes, expected at most {MAX_REPORT_BYTES}; give fewer or "
            "shorter facts"
        )
