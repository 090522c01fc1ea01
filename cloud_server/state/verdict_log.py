"""What the log says of robots when a round ends and all verdicts are known."""

import logging
from collections.abc import Collection, Sequence

from cloud_server.state.round_record import RoundRecord
from cloud_server.state.words import NAMED
from fleet_model.protocol.outcome import Outcome

log = logging.getLogger(__name__)


def tell_verdicts(record: RoundRecord, told: Collection[tuple[str, Outcome]]) -> None:
    """Log who was not accepted and why, and whose update does not count in full.

    `told` holds (robot, verdict) as they were logged when answers came: they are not repeated.
    """
    why = [
        (robot.name, robot.outcome.text)
        for robot in record.robots
        if not robot.accepted and (robot.name, robot.outcome) not in told
    ]
    _tell(record, why, "were not accepted")
    _tell(record, not_counted(record), "do not count in full")


def not_counted(record: RoundRecord) -> list[tuple[str, str]]:
    """Return (robot, words) of robots of whose update much less counts than they sent."""
    return [
        (robot.name, robot.outcome.words.removeprefix(", but "))
        for robot in record.robots
        if robot.accepted and robot.outcome.words
    ]


def _tell(record: RoundRecord, news: Sequence[tuple[str, str]], of_more: str) -> None:
    about = {"run": record.run, "round": record.round}
    for name, words in news[:NAMED]:
        extra = {**about, "robot": name}
        log.info("round %d: robot %s: %s", record.round, name, words, extra=extra)
    if (more := len(news) - NAMED) > 0:
        log.info("round %d: and %d more robots %s", record.round, more, of_more, extra=about)
