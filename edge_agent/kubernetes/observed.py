"""What the agent has written on this robot's disk, as far as a cluster may know it: no path."""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge_agent.agent.status import read_status
from edge_agent.models.trials import TrialFile
from edge_agent.robot.reasons import without_paths
from fleet_model.errors import FleetError, one_line
from fleet_model.kubernetes.robot_model import TriedVersion, VerifiedBy
from fleet_model.litert.runtime import RuntimeChoice
from fleet_model.protocol.routes import site_offer, target_of
from fleet_model.protocol.trial import TrialOutcome

MAX_WORDS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """An agent, as its files say."""

    robot: str = ""
    site: str = ""
    state: str = ""  # "": it has never run
    reason: str = ""
    channel: str = ""  # "": an agent of an earlier version
    active_version: int | None = None
    engine: str = ""
    tried: TriedVersion | None = None
    not_installed: str = ""
    verified_by: VerifiedBy | None = None


def observe(state: Path) -> Observed:
    """Return what an agent has written; a damaged file is as one that is not there.

    Args:
        state: the agent's state directory.
    """
    try:
        status = read_status(state)
        trial = TrialFile(state / "models").read().last or _trial(status.get("trial"))
    except FleetError as error:
        return Observed(reason=_words(str(error)))
    version, channel = status.get("active_version"), _words(status.get("channel"))
    return Observed(
        robot=_words(status.get("name")),
        site=_words(status.get("site")),
        state=_words(status.get("state")),
        reason=_words(status.get("reason")),
        channel=channel,
        active_version=version if isinstance(version, int) else None,
        engine=_engine(status.get("runtime")),
        tried=_tried(trial),
        not_installed=_words(status.get("not_installed")),
        verified_by=verified_by(state / "trust", channel, _words(status.get("models_site")))
        if channel
        else None,
    )


def verified_by(trust: Path, channel: str, site: str = "") -> VerifiedBy | None:
    """Return whose signature counts for a channel; None if this robot has verified none.

    Args:
        trust: what the robot has verified, see edge_agent/link/signed_models.py.
        channel: that it follows.
        site: by which it chooses; a version for it alone comes first.
    """
    offers = [site_offer(channel, site), channel] if site else [channel]
    try:
        return next(filter(None, (_signer(trust, target_of(one)) for one in offers)), None)
    except (OSError, ValueError, KeyError, TypeError):  # of an agent that is older, or damaged
        return None


def _signer(trust: Path, target: str) -> VerifiedBy | None:
    for role in _signed(trust / "targets.json")["delegations"]["roles"]:
        file = trust / f"{role['name']}.json"
        if not any(_matches(target, one) for one in role["paths"]) or not file.exists():
            continue
        signed = _signed(file)
        if target in signed["targets"]:
            return VerifiedBy(
                role=_words(role["name"]),
                keys=[_words(key) for key in role["keyids"]][:16],
                root_version=_signed(trust / "root.json")["version"],
                expires=_words(signed["expires"]),
            )
        if role.get("terminating"):
            return None
    return None


def _matches(target: str, pattern: str) -> bool:
    """Return whether a pattern of TUF has a target: `*` stays within one part of the path."""
    parts, patterns = target.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _signed(file: Path) -> Any:
    return json.loads(file.read_bytes())["signed"]


def _engine(value: object) -> str:
    try:
        return _words(RuntimeChoice.model_validate(value).words) if value else ""
    except ValidationError:
        return ""


def _tried(trial: TrialOutcome | None) -> TriedVersion | None:
    if trial is None:
        return None
    return TriedVersion(version=trial.version, state=trial.state, reason=_words(trial.reason))


def _trial(value: object) -> TrialOutcome | None:
    try:
        return TrialOutcome.model_validate(value) if value else None
    except ValidationError:
        return None


def _words(text: object) -> str:
    return one_line(without_paths(str(text or "")))[:MAX_WORDS]
