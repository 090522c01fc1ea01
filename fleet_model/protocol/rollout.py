"""A rollout in stages: which robots may take a new version now, computed alike on both sides.

The plan is signed once, by whoever signs the channel: the groups that follow each other, the new
version, and the version that all get if it is taken back. The stage is signed by the server: how
many groups are open, and whether it goes on. So who has the server's key alone can open groups,
halt, or take the new version back, and nothing that is not in the plan.

  10%, site:hall-1, 100%    a tenth of the robots, then those of a site, then all
"""

import hashlib
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fleet_model.errors import TrustError
from fleet_model.protocol.routes import FALLBACK, NEXT, SITE, part_of_rollout

ADVANCING: Literal["advancing"] = "advancing"
HALTED: Literal["halted"] = "halted"  # who has the version keeps it, nobody else takes it
ABORTED: Literal["aborted"] = "aborted"  # all get the fallback
COMPLETE: Literal["complete"] = "complete"  # all get it
State: TypeAlias = Literal["advancing", "halted", "aborted", "complete"]
Choice: TypeAlias = Literal["present", "next", "fallback"]
MOST_GROUPS = 20
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,2})?)%")
_BY_SITE = "site:"


def group_word(text: str) -> str:
    """Return one group as it is written; raises ValueError if it is none."""
    share = _SHARE.fullmatch(text)
    if share and 0 < float(share[1]) <= 100:
        return text
    if text.startswith(_BY_SITE) and re.fullmatch(SITE, text.removeprefix(_BY_SITE)):
        return text
    raise ValueError(f"{ascii(text)[:80]}: expected a share as 10%, or a site as site:hall-1")


def groups_that_follow(groups: tuple[str, ...]) -> tuple[str, ...]:
    """Return them; raises ValueError unless shares grow and the last group is all robots."""
    if not 1 <= len(groups) <= MOST_GROUPS:
        raise ValueError(f"{len(groups)} groups, expected 1 to {MOST_GROUPS}")
    shares = [_share(one) for one in groups if not one.startswith(_BY_SITE)]
    if groups[-1].startswith(_BY_SITE) or shares[-1] < 1:
        raise ValueError("the last group is not all robots; end with 100%")
    if any(after <= before for before, after in pairwise(shares)):
        raise ValueError("shares must grow: each one has the robots of those before in it")
    return groups


def _hex(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("expected a sha256")
    return text


Sha256 = Annotated[str, AfterValidator(_hex)]


class Named(BaseModel):
    """A version by number and by content."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    version: int = Field(ge=0)
    sha256: Sha256  # of its manifest


class Plan(BaseModel):
    """What is to become of a version on a channel; never changed once it is signed."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    format: Literal[1] = 1
    channel: str
    groups: Annotated[
        tuple[Annotated[str, AfterValidator(group_word)], ...], AfterValidator(groups_that_follow)
    ]
    threshold: float = Field(ge=0, lt=1)  # share of robots that may fail
    wait_s: float = Field(ge=0)  # at least, between a group and the next
    present: Named  # what the channel offers beside it
    next: Named
    fallback: Named  # the weights of `present` under a number above `next`


class Stage(BaseModel):
    """How far a rollout is."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    plan: Sha256  # of the plan's content
    open: int = Field(ge=0)  # so many groups
    state: State


def content_of(value: Plan | Stage) -> bytes:
    """Return the JSON that is signed; equal values, equal bytes."""
    return json.dumps(value.model_dump(), sort_keys=True).encode() + b"\n"


def read_plan(content: bytes, channel: str) -> Plan:
    """Return a plan that was signed for a channel.

    Raises:
        TrustError: it is none, or of another channel.
    """
    try:
        plan = Plan.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))[:60] or "the file"
        raise TrustError(
            f"the plan of the rollout on channel {channel} cannot be followed ({where}): update "
            "the agent if the server is newer; the active model stays"
        ) from None
    if plan.channel != channel:
        raise TrustError(
            f"the plan of the rollout on channel {channel} was made for another channel; the "
            "active model stays"
        )
    return plan


def read_stage(content: bytes, plan: Plan, digest: str) -> Stage:
    """Return a stage of a plan.

    Args:
        content: as signed.
        plan: in force.
        digest: sha256 of the plan.

    Raises:
        TrustError: it is none, or says what the plan does not.
    """
    begin = f"stage.json of the rollout on channel {plan.channel}"
    try:
        stage = Stage.model_validate_json(content)
    except ValidationError:
        raise TrustError(f"{begin} is no stage; the active model stays") from None
    if stage.plan != digest:
        raise TrustError(
            f"{begin} is of another plan than the one that is signed; the active model stays"
        )
    if stage.open > len(plan.groups):
        raise TrustError(
            f"{begin} opens {stage.open} groups, and the plan has {len(plan.groups)}; the active "
            "model stays"
        )
    return stage


def position(digest: str, key: str) -> float:
    """Return where a robot stands in a plan, from 0 to below 1: another place in each plan.

    Args:
        digest: sha256 of the plan.
        key: the robot's public key, one OpenSSH line.
    """
    drawn = hashlib.sha256(f"{digest} {key}".encode()).digest()
    return int.from_bytes(drawn[:6], "big") / 2**48


def group_of(groups: Sequence[str], place: float, site: str) -> int:
    """Return the number of the first group that has a robot in it, from 0.

    Args:
        groups: of the plan.
        place: the robot's `position`.
        site: the robot's.
    """
    for number, group in enumerate(groups):
        is_site = group.startswith(_BY_SITE)
        if group == f"{_BY_SITE}{site}" if is_site else place < _share(group):
            return number
    return len(groups) - 1  # all robots: a plan ends with 100%


def choice(plan: Plan, stage: Stage | None, group: int, active: int | None) -> Choice:
    """Return which of the plan's versions a robot is to have.

    Args:
        plan: in force.
        stage: None: it has not begun.
        group: the robot's.
        active: the version that it runs.
    """
    if stage is None:
        return "present"
    if stage.state == ABORTED:
        return "fallback"
    if stage.state == COMPLETE:
        return "next"
    if group >= stage.open:
        return "present"
    # While it is halted, who has it keeps it, and nobody else takes it.
    return "next" if stage.state == ADVANCING or active == plan.next.version else "present"


def offer_of(channel: str, chosen: Choice) -> str:
    """Return the name under which one of a plan's versions is offered."""
    parts = {"next": NEXT, "fallback": FALLBACK}
    return part_of_rollout(channel, parts[chosen]) if chosen in parts else channel


def _share(group: str) -> float:
    return float(group.removesuffix("%")) / 100
