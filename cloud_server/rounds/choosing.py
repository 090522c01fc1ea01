"""Which robots of those online are asked."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from cloud_server.robots.query import Query, facts_of, parse_query
from cloud_server.rounds.fleet import Participant
from cloud_server.state.settings import RoundSettings
from fleet_model.protocol.version import FIRST_PROTOCOL

FOLDS = (
    "it is a site relay, which sends the mean of its robots, and aggregation.rule must see each of "
    "them"
)
ADDS_UP = (
    "it is a site relay, which adds up what its robots tell, and leading directions do not add up: "
    "set start.directions = 0"
)
NOT_DRAWN = "not drawn this time (rounds.target)"


def choose(
    online: Sequence[Participant],
    rules: RoundSettings,
    target: int,
    rng_seed: Sequence[int],
    protocol: int = FIRST_PROTOCOL,
    *,
    single: str = "",
) -> tuple[Sequence[Participant], Mapping[str, str]]:
    """Return the robots to ask, by name, and name -> reason of those that are left out.

    At most `target` are drawn, all with the same chance; 0 means no bound. The draw depends on
    `rng_seed` and on who fits, not on the order in which robots came online.

    Args:
        online: robots that can be reached.
        rules: which of them may take part; its target is not looked at.
        target: how many are wanted.
        rng_seed: of the draw.
        protocol: the lowest number of an agent that understands the request.
        single: why no site relay can answer; "": it can.

    Raises:
        SettingsError: the query is wrong.
    """
    robots = sorted(online, key=lambda robot: robot.name)
    left_out = {r.name: why for r in robots if (why := unfit(r, rules, protocol))}
    left_out |= {r.name: single for r in robots if single and r.speaks_for > 1}
    fits = [robot for robot in robots if robot.name not in left_out]
    if not 0 < target < len(fits):
        return fits, left_out
    drawn = np.random.default_rng(list(rng_seed)).choice(len(fits), target, replace=False)
    chosen = [fits[i] for i in sorted(drawn)]
    names = {robot.name for robot in chosen}
    return chosen, left_out | {r.name: NOT_DRAWN for r in fits if r.name not in names}


def unfit(robot: Participant, rules: RoundSettings, protocol: int = FIRST_PROTOCOL) -> str:
    """Return why a robot may not be asked now; "" if it may."""
    if robot.protocol < protocol:
        return (
            f"its agent speaks protocol {robot.protocol}, this request needs {protocol}: "
            "update the agent"
        )
    if robot.busy:
        return f"busy: {robot.busy}"
    if rules.robots and robot.name not in rules.robots:
        return "not among rounds.robots"
    if rules.sites and robot.site not in rules.sites:
        return f"site {robot.site} is not among rounds.sites"
    if lacking := [label for label in rules.labels if label not in robot.labels]:
        return f"lacks the label {lacking[0]} (rounds.labels)"
    query = _parsed(rules.query)
    facts = facts_of(robot)
    return "" if query.matches(facts) else query.reason(facts)


@lru_cache(maxsize=8)  # asked of every robot at every look
def _parsed(query: str) -> Query:
    return parse_query(query)
