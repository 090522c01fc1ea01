"""Whatever is wrong in a file is told before a robot is asked: file, document, field, expected."""

import sys

import pytest

from cloud_server.kubernetes.documents import find_mistakes, read_documents
from fleet_model.errors import SettingsError

GOOD = """
apiVersion: robots.fleetlearn/v1alpha1
kind: RobotModel
metadata: {name: front}
spec: {channel: stable}
"""
SET = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: robots}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      containers:
      - name: agent
        image: x
        volumeMounts: [{name: state, mountPath: /x}]
        resources: {requests: {memory: 1Gi, cpu: 100m}, limits: {memory: 1024Mi, cpu: 1}}
      volumes: [{name: state, emptyDir: {}}]
"""


def mistakes(files, *texts):
    return find_mistakes(read_documents(files(*texts)))


def test_what_is_right_has_no_mistake(files):
    whole = GOOD.replace("front}", "front, namespace: robots, labels: {a: b}}").replace(
        "channel: stable",
        "channel: canary, agent: rear-agent, engine: {precision: int8, accelerator: gpu}",
    )
    assert mistakes(files, f"---\n{GOOD}---\n---\n{SET}", whole) == []


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("channel: stable", "chanel: stable", "spec.chanel", 'did you mean "channel"'),
        ("channel: stable", "", "spec.channel", "is missing; expected lower-case letters"),
        ("stable", "Stable", "spec.channel", "a letter first (got 'Stable')"),
        ("stable", "7", "spec.channel", "lower-case letters, digits and -, at most 31"),
        ("stable", "on", "spec.channel", "(got True)"),
        ("stable", "stable, engine: {precision: fp16}", "spec.engine.precision",
         '"fp32" or "int8" (got \'fp16\')'),
        ("stable", "stable, engine: {runtimes: auto}", "spec.engine.runtimes",
         'did you mean "runtime"'),
        ("stable", "stable, engine: {runtime: interpreter, accelerator: gpu}", "spec.engine",
         "the Interpreter runs on no GPU"),
        ("stable", "stable, agent: Edge_Agent", "spec.agent", "a letter or digit at both ends"),
        ("spec: {channel: stable}", "spec: stable", "spec", "a section with keys (got 'stable')"),
        ("spec: {channel: stable}", "", "spec", "is missing"),
        ("name: front", "name: Front", "metadata.name", "lower-case letters, digits and -"),
        ("name: front", "name: front, finalizers: [a]", "metadata.finalizers", "unknown key"),
        ("name: front", "name: front, labels: {a: 1}", "metadata.labels", "names with texts"),
        ("name: front", "name: front, uid: a", "metadata.uid", "was read from a cluster"),
        ("v1alpha1", "v1", "apiVersion", "expected robots.fleetlearn/v1alpha1"),
        ("spec:", "status: {}\nspec:", "status", "is written by the controller; remove it"),
        ("spec:", "extra: 1\nspec:", "extra", "unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_robot_model(files, old, new, field, words):
    (one,) = mistakes(files, f"{SET}---\n{GOOD.replace(old, new)}")
    where, _, said = one.partition(": document 2 (RobotModel ")
    assert where.endswith("0.yaml")
    assert f"): {field}: " in said
    assert words in said


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("image: x", "imag: x", "spec.template.spec.containers[0]",
         'unknown field "imag"; did you mean "image"?'),
        ("image: x", "image: 7", "spec.template.spec.containers[0].image", "expected text (got 7)"),
        ("metadata: {labels: {app: agent}}", "metadata: {labels: {app: other}}",
         "spec.selector.matchLabels.app", "is agent, and the pod's label is other"),
        ("{name: state, mountPath", "{name: nope, mountPath",
         "spec.template.spec.containers[0].volumeMounts[0].name", "volume nope; there are: state"),
        ("memory: 1Gi", "memory: 2Gi", "spec.template.spec.containers[0].resources.requests.memory",
         "is 2Gi, more than its limit of 1024Mi"),
        ("cpu: 100m", "cpu: 1100m", "spec.template.spec.containers[0].resources.requests.cpu",
         "is 1100m, more than its limit of 1"),
        ("      - name: agent\n", "      - {name: agent, image: y}\n      - name: agent\n",
         "spec.template.spec.containers[1].name", "agent is there twice"),
        ("  selector: {matchLabels: {app: agent}}\n", "", "spec", "selector is missing"),
        ("apps/v1", "apps/v7", "apiVersion", "Kubernetes has no apps/v7 DaemonSet"),
        ("memory: 1Gi", "memory: [1]",
         "spec.template.spec.containers[0].resources.requests.memory", "expected text or a number"),
    ],
)  # fmt: skip
def test_a_wrong_object_of_kubernetes(files, old, new, field, words):
    assert old in SET
    (one,) = mistakes(files, SET.replace(old, new))
    assert f"document 1 (DaemonSet agent): {field}: " in one
    assert words in one


def test_every_mistake_of_all_files_is_told(files):
    found = mistakes(files, GOOD.replace("stable", "A"), GOOD + "---" + SET.replace("imag", "imug"))
    assert len(found) == 3  # the RobotModel of both files has one name
    assert "is there twice; the first is document 1" in found[-1]


def test_two_robot_models_of_one_agent_are_a_mistake(files):
    two = GOOD.replace("front", "rear")
    (one,) = mistakes(files, GOOD, two)
    assert "1.yaml: document 1 (RobotModel rear): spec.agent: RobotModel front has agent" in one
    assert mistakes(files, GOOD, two.replace("rear}", "rear, namespace: other}")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", r"0.yaml: line 1: is no YAML"),
        ("a: 1\na: 2", "line 2: is no YAML \\(the key 'a' is there twice\\)"),
        ("", "there is no object in it"),
        ("- 1", "document 1: expected an object with apiVersion and kind"),
        ("kind: X", "document 1: apiVersion: expected text"),
        ("apiVersion: v1\nkind: X\nmetadata: {}", r"\(X\): metadata.name: expected a name"),
        ("apiVersion: v1\nkind: X\nmetadata: {name: a}\nat: 2026-01-01", "at: 2026-01-01 is no"),
        ("apiVersion: v1\nkind: X\nmetadata: {name: a}\nat: .nan", "at: nan is no value of JSON"),
        ("apiVersion: v1\n1: 2", "the key 1 is no text; quote it"),
        ("a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
         "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
         "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]",
         "more than 200000 values"),
        ("kind: Kustomization\nresources: [a]", r"`kubectl kustomize .* apply -`"),
        ("x" * 4_000_001, "more than 4 MB"),
        ("a: " + "[" * 5000, "is no YAML"),
    ],
)  # fmt: skip
def test_a_file_without_objects(files, text, words):
    with pytest.raises(SettingsError, match=words):
        read_documents(files(text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match=r"none: cannot be read .No such file"):
        read_documents([tmp_path / "none"])
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="a: is no text in UTF-8"):
        read_documents([tmp_path / "a"])


def test_without_the_schemas_a_robot_model_is_judged_and_nothing_else(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes_validate", None)
    assert mistakes(files, GOOD) == []
    with pytest.raises(SettingsError, match=r"pip install 'fleetlearn\[kubernetes\]'"):
        mistakes(files, SET)
