"""What an assistant can change, with `--allow-writes` only: what the commands do."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from cloud_server.cli.assistants.asked import OneRobot, OneRun, Version
from cloud_server.cli.assistants.reading import summary_of_run
from cloud_server.cli.assistants.tool import Arguments, Tool
from cloud_server.cli.channel_commands import groups_of, promoted, published
from cloud_server.cli.model_commands import rolled_back
from cloud_server.cli.runs.known import client_of, newest_run, require_of_server, server_dir_of
from cloud_server.robots.register import Register

THRESHOLD, WAIT_S = 0.2, 600.0  # of a rollout, as `models promote` has them
Asked = TypeVar("Asked", bound=Arguments)
_one_at_a_time = threading.Lock()  # two changes in one go would mix what they say of the fleet
log = logging.getLogger(__name__)


class Rounds(Arguments):
    """Which run."""

    rounds: int = Field(ge=1, le=10_000, description="federated rounds")
    closed_form: Literal["ridge", "lda", "ncm", "off"] | None = Field(
        default=None, description="make the head of sums in the first round; none: as the settings"
    )


class Promotion(Arguments):
    """Which version, and whose robots."""

    version: int = Field(ge=0, le=2**31, description="a published one")
    channel: str = Field(default="stable", max_length=31, description="whose robots get it")
    groups: str = Field(
        default="",
        max_length=200,
        description="robots that get it one group after the other, as 10%,site:a,100%; none: all "
        "at once",
    )


class Rollback(Arguments):
    """Which version."""

    version: int | None = Field(
        default=None, ge=0, le=2**31, description="none: the one before what robots run"
    )
    channel: str = Field(default="", max_length=31, description="whose version; none: the fleet's")


def approve_robot(directory: Path, asked: OneRobot) -> dict[str, Any]:
    """Let a robot of the register take part."""
    robot = Register(server_dir_of(directory).robots).approve(asked.name)
    return _said(f"approved {robot.name} at site {robot.site}: {robot.fingerprint}")


def start_run(directory: Path, asked: Rounds) -> dict[str, Any]:
    """Start a run, and do not wait for its end."""
    run = client_of(directory).start_run(asked.rounds, closed_form=asked.closed_form)
    return _said(f"run {run['id']} has begun; get_run tells how far it is") | summary_of_run(run)


def stop_run(directory: Path, asked: OneRun) -> dict[str, Any]:
    """End a run soon; what has closed is published."""
    run_id = asked.run or newest_run(directory)
    require_of_server(directory, run_id)
    run = client_of(directory).stop_run(run_id)
    return _said(
        f"run {run['id']} ends after {run['rounds_closed']} closed rounds"
    ) | summary_of_run(run)


def publish_model(directory: Path, asked: Version) -> dict[str, Any]:
    """Publish what the gate has withheld."""
    return _said(published(directory, asked.version, asked.channel))


def promote_model(directory: Path, asked: Promotion) -> dict[str, Any]:
    """Give a published version to a channel."""
    wish = (groups_of(asked.groups), THRESHOLD, WAIT_S) if asked.groups else None
    return _said(promoted(directory, asked.version, asked.channel, wish=wish))


def roll_back_model(directory: Path, asked: Rollback) -> dict[str, Any]:
    """Give robots an older version again."""
    return _said(rolled_back(directory, asked.version, asked.channel))


def _said(line: str) -> dict[str, Any]:
    return {"words": [line]}


def _logged(
    change: Callable[[Path, Asked], dict[str, Any]],
) -> Callable[[Path, Asked], dict[str, Any]]:
    """Return the same, one at a time, with a line in the log before and after it."""

    def changed(directory: Path, asked: Asked) -> dict[str, Any]:
        with _one_at_a_time:
            log.info("an assistant asks for %s: %r", change.__name__, asked.model_dump())
            told = change(directory, asked)
            log.info("%s: %s", change.__name__, told["words"][0])
            return told

    return changed


WRITING = (
    Tool(
        name="approve_robot",
        about="Let a pending or suspended robot take part in training; its refused updates are "
        "counted anew.",
        arguments=OneRobot,
        answer=_logged(approve_robot),
        changes="adds",
        repeats=True,
    ),
    Tool(
        name="start_run",
        about="Start a training run on the robots; it goes on without you, and what it makes is "
        "published if the gate lets it.",
        arguments=Rounds,
        answer=_logged(start_run),
        changes="adds",
    ),
    Tool(
        name="stop_run",
        about="End a run soon: the open round is lost, what has closed is published.",
        arguments=OneRun,
        answer=_logged(stop_run),
        changes="replaces",
    ),
    Tool(
        name="publish_model",
        about="Publish a version that the gate has withheld: all robots of its channel get it.",
        arguments=Version,
        answer=_logged(publish_model),
        changes="replaces",
    ),
    Tool(
        name="promote_model",
        about="Give a published version to a channel: to all its robots, or to one group after the "
        "other.",
        arguments=Promotion,
        answer=_logged(promote_model),
        changes="replaces",
    ),
    Tool(
        name="roll_back_model",
        about="Give robots an older version again, as a new release.",
        arguments=Rollback,
        answer=_logged(roll_back_model),
        changes="replaces",
    ),
)
