"""Manifests to one robot's cluster, by server-side apply: twice is as once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloud_server.kubernetes.documents import Document
from fleet_model.errors import ConnectionFailed, UpdateError
from fleet_model.kubernetes.api import Cluster, ConflictError, Json, path_of
from fleet_model.kubernetes.robot_model import NAMESPACE

MANAGER = "fleetlearn-cloud-server"  # the same for ever: another one would conflict with it
DEFINITION, LOOK_S, MOST_S = "CustomResourceDefinition", 0.2, 20.0
# What others need comes first; a RobotModel last.
ORDER = (
    "Namespace", DEFINITION, "ServiceAccount", "ClusterRole", "Role", "ClusterRoleBinding",
    "RoleBinding", "ConfigMap", "Secret", "PersistentVolumeClaim", "Service",
)  # fmt: skip
# What the cluster writes, and does not count as a change.
VOLATILE = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one object."""

    kind: str
    namespace: str
    name: str
    state: str  # created, configured, unchanged; with a dry run what it would be; unknown

    def as_json(self) -> dict[str, str]:
        """Return it as `--json` prints it."""
        return {
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "state": self.state,
        }


def in_order(documents: Sequence[Document]) -> list[Document]:
    """Return documents such that each comes behind what it needs."""
    places = {kind: place for place, kind in enumerate(ORDER)}
    return sorted(
        documents,
        key=lambda one: len(ORDER) + 1 if one.is_robot_model else places.get(one.kind, len(ORDER)),
    )


def apply_all(
    cluster: Cluster,
    documents: Sequence[Document],
    into: list[Applied],
    *,
    namespace: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> None:
    """Apply documents in their order; what is done until an error stays in `into`.

    Args:
        cluster: one robot.
        documents: as `in_order` returns them.
        into: gets what became of each.
        namespace: of objects that name none, if the kubeconfig's context has one.
        force: take fields over from other managers.
        dry_run: the cluster judges and changes nothing.

    Raises:
        UpdateError: the cluster does not take an object; ConflictError, RefusedError and
            ConnectionFailed as `Cluster.request`.
    """
    new: set[str] = set()  # what a dry run would have made: the cluster cannot judge what is in it
    for one in documents:
        where = _namespace(one, namespace)
        api_version = str(one.content["apiVersion"])
        resource = cluster.resource(api_version, one.kind)
        if resource is None and dry_run and api_version in new:
            into.append(Applied(one.kind, where, one.name, "unknown"))
            continue
        if resource is None:
            raise UpdateError(
                f"{cluster.name}: knows no {one.kind} of {api_version}; apply the files of "
                "deploy/kubernetes that define it, first or in the same command"
            )
        if resource["namespaced"] and not where:
            raise UpdateError(f"{cluster.name}: {one.said('metadata.namespace', 'is missing')}")
        where = where if resource["namespaced"] else ""
        if dry_run and where in new:
            into.append(Applied(one.kind, where, one.name, "unknown"))
            continue
        state = _apply(cluster, one, resource, where, force=force, dry_run=dry_run)
        into.append(Applied(one.kind, where, one.name, state))
        if dry_run and state == "created":
            new |= _made_by(one)
        elif one.kind == DEFINITION and not dry_run:
            _wait_for_definition(cluster, one)


def _apply(
    cluster: Cluster, document: Document, resource: Json, where: str, *, force: bool, dry_run: bool
) -> str:
    path = path_of(resource, document.content["apiVersion"], where, document.name)
    content = document.content
    if where:
        content = {**content, "metadata": {**content["metadata"], "namespace": where}}
    before = cluster.get(path)
    try:
        after = cluster.apply(path, content, MANAGER, force=force, dry_run=dry_run)
    except ConflictError as error:
        raise ConflictError(f"{error}; --force-conflicts takes such fields over") from None
    except UpdateError as error:
        words = str(error).removeprefix(f"{cluster.name}: ")
        raise UpdateError(f"{cluster.name}: {document.said('', words)}") from None
    if before is None:
        return "created"
    return "unchanged" if _stable(before) == _stable(after) else "configured"


def _namespace(document: Document, usual: str) -> str:
    return document.namespace or (NAMESPACE if document.is_robot_model else usual)


def _made_by(document: Document) -> set[str]:
    """Return the namespace or the API versions that an object makes."""
    if document.kind == "Namespace":
        return {document.name}
    if document.kind == DEFINITION:
        spec = document.content["spec"]
        return {f"{spec['group']}/{version['name']}" for version in spec["versions"]}
    return set()


def _wait_for_definition(cluster: Cluster, document: Document) -> None:
    """Wait until the cluster serves what a definition defines: it takes about a second."""
    resource = cluster.resource(document.content["apiVersion"], DEFINITION)
    assert resource is not None
    path = path_of(resource, document.content["apiVersion"], "", document.name)
    end = time.monotonic() + MOST_S
    while not _is_established(cluster.get(path) or {}):
        if time.monotonic() > end:
            raise ConnectionFailed(
                f"{cluster.name}: {document.name} is not served after {MOST_S:g} s; run it again"
            )
        time.sleep(LOOK_S)
    cluster.forget_resources()


def _is_established(definition: Mapping[str, Any]) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _stable(obj: Json) -> Json:
    metadata = {key: one for key, one in obj["metadata"].items() if key not in VOLATILE}
    return {**{key: one for key, one in obj.items() if key != "status"}, "metadata": metadata}
