"""What becomes of a rollout next, from what its robots have reported. Numbers in, a step out.

- **Halted** if more than the threshold of the robots have refused the new version, or have given it
  back. Of those that are still to decide it is assumed that all of them confirm it: so one failure
  of two that have decided halts nothing where ten are asked. But if among those that have decided
  so many failed that a true share of the threshold explains it in fewer than 1 of 100 cases, nobody
  waits for the others.
- **Silent** robots, that run it and are not heard of any more, count as failed as far as they are
  more than the same share of the robots without it: at night all are silent.
- **The next group** is opened when nine of ten of the robots that can be heard have decided, one of
  them has confirmed it, and the group was open for long enough. A group that no robot is in is
  passed over; one whose robots are all away is waited for.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil, comb
from typing import Literal, TypeAlias

from cloud_server.state.words import names
from fleet_model.protocol.rollout import COMPLETE, HALTED, State

ENOUGH, CHANCE = 0.9, 0.01
Outcome: TypeAlias = Literal["waiting", "trying", "confirmed", "failed"]


@dataclass(frozen=True, slots=True)
class Member:
    """A robot that the rollout is for."""

    name: str
    group: int  # that has it first, from 0
    alive: bool  # heard of lately
    runs_next: bool
    outcome: Outcome
    why: str = ""  # it failed


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done now."""

    state: State
    open: int  # groups
    why: str
    failed: tuple[str, ...] = ()  # robots for which it is halted


def decide(
    members: Sequence[Member],
    *,
    groups: int,
    open_groups: int,
    threshold: float,
    waited_enough: bool,
    forgiven: Collection[str] = (),
) -> Step | None:
    """Return the next step of a rollout that goes on; None while there is none.

    Args:
        members: all robots that it is for.
        groups: how many the plan has.
        open_groups: how many are open.
        threshold: share of robots that may fail.
        waited_enough: whether the last group was open for as long as the plan wants.
        forgiven: robots that had failed when a person let it go on; they do not count.
    """
    asked = [one for one in members if one.group < open_groups and one.name not in forgiven]
    if halted := _failed_too_often(asked, members, threshold):
        return Step(HALTED, open_groups, *halted)
    if not waited_enough or not _is_done(asked, open_groups):
        return None
    confirmed = sum(one.outcome == "confirmed" for one in asked)
    if open_groups >= groups:
        return Step(COMPLETE, groups, f"confirmed by {confirmed} robots")
    why = f"confirmed by {confirmed} of {len(asked)} robots" if asked else "no robot is in it"
    return Step("advancing", open_groups + 1, f"group {open_groups}: {why}")


def silent(members: Sequence[Member]) -> list[Member]:
    """Return those that run it and are not heard of, if that is more than among the others."""
    with_it = [one for one in members if one.runs_next]
    others = [one for one in members if not one.runs_next]
    away = [one for one in with_it if not one.alive and one.outcome != "failed"]
    usual = sum(not one.alive for one in others) / len(others) if others else 1.0
    return away[: max(len(away) - ceil(usual * len(with_it)), 0)]


def _failed_too_often(
    asked: Sequence[Member], members: Sequence[Member], threshold: float
) -> tuple[str, tuple[str, ...]] | None:
    """Return why it is to be halted, and the robots that failed."""
    failed = [one for one in asked if one.outcome == "failed"]
    gone = [one for one in silent(members) if one in asked]
    decided = len(failed) + sum(one.outcome == "confirmed" and one not in gone for one in asked)
    decided += len(gone)
    heard = sum(one.alive or one.outcome in ("confirmed", "failed") for one in asked)
    bad = len(failed) + len(gone)
    is_over = bad > threshold * max(heard, decided)
    if not is_over and not (bad and _chance(bad, decided, threshold) < CHANCE):
        return None
    told = []
    if failed:
        told.append(names(f"{one.name} ({one.why})" for one in failed))
    if gone:
        told.append(f"not heard of since they run it: {names(one.name for one in gone)}")
    why = (
        f"{bad} of {decided} robots that have decided failed, at most {threshold:.0%} may: "
        f"{'; '.join(told)}"
    )
    return why, tuple(one.name for one in [*failed, *gone])


def _chance(bad: int, decided: int, share: float) -> float:
    """Return how probable so many or more are, if each fails with this probability."""
    return sum(
        comb(decided, n) * share**n * (1 - share) ** (decided - n) for n in range(bad, decided + 1)
    )


def _is_done(asked: Sequence[Member], open_groups: int) -> bool:
    newest = [one for one in asked if one.group == open_groups - 1]
    decided = [one for one in asked if one.outcome in ("confirmed", "failed")]
    if not asked:
        return True
    if newest and not any(one.alive or one in decided for one in newest):
        return False
    heard = sum(one.alive or one in decided for one in asked)
    has_one = any(one.outcome == "confirmed" for one in decided)
    return has_one and len(decided) >= ENOUGH * heard
