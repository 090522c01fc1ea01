"""What a RobotModel asks for, and what is to be said of it: pure functions of what was seen."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from edge_agent.kubernetes.observed import Observed
from fleet_model.kubernetes.robot_model import (
    AGENT,
    API_VERSION,
    CONDITIONS,
    GROUP,
    KIND,
    Condition,
    RobotModelSpec,
    RobotModelStatus,
)

Json = dict[str, Any]
APPLIED, READY = CONDITIONS
ANNOTATION = f"{GROUP}/settings"  # on the DaemonSet: which variables are the controller's
CHANNEL, ENGINE = "EDGE_AGENT_SERVER__CHANNEL", "EDGE_AGENT_ENGINE__"


@dataclass(frozen=True, slots=True)
class Said:
    """A condition without its times."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


@dataclass(slots=True)
class Plan:
    """What a namespace's RobotModels ask for."""

    variables: dict[str, dict[str, str]] = field(default_factory=dict)  # DaemonSet -> name -> value
    refused: dict[str, Said] = field(default_factory=dict)  # RobotModel -> why it is not followed
    kept: set[str] = field(default_factory=set)  # DaemonSets that stay as they are


def plan(models: Sequence[Json], sets: Mapping[str, Json]) -> Plan:
    """Return which variables each DaemonSet is to have; none: those of before go.

    Args:
        models: all RobotModels of a namespace.
        sets: its DaemonSets by name.
    """
    made, holders = Plan(), dict[str, str]()
    for model in sorted(models, key=_age):
        name = model["metadata"]["name"]
        try:
            spec = _spec(model)
        except ValidationError:
            words = "it is of a newer kind; update the controller. The agent stays as it is"
            made.refused[name] = Said("False", "NotUnderstood", words)
            made.kept.add(agent_of(model))
            continue
        if (holder := holders.get(spec.agent)) is not None:
            words = f"RobotModel {holder} has agent {spec.agent}, and is older; delete one of them"
            made.refused[name] = Said("False", "AnotherModel", words)
            continue
        holders[spec.agent] = name
        if (said := _not_an_agent(sets.get(spec.agent), spec.agent)) is not None:
            made.refused[name] = said
            continue
        engine = spec.engine.model_dump(exclude_none=True)
        made.variables[spec.agent] = {CHANNEL: spec.channel} | {
            f"{ENGINE}{key.upper()}": value for key, value in engine.items()
        }
    return made


def change_of(daemon_set: Json, variables: Mapping[str, str]) -> Json | None:
    """Return what is to be applied to a DaemonSet, None if it is as it should be.

    Fields that are not applied again go, and with them the agent goes back to its agent.toml.
    """
    metadata = daemon_set["metadata"]
    noted = json.dumps(dict(sorted(variables.items()))) if variables else None
    now = (metadata.get("annotations") or {}).get(ANNOTATION)
    container = _agent_container(daemon_set) or {}
    values = {one["name"]: one.get("value") for one in container.get("env") or ()}
    if now == noted and all(values.get(name) == value for name, value in variables.items()):
        return None
    # The uid: another DaemonSet that has taken its place since is not changed, nor is one made.
    made: Json = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
    }
    if variables:
        env = [{"name": name, "value": value} for name, value in sorted(variables.items())]
        containers = [{"name": AGENT, "env": env}]
        made["metadata"]["annotations"] = {ANNOTATION: noted}
        made["spec"] = {"template": {"spec": {"containers": containers}}}
    return made


def status_of(
    model: Json, applied: Said, daemon_set: Json | None, seen: Observed, now: str
) -> RobotModelStatus:
    """Return what is to be said of a RobotModel.

    Args:
        model: as the cluster has it, with what was said before.
        applied: whether its settings have reached the DaemonSet.
        daemon_set: its agent's; None: there is none.
        seen: what the agent has written.
        now: UTC, ISO 8601.
    """
    generation, ready = model["metadata"].get("generation", 0), applied
    if applied.status == "True":
        ready = _rolling(daemon_set) or _ready(_spec(model), seen)
    before = {one["type"]: one for one in (model.get("status") or {}).get("conditions") or ()}
    conditions = [
        _condition(kind, said, before.get(kind), generation, now)
        for kind, said in zip(CONDITIONS, (applied, ready), strict=True)
    ]
    return RobotModelStatus(
        observed_generation=generation,
        reported_at=now,
        robot=seen.robot,
        site=seen.site,
        agent_state=seen.state,
        channel=seen.channel,
        active_version=seen.active_version,
        engine=seen.engine,
        tried=seen.tried,
        not_installed=seen.not_installed,
        verified_by=seen.verified_by,
        conditions=conditions,
    )


