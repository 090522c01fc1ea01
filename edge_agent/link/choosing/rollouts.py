"""Whether it is this robot's turn in a rollout: it verifies plan and stage, and decides by itself.

See fleet_model/protocol/rollout.py and docs/decisions/0029-staged-rollout.md.
"""

from collections.abc import Mapping
from pathlib import Path

from edge_agent.link.tuf_process import Get
from fleet_model.bundle import sha256_of
from fleet_model.errors import TrustError
from fleet_model.protocol.proof import public_line, read_key
from fleet_model.protocol.rollout import (
    Plan,
    Stage,
    choice,
    group_of,
    offer_of,
    position,
    read_plan,
    read_stage,
)
from fleet_model.protocol.routes import (
    FALLBACK,
    NEXT,
    PLAN,
    STAGE,
    TARGETS,
    part_of_rollout,
    stored_target,
    target_of,
)


def parts_of(channel: str) -> list[str]:
    """Return the names of all that belongs to a rollout on a channel."""
    return [part_of_rollout(channel, part) for part in (PLAN, STAGE, NEXT, FALLBACK)]


class Rollouts:
    """Remembers the files that it has read: they are asked for once."""

    def __init__(self, key: Path | None) -> None:
        """Read nothing yet; `key` is this robot's."""
        self._key, self._line = key, ""
        self._files: dict[str, bytes] = {}  # sha256 -> content
        self.words = ""  # of the rollout that is signed now

    def choose(
        self, channel: str, signed: Mapping[str, str], get: Get, *, site: str, active: int | None
    ) -> str:
        """Return the name of the offer that this robot is to follow.

        Args:
            channel: that offers something.
            signed: name -> sha256 of what is signed.
            get: asks the server.
            site: that this robot keeps.
            active: the version that it runs.

        Raises:
            TrustError: plan and stage do not fit, or are not what was signed.
        """
        plan_name, stage_name, *_ = parts_of(channel)
        if plan_name not in signed:
            self._files, self.words = {}, ""
            return channel
        digest, stage = signed[plan_name], None
        plan = read_plan(self._file(plan_name, digest, get), channel)
        if stage_name in signed:
            content = self._file(stage_name, signed[stage_name], get)
            stage = read_stage(content, plan, digest)
        kept = (digest, signed.get(stage_name))
        self._files = {one: content for one, content in self._files.items() if one in kept}
        group = self._group(plan, digest, site)
        self.words = _words(plan, stage, group)
        return _offer(plan, stage, signed, group, active)

    def _group(self, plan: Plan, digest: str, site: str) -> int:
        if self._key is not None and not self._line:
            self._line = public_line(read_key(self._key).public_key())
        return group_of(plan.groups, position(digest, self._line), site)

    def _file(self, name: str, sha256: str, get: Get) -> bytes:
        if sha256 not in self._files:
            content = signed_file(name, sha256, get)
            if content is None or sha256_of(content) != sha256:
                what = "is not on the server" if content is None else "was changed"
                raise TrustError(
                    f"{name.partition('/')[2]} of the rollout on channel {name.partition('/')[0]} "
                    f"{what}; the active model stays"
                )
            self._files[sha256] = content
        return self._files[sha256]


def _words(plan: Plan, stage: Stage | None, group: int) -> str:
    state, groups = ("not begun", 0) if stage is None else (stage.state, stage.open)
    return (
        f"version {plan.next.version} in groups: {state}, {groups} of {len(plan.groups)} open, "
        f"this robot is in group {group + 1} ({plan.groups[group]})"
    )


def _offer(
    plan: Plan, stage: Stage | None, signed: Mapping[str, str], group: int, active: int | None
) -> str:
    chosen = choice(plan, stage, group, active)
    name = offer_of(plan.channel, chosen)
    wanted = {"next": plan.next, "fallback": plan.fallback}.get(chosen)
    if wanted is not None and signed.get(name) != wanted.sha256:
        raise TrustError(
            f"the rollout on channel {plan.channel} is to end with version {wanted.version}, and "
            "another model is signed for it; the active model stays"
        )
    return name


def signed_file(name: str, sha256: str, get: Get) -> bytes | None:
    """Ask for what is signed under a name; None if it is not there. It is not checked here."""
    return get(TARGETS + stored_target(target_of(name), sha256))
