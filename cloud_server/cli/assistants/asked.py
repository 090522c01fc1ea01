"""What the tools take, beside a directory."""

from typing import Literal

from pydantic import Field

from cloud_server.cli.assistants.tool import Arguments, Page
from cloud_server.report.run_comparison import MAX_RUNS
from fleet_model.protocol.outcome import OutcomeKind

_NAME = "as list_robots tells it"
_RUN = "as list_runs tells it"
_CHANNEL = "whose version it is, if that channel is trained by itself"


class Robots(Page):
    """Which robots."""

    state: Literal["approved", "pending", "suspended", "revoked"] | None = Field(
        default=None, description="of the register"
    )
    site: str | None = Field(default=None, max_length=63, description="only robots of this site")
    online: bool | None = Field(default=None, description="whether it is connected now")


class OneRobot(Arguments):
    """Which robot."""

    name: str = Field(max_length=63, description=_NAME)


class OneRun(Arguments):
    """Which run."""

    run: str = Field(default="", max_length=80, description=f"{_RUN}; none: the newest")


class OneRound(Page):
    """Which robots of which round."""

    run: str = Field(max_length=80, description=_RUN)
    round: int = Field(ge=1, le=1_000_000, description="from 1")
    verdict: OutcomeKind | None = Field(default=None, description="only robots with it")


class Runs(Arguments):
    """Which runs, and by what."""

    runs: list[str] = Field(min_length=2, max_length=MAX_RUNS, description=_RUN)
    measure: str = Field(
        default="", max_length=80, description="as accuracy; none: the workload's first"
    )


class Version(Arguments):
    """Which version."""

    version: int = Field(ge=0, le=2**31, description="as list_models tells it")
    channel: str = Field(default="", max_length=31, description=_CHANNEL)


class Versions(Arguments):
    """Which two versions."""

    first: int = Field(ge=0, le=2**31, description="as list_models tells it")
    second: int = Field(ge=0, le=2**31, description="as list_models tells it")
    channel: str = Field(default="", max_length=31, description=_CHANNEL)
