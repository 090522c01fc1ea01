"""Manifests to one cluster: in order, twice as once, and a dry run that changes nothing."""

import pytest
from conftest_kubernetes import CRD, SPACE

from cloud_server.kubernetes.apply import apply_all, in_order
from cloud_server.kubernetes.documents import read_documents
from fleet_model.errors import UpdateError
from fleet_model.kubernetes.api import ConflictError

MODEL = """
apiVersion: robots.fleetlearn/v1alpha1
kind: RobotModel
metadata: {name: front}
spec: {channel: stable}
"""


@pytest.fixture
def applied(asked, files):
    """Return a function that applies texts: (kind, state) of each object."""
    _, api = asked

    def apply(*texts, **options):
        into = []
        apply_all(api, in_order(read_documents(files(*texts))), into, **options)
        return [(one.kind, one.state) for one in into]

    return apply


def test_what_others_need_comes_first_and_twice_is_as_once(applied, asked):
    cluster, _ = asked
    texts = (MODEL, CRD.read_text(), SPACE)
    kinds = ["Namespace", "CustomResourceDefinition", "RobotModel"]
    assert applied(*texts) == [(kind, "created") for kind in kinds]
    stored = cluster.get("robotmodels", "fleetlearn-robots", "front")
    assert stored["spec"] == {"channel": "stable", "agent": "edge-agent"}
    before = cluster.revision
    assert applied(*texts) == [(kind, "unchanged") for kind in kinds]
    assert cluster.revision == before
    assert applied(MODEL.replace("stable", "canary")) == [("RobotModel", "configured")]
    assert cluster.get("robotmodels", "fleetlearn-robots", "front")["metadata"]["generation"] == 2


def test_a_kind_that_is_served_late_is_waited_for(applied, asked):
    cluster, _ = asked
    cluster.served_after = 0.5
    assert applied(SPACE, CRD.read_text(), MODEL)[-1] == ("RobotModel", "created")


def test_a_dry_run_changes_nothing_and_says_what_it_cannot_know(applied, asked):
    cluster, _ = asked
    inside = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: fleetlearn-robots}\n"
    assert applied(MODEL, CRD.read_text(), inside, SPACE, dry_run=True) == [
        ("Namespace", "created"), ("CustomResourceDefinition", "created"),
        ("ConfigMap", "unknown"), ("RobotModel", "unknown"),
    ]  # fmt: skip
    assert cluster.objects == {}
    applied(SPACE, CRD.read_text(), MODEL)
    assert applied(MODEL.replace("stable", "b"), dry_run=True) == [("RobotModel", "configured")]
    assert applied(MODEL, dry_run=True) == [("RobotModel", "unchanged")]


def test_a_cluster_without_the_kind_says_what_to_apply(applied):
    with pytest.raises(
        UpdateError, match=r"robot: knows no RobotModel of robots.* deploy/kubernetes"
    ):
        applied(MODEL)


def test_a_field_of_somebody_else_stays_until_it_is_forced(applied, asked):
    cluster, api = asked
    applied(SPACE, CRD.read_text())
    path = "apis/robots.fleetlearn/v1alpha1/namespaces/fleetlearn-robots/robotmodels/front"
    theirs = {"apiVersion": "robots.fleetlearn/v1alpha1", "kind": "RobotModel",
              "metadata": {"name": "front"}, "spec": {"channel": "canary"}}  # fmt: skip
    api.apply(path, theirs, "somebody")
    with pytest.raises(ConflictError, match=r'"somebody": .spec.channel; --force-conflicts takes'):
        applied(MODEL)
    assert cluster.get("robotmodels", "fleetlearn-robots", "front")["spec"]["channel"] == "canary"
    assert applied(MODEL, force=True) == [("RobotModel", "configured")]


def test_what_a_cluster_refuses_names_file_and_object_and_keeps_what_was_done(asked, files):
    cluster, api = asked
    meta = "metadata: {name: a, namespace: fleetlearn-robots}"
    set_ = f"apiVersion: apps/v1\nkind: DaemonSet\n{meta}\nspec: {{}}\n"
    into = []
    with pytest.raises(
        UpdateError, match=r"robot: .*1.yaml: document 1 \(DaemonSet a\): .*selector"
    ):
        apply_all(api, in_order(read_documents(files(SPACE, set_))), into)
    assert [one.state for one in into] == ["created"]
    assert ("namespaces", "", "fleetlearn-robots") in cluster.objects


def test_an_object_without_a_namespace_needs_the_contexts(applied):
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
    applied(SPACE)
    with pytest.raises(UpdateError, match=r"metadata.namespace: is missing"):
        applied(text)
    assert applied(text, namespace="fleetlearn-robots") == [("ConfigMap", "created")]
