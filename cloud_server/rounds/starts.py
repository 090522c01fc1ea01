"""Where robots start: from the model of their cluster or site, if it has one of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cloud_server.rounds.fleet import Participant
from fleet_model.protocol.wire import RobotRequest


def by_start(
    request: RobotRequest, robots: Sequence[Participant], planned: Mapping[str, Participant]
) -> Iterator[tuple[RobotRequest, Sequence[Participant]]]:
    """Yield what to send, and to whom; robots of all sites without a model together.

    Args:
        request: the round's; its `starts` say which sites and clusters have a model.
        robots: to be asked now.
        planned: robots of the round by name. Their site counts: the reply is folded into it, also
            where a robot was moved to another one since the round began.
    """
    groups: dict[str, list[Participant]] = {}
    for robot in robots:
        site = planned[robot.name].site
        own = request.cluster_starts.get((site, robot.name), site)
        groups.setdefault(own if own in request.starts else "", []).append(robot)
    for own, group in groups.items():
        start = request.checkpoint
        if own in request.starts:
            start = replace(start, weights=request.starts[own])
        yield replace(request, checkpoint=start), group
