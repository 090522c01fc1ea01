"""A kubeconfig is read as kubectl reads it, and each credential opens a real TLS server."""

import base64
import json
import sys

import pytest
from loopback_cluster import Authority, write_kubeconfig

from cloud_server.kubernetes.kubeconfig import KubeConfig, find_kubeconfig
from fleet_model.errors import ConnectionFailed, RefusedError, SettingsError
from fleet_model.kubernetes.api import Cluster
from fleet_model.kubernetes.connection import Patience

PATIENCE = Patience(retries=1)


def version(file, context="robot"):
    with Cluster(KubeConfig([file]).connection(context, PATIENCE)) as cluster:
        return cluster.version()


def encoded(content):
    return base64.b64encode(content).decode()


def exec_user(tmp_path, *answers, **more):
    """Return a user whose command gives one answer after the other."""
    count = tmp_path / "count"
    script = tmp_path / "login.py"
    script.write_text(
        "import pathlib, json, os\n"
        f"count = pathlib.Path({str(count)!r})\n"
        "number = int(count.read_text()) if count.exists() else 0\n"
        "count.write_text(str(number + 1))\n"
        "assert json.loads(os.environ['KUBERNETES_EXEC_INFO'])['kind'] == 'ExecCredential'\n"
        f"print({[json.dumps(one) for one in answers]!r}[number])\n"
    )
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable}
    return {"exec": {**command, "args": [str(script)], "interactiveMode": "Never", **more}}


@pytest.fixture
def write(new_cluster, tmp_path):
    cluster = new_cluster()

    def write(user, **of_cluster):
        part = cluster.kubeconfig(**user)
        part["clusters"][0]["cluster"] |= of_cluster
        return write_kubeconfig(tmp_path / "kubeconfig", part)

    write.cluster = cluster
    return write


def test_a_token_a_file_of_one_and_a_certificate_open_the_cluster(write, tmp_path):
    certificate, key = write.cluster.authority.pair("admin")
    (tmp_path / "token").write_text("admin-token\n")
    (tmp_path / "admin.crt").write_bytes(certificate)
    (tmp_path / "admin.key").write_bytes(key)
    for user in (
        {"token": "admin-token"},
        {"tokenFile": "token"},
        {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)},
        {"client-certificate": "admin.crt", "client-key": "admin.key"},
    ):
        assert version(write(user)) == "v1.37.0+loopback"
    assert {one[2] for one in write.cluster.requests} == {"admin"}


def test_a_command_is_asked_once_and_again_when_its_token_is_not_accepted(write, tmp_path):
    old, new = ({"status": {"token": one}} for one in ("old-token", "admin-token"))
    file = write(exec_user(tmp_path, old, new))
    with Cluster(KubeConfig([file]).connection("robot", PATIENCE)) as cluster:
        cluster.version()
        cluster.version()
    assert (tmp_path / "count").read_text() == "2"


def test_a_command_may_give_a_certificate(write, tmp_path):
    certificate, key = (one.decode() for one in write.cluster.authority.pair("admin"))
    status = {"status": {"clientCertificateData": certificate, "clientKeyData": key}}
    assert version(write(exec_user(tmp_path, status))).startswith("v1")


@pytest.mark.parametrize(
    ("user", "error", "words"),
    [
        ({"token": "other"}, RefusedError, "who asks is not known"),
        ({"tokenFile": "nowhere"}, RefusedError, "the token cannot be read"),
        ({"auth-provider": {"name": "gcp"}}, SettingsError, "auth-provider is not supported"),
        ({"client-certificate-data": "***"}, SettingsError, "expected base64"),
        ({"client-certificate-data": "YQ=="}, SettingsError, "belong together"),
        ({"client-certificate-data": "YQ==", "client-key-data": "YQ=="}, SettingsError, "no pair"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-login",
                   "installHint": "install it"}}, SettingsError, "No such file.*; install it"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false"}},
         RefusedError, "false ends with 1"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "echo",
                   "args": ["secret"]}}, RefusedError, "echo prints no ExecCredential$"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "a"}},
         SettingsError, "user robot: exec.apiVersion: "),
    ],
)  # fmt: skip
def test_a_user_that_cannot_be_used_says_why_and_no_secret(write, user, error, words):
    with pytest.raises(error, match=words) as told:
        version(write(user))
    assert "secret" not in str(told.value)
    assert "***" not in str(told.value)


def test_a_cluster_of_another_authority_or_name_is_not_trusted(write, tmp_path):
    other = encoded(Authority().pem)
    with pytest.raises(ConnectionFailed, match=r"is not trusted.*authority"):
        version(write({"token": "admin-token"}, **{"certificate-authority-data": other}))
    assert write.cluster.requests == []
    wrong = {"tls-server-name": "another.example"}
    with pytest.raises(ConnectionFailed, match="is not trusted"):
        version(write({"token": "admin-token"}, **wrong))
    assert version(write({"token": "admin-token"}, **{"tls-server-name": "localhost"}))
    insecure = {"certificate-authority-data": "", "insecure-skip-tls-verify": True}
    assert version(write({"token": "admin-token"}, **insecure))


def test_a_certificate_that_the_cluster_does_not_know(write):
    certificate, key = Authority().pair("admin")
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    with pytest.raises(ConnectionFailed, match=r"does not take .* client certificate \(.*alert"):
        version(write(user))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is no YAML"),
        ("a: 1", "expected a list `contexts`"),
        ("contexts: [3]", "contexts: number 1: expected a name and a context"),
        ("contexts: [{name: robot, context: {cluster: c}}]", "there is no cluster 'c'"),
        ("contexts: [{name: robot, context: {cluster: c}}]\n"
         "clusters: [{name: c, cluster: {server: 'ftp://x'}}]", "cluster c: server: .*ftp"),
        ("contexts: [{name: robot, context: {cluster: c, user: u}}]\n"
         "clusters: [{name: c, cluster: {server: 'https://x'}}]", "there is no user 'u'"),
        ("contexts: [{name: robot, context: {cluster: c}}]\nclusters: [{name: c, cluster: "
         "{server: 'https://x', certificate-authority: none.crt}}]", "cannot be read"),
        ("contexts: [{name: robot, context: {cluster: c}}]\nclusters: [{name: c, cluster: "
         "{server: 'https://x', certificate-authority-data: YQ==}}]", "no certificate in PEM"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_says_where(tmp_path, text, words):
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words) as told:
        KubeConfig([file]).connection("robot", PATIENCE)
    assert str(file) in str(told.value)


def test_files_of_the_variable_are_merged_and_the_first_counts(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    for file, names, server in ((one, ["a"], "https://one"), (two, ["a", "b"], "https://two")):
        part = {
            "clusters": [{"name": n, "cluster": {"server": server}} for n in names],
            "users": [],
            "contexts": [
                {"name": n, "context": {"cluster": n, "namespace": server}} for n in names
            ],
        }
        write_kubeconfig(file, part)
    found = find_kubeconfig(None, {"KUBECONFIG": f"{one}:{tmp_path / 'missing'}:{two}"})
    assert found.contexts == ["a", "b"]
    assert found.connection("a", PATIENCE).server == "https://one"
    assert found.namespace("b") == "https://two"
    assert find_kubeconfig(two, {"KUBECONFIG": str(one)}).contexts == ["a", "b"]
    with pytest.raises(SettingsError, match="there is no kubeconfig; name one with --kubeconfig"):
        find_kubeconfig(None, {"KUBECONFIG": str(tmp_path / "missing")})
