"""What RobotModels say of one robot."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import ValidationError

from fleet_model.errors import UpdateError
from fleet_model.kubernetes.api import Cluster, path_of
from fleet_model.kubernetes.robot_model import API_VERSION, KIND, RobotModelStatus

SILENT = timedelta(minutes=15)  # the controller reports every five


@dataclass(frozen=True, slots=True)
class Seen:
    """One RobotModel."""

    namespace: str
    name: str
    wanted: str  # channel of its spec
    status: RobotModelStatus
    ready: str  # yes, no, unknown
    why: str  # in words; "" if it is ready

    def as_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "wanted_channel": self.wanted,
            "ready": self.ready,
            "why": self.why,
            "status": self.status.model_dump(by_alias=True, exclude_defaults=True),
        }


def read_models(cluster: Cluster, into: list[Seen], *, namespace: str = "") -> None:
    """Gather the RobotModels of a robot.

    Args:
        cluster: the robot.
        into: gets what is there.
        namespace: "": all.

    Raises:
        UpdateError: the cluster knows no RobotModel, or there is none.
    """
    resource = cluster.resource(API_VERSION, KIND)
    if resource is None:
        raise UpdateError(
            f"{cluster.name}: knows no {KIND}; apply deploy/kubernetes/robot-model with "
            "`cloud-server k8s apply`"
        )
    items = (cluster.get(path_of(resource, API_VERSION, namespace or None)) or {}).get("items", ())
    now = parsedate_to_datetime(cluster.server_time) if cluster.server_time else None
    into += [_seen(one, now) for one in items]
    if not into:
        raise UpdateError(f"{cluster.name}: has no {KIND}; apply one with `cloud-server k8s apply`")


def _seen(obj: dict[str, Any], now: datetime | None) -> Seen:
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    try:
        status = RobotModelStatus.model_validate(obj.get("status") or {})
        ready, why = _judged(status, metadata.get("generation", 0), now)
    except ValidationError:
        status = RobotModelStatus()
        ready, why = "unknown", "its status cannot be read: the controller is of another version"
    channel = str(spec.get("channel", ""))
    return Seen(metadata.get("namespace", ""), metadata["name"], channel, status, ready, why)


def _judged(status: RobotModelStatus, generation: int, now: datetime | None) -> tuple[str, str]:
    """Return yes, no or unknown, and why. What a controller has said long ago is not so now."""
    condition = status.condition("Ready")
    if condition is None or not status.reported_at:
        return "unknown", "the controller has not seen it yet; does its pod run?"
    silent = now - _time(status.reported_at) if now else timedelta()
    if silent > SILENT:
        minutes = silent // timedelta(minutes=1)
        return "unknown", f"the controller is silent for {minutes} minutes; does its pod run?"
    if status.observed_generation != generation:
        return "unknown", "the controller has not seen the last change yet"
    if condition.status == "True":
        return "yes", ""
    ready = "no" if condition.status == "False" else "unknown"
    return ready, f"{condition.reason}: {condition.message}"


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return datetime.fromisoformat("1970-01-01T00:00:00+00:00")