def status_object(model: Json, status: RobotModelStatus) -> Json:
    """Return a status as it is applied; what is not known is not in it."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": model["metadata"]["name"]},
        "status": status.model_dump(by_alias=True, exclude_defaults=True),
    }


def agent_of(model: Json) -> str:
    """Return the DaemonSet that a RobotModel names."""
    return str((model.get("spec") or {}).get("agent", AGENT))


def _spec(model: Json) -> RobotModelSpec:
    return RobotModelSpec.model_validate(model.get("spec") or {})


def _age(model: Json) -> tuple[str, str]:
    return str(model["metadata"].get("creationTimestamp", "")), model["metadata"]["name"]


def _agent_container(daemon_set: Json) -> Json | None:
    containers = daemon_set["spec"]["template"]["spec"].get("containers") or ()
    return next((one for one in containers if one["name"] == AGENT), None)


def _not_an_agent(daemon_set: Json | None, name: str) -> Said | None:
    if daemon_set is None:
        return Said("False", "NoAgent", f"there is no DaemonSet {name} in this namespace")
    if _agent_container(daemon_set) is None:
        words = f"DaemonSet {name} has no container {AGENT}"
        return Said("False", "NoAgent", words)
    robots = (daemon_set.get("status") or {}).get("desiredNumberScheduled", 0)
    if robots > 1:
        words = (
            f"DaemonSet {name} runs on {robots} robots; a RobotModel is for a cluster of one. Set "
            "EDGE_AGENT_SERVER__CHANNEL in the overlay"
        )
        return Said("False", "SeveralRobots", words)
    return None


def _rolling(daemon_set: Json | None) -> Said | None:
    """Return why the pods are not yet as they should be; None if they are."""
    if daemon_set is None:
        return Said("False", "NoAgent", "the DaemonSet has gone")
    status, generation = daemon_set.get("status") or {}, daemon_set["metadata"]["generation"]
    wanted = status.get("desiredNumberScheduled", 0)
    if status.get("observedGeneration", 0) < generation:
        return Said("False", "RollingOut", "the agent is about to be restarted")
    if not wanted:
        return Said("False", "NoRobot", "no node of this cluster has the label of a robot")
    if status.get("updatedNumberScheduled", 0) < wanted or status.get("numberReady", 0) < wanted:
        words = "the agent's pod is not ready; `kubectl describe pod` on the robot says why"
        return Said("False", "RollingOut", words)
    return None


def _ready(spec: RobotModelSpec, seen: Observed) -> Said:
    return next(_sayings(spec, seen))


def _sayings(spec: RobotModelSpec, seen: Observed) -> Iterator[Said]:
    """Yield all that is true, what matters most first."""
    version, tried, newest = seen.active_version, seen.tried, seen.not_installed
    if not seen.state:
        yield Said("Unknown", "NoStatus", seen.reason or "the agent has not written a status yet")
    if seen.channel and seen.channel != spec.channel:
        yield Said("False", "RollingOut", f"the agent still follows channel {seen.channel}")
    if seen.state == "stopped":
        yield Said("False", "AgentStopped", seen.reason or "the agent has ended")
    if seen.state == "refused":
        yield Said("False", "RefusedByServer", seen.reason)
    if version is None:
        yield Said("False", "NoModel", newest or seen.reason or "no model came yet")
    if newest:
        refused = tried is not None and tried.state in ("refused", "back")
        reason = "ModelRefused" if refused else "NotInstalled"
        yield Said("False", reason, f"runs version {version}; newest: {newest}")
    if seen.state == "offline":
        yield Said("Unknown", "Offline", f"runs version {version}; {seen.reason}")
    if tried is not None and tried.version == version and tried.state == "probation":
        yield Said("False", "OnProbation", f"version {version} is on probation")
    yield Said("True", "Following", f"runs version {version} of channel {spec.channel}")


def _condition(kind: str, said: Said, before: Json | None, generation: int, now: str) -> Condition:
    same = before is not None and before.get("status") == said.status
    return Condition(
        type=kind,
        status=said.status,
        reason=said.reason,
        message=said.message[:1000],
        last_transition_time=str(before["lastTransitionTime"]) if before and same else now,
        observed_generation=generation,
    )
