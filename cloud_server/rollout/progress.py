"""What the operator is told of rollouts: how far each is, what each robot runs and is to run."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register
from cloud_server.rollout.decide import Member, Outcome
from cloud_server.rollout.members import members_of
from cloud_server.state.clock import age
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers.rollout_files import Rollout, RolloutFiles
from cloud_server.state.words import names
from fleet_model.protocol.rollout import ABORTED, COMPLETE, HALTED, State, choice


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStatus:
    """One rollout, with its robots until the channel offers what came of it."""

    channel: str
    state: State
    why: str  # of the last step
    since_s: float  # seconds ago
    open: int  # groups
    groups: Sequence[str]
    threshold: float
    wait_s: float
    present: int  # versions
    next: int
    fallback: int
    members: Sequence[Member]
    wants: Mapping[str, int]  # robot -> version that it is to have

    @property
    def newest(self) -> int:
        """Return the highest version that robots may have by it."""
        return self.fallback if self.state == ABORTED else self.next

    @property
    def counts(self) -> Mapping[str, int]:
        """Return outcome -> robots."""
        found = Counter(one.outcome for one in self.members)
        return {outcome: found[outcome] for outcome in get_args(Outcome)}

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        fields = (
            "channel", "state", "why", "since_s", "open", "threshold", "wait_s", "present", "next",
            "fallback",
        )  # fmt: skip
        robots = [
            {
                "name": one.name,
                "group": one.group + 1,
                "outcome": one.outcome,
                "why": one.why,
                "runs_next": one.runs_next,
                "wants": self.wants[one.name],
                "alive": one.alive,
            }
            for one in self.members
        ]
        told = {name: getattr(self, name) for name in fields}
        more = {"counts": self.counts, "robots": robots, "words": self.sentences()}
        return {**told, "groups": list(self.groups), **more}

    def sentences(self) -> list[str]:
        """Return what the operator is to know; commands have DIR."""
        begin = f"rollout of version {self.next} on channel {self.channel}"
        since = f"since {age(self.since_s)}"
        if self.state == COMPLETE:
            return [f"{begin} is complete {since}: {self.why}"]
        if self.state == ABORTED:
            back = f"all robots get version {self.present} again, as version {self.fallback}"
            return [f"{begin} was aborted {since} ({self.why}): {back}"]
        of = f"{self.open} of {len(self.groups)} groups ({', '.join(self.groups)})"
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        how = f" --channel {self.channel}"
        if self.state == HALTED:
            return [
                f"WARNING: {begin} is HALTED {since} with {of} open ({counts}): {self.why}. To "
                f"take it back: `cloud-server rollout abort DIR{how}`; to go on all the same: "
                f"`cloud-server rollout resume DIR{how}`"
            ]
        lines = [f"{begin} goes on, {of} open {since} ({counts}): {self.why}"]
        undecided = [
            one
            for one in self.members
            if one.group < self.open and one.outcome in ("waiting", "trying")
        ]
        if undecided:
            waits = names(one.name if one.alive else f"{one.name} (away)" for one in undecided)
            lines.append(f"{begin} waits for {waits}")
        return lines


def rollout_statuses(
    store: DirectoryStore, register: Register, seen: LastSeen
) -> list[RolloutStatus]:
    """Return the newest rollout of each channel.

    Raises:
        BundleError: the file of one is damaged.
        SettingsError: the register is damaged.
    """
    offers = store.offers()
    return [
        _status(rollout, [] if rollout.over else members_of(rollout, register, seen, offers))
        for rollout in RolloutFiles(store.root).all().values()
    ]


def _status(rollout: Rollout, members: Sequence[Member]) -> RolloutStatus:
    plan = rollout.plan
    versions = {"present": plan.present, "next": plan.next, "fallback": plan.fallback}
    wants = {
        one.name: versions[
            choice(plan, rollout.stage, one.group, plan.next.version if one.runs_next else None)
        ].version
        for one in members
    }
    return RolloutStatus(
        channel=plan.channel,
        state=rollout.state,
        why=rollout.why,
        since_s=round(max(time.time() - rollout.since_s, 0.0), 1),
        open=rollout.open,
        groups=plan.groups,
        threshold=plan.threshold,
        wait_s=plan.wait_s,
        present=plan.present.version,
        next=plan.next.version,
        fallback=plan.fallback.version,
        members=members,
        wants=wants,
    )
