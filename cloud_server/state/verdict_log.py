"""What the log says of robots when a round ends and all verdicts are known."""

import logging
from collections.abc import Collection, Sequence

from cloud_server.state.names import NAMED
from cloud_server.state.round_record import RoundRecord
from fleet_model.protocol.outcome import Outcome

log = logging.getLogger(__name__)


def tell_verdicts(record: RoundRecord, told: Collection[tuple[str, Outcome]]) -> None:
    """Log who was not accepted and why, and whose examples do not all count.

    `told` holds (robot, verdict) as they were logged when answers came: they are not repeated.
    """
    failed = [
        robot
        for robot in record.robots
        if not robot.accepted and (robot.name, robot.outcome) not in told
    ]
    failed.sort(key=lambda robot: not robot.refused)  # silence is the lesser news
    why = [(robot.name, robot.outcome.text) for robot in failed]
    _tell(record, why, "were not accepted")
    _tell(record, not_counted(record), "have examples that do not count")


def not_counted(record: RoundRecord) -> list[tuple[str, str]]:
    """Return (robot, words) of robots that claimed more examples than count."""
    return [
        (robot.name, f"{robot.num_examples} examples count as {robot.weight}")
        for robot in record.robots
        if robot.accepted and robot.capped
    ]


def _tell(record: RoundRecord, news: Sequence[tuple[str, str]], of_more: str) -> None:
    about = {"run": record.run, "round": record.round}
    for name, words in news[:NAMED]:
        extra = {**about, "robot": name}
        log.info("round %d: robot %s: %s", record.round, name, words, extra=extra)
    if (more := len(news) - NAMED) > 0:
        log.info("round %d: and %d more robots %s", record.round, more, of_more, extra=about)
