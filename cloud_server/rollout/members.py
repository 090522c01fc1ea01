"""The robots of a rollout, from the register and from what they last reported."""

from collections.abc import Collection

from cloud_server.robots.last_seen import LastSeen, Seen
from cloud_server.robots.register import Register, Robot
from cloud_server.rollout.decide import Member, Outcome
from cloud_server.state.offers.rollout_files import Rollout
from fleet_model.protocol.routes import channel_and_site
from fleet_model.protocol.trial import BACK, CONFIRMED, REFUSED

AWAY_S = 300.0  # robots look every two seconds unless they are set to look less often


def members_of(
    rollout: Rollout, register: Register, seen: LastSeen, offers: Collection[str]
) -> list[Member]:
    """Return who gets a version by this rollout.

    Left out are robots that follow another channel, that never asked, that are revoked, or that
    have a version by their site; `offers` are the names of what the store offers.

    Raises:
        SettingsError: the register is damaged.
    """
    plan, found = rollout.plan, []
    own = {site for name in offers if (site := _site_on(name, plan.channel))}
    for robot in register.last_readable():
        look = seen.of(robot.name)
        if look is None or robot.state == "revoked" or look.channel not in ("", plan.channel):
            continue
        site = models_site(robot, look)
        if site in own:
            continue
        outcome, why = _outcome(look, plan.next.version)
        found.append(
            Member(
                name=robot.name,
                group=rollout.group(robot.key, site),
                alive=seen.age_s(look.at_s) <= AWAY_S,
                runs_next=look.active_version == plan.next.version,
                outcome=outcome,
                why=why,
            )
        )
    return found


def models_site(robot: Robot, look: Seen | None) -> str:
    """Return the site by which a robot gets models: the one that it keeps, if it says so."""
    kept = "" if look is None or look.report is None else look.report.models_site
    return kept or robot.site


def _site_on(name: str, channel: str) -> str:
    of, site = channel_and_site(name)
    return site if of == channel else ""


def _outcome(look: Seen, version: int) -> tuple[Outcome, str]:
    trial = None if look.report is None else look.report.trial
    if trial is not None and trial.version == version:
        if trial.state in (REFUSED, BACK):
            return "failed", trial.reason
        return ("confirmed", "") if trial.state == CONFIRMED else ("trying", "")
    # An agent that tells of no trials, or one that has tried something else since.
    return ("confirmed" if look.active_version == version else "waiting"), ""
