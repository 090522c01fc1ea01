"""What asks a cluster's API, against one that is slow, away, in the way, or endless."""

import json
import socket
import ssl
import threading

import pytest
from loopback_cluster import LoopbackCluster

from fleet_model.errors import ConnectionFailed, RefusedError, UpdateError
from fleet_model.kubernetes import api
from fleet_model.kubernetes.api import Cluster, ConflictError, GoneError
from fleet_model.kubernetes.connection import Connection, Patience

MAPS = "api/v1/namespaces/robots/configmaps"


class Token:
    def __init__(self, token):
        self.token = token

    def headers(self):
        return {"Authorization": f"Bearer {self.token}"}

    def renew(self):
        return False


def connection(cluster, token="admin-token", **patience):
    tls = ssl.create_default_context(cadata=cluster.authority.pem.decode())
    return Connection(name="r1", server=cluster.url, tls=tls, credential=Token(token),
                      patience=Patience(**patience))  # fmt: skip


@pytest.fixture
def cluster(tmp_path):
    with LoopbackCluster(tmp_path) as cluster:
        cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "robots"}})
        yield cluster


@pytest.fixture
def asking(cluster):
    with Cluster(connection(cluster)) as asking:
        yield asking


def a_map(**data):
    meta = {"name": "a", "namespace": "robots"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def status(code, message):
    return json.dumps({"kind": "Status", "code": code, "message": message}).encode()


def answering(code, content=b"", headers=(), times=1):
    """Return a fault that answers so many requests, and what counts them."""
    seen = []

    def fault(http):
        seen.append(http.path)
        if len(seen) <= times:
            LoopbackCluster.send(http, code, content, headers)
        return len(seen) <= times

    fault.seen = seen
    return fault


def test_fields_are_applied_shared_taken_over_and_given_back(asking):
    path = f"{MAPS}/a"
    assert asking.get(path) is None
    asking.apply(path, a_map(x="1", y="1"), "one")
    asking.apply(path, a_map(x="1", z="1"), "two")
    with pytest.raises(ConflictError, match=r'r1: .*conflict with "one": .data.y'):
        asking.apply(path, a_map(y="2"), "two")
    assert asking.apply(path, a_map(y="2"), "two", force=True, dry_run=True)["data"]["y"] == "2"
    assert asking.get(path)["data"] == {"x": "1", "y": "1", "z": "1"}
    asking.apply(path, a_map(y="2"), "two", force=True)
    assert asking.get(path)["data"] == {"x": "1", "y": "2"}


def test_what_a_cluster_knows_is_asked_once_until_it_changes(asking, cluster):
    assert asking.resource("apps/v1", "DaemonSet")["name"] == "daemonsets"
    assert asking.resource("apps/v1", "Daemon") is None
    assert asking.resource("no.such/v1", "Thing") is None
    assert len([one for one in cluster.requests if one[1] == "/apis/apps/v1"]) == 1
    asking.forget_resources()
    assert asking.resource("apps/v1", "DaemonSet")
    assert len([one for one in cluster.requests if one[1] == "/apis/apps/v1"]) == 2


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ({"kind": "ConfigMap", "data": {"x": 1}}, UpdateError, "strict decoding error: data.x"),
        ({"kind": "ConfigMap", "dat": {}}, UpdateError, "strict decoding error"),
    ],
)
def test_what_a_cluster_does_not_take(asking, wanted, error, words):
    with pytest.raises(error, match=f"r1: .*{words}"):
        asking.apply(f"{MAPS}/a", {**a_map(), **wanted}, "one")


def test_who_is_not_known_and_who_may_not(cluster):
    with (
        Cluster(connection(cluster, "no-token")) as nobody,
        pytest.raises(RefusedError, match=r"r1: who asks is not known \(Unauthorized\)"),
    ):
        nobody.version()
    cluster.users["reader"], cluster.roles["reader"] = "reader", []
    with Cluster(connection(cluster, "reader")) as reader:
        assert reader.version()
        with pytest.raises(RefusedError, match=r"r1: who asks may not do this .*cannot get"):
            reader.get(f"{MAPS}/a")


@pytest.mark.parametrize(("code", "headers"), [(503, ()), (429, [("Retry-After", "0")]), (504, ())])
def test_what_is_over_soon_is_tried_again(asking, cluster, code, headers):
    cluster.fault = answering(code, headers=headers, times=2)
    assert asking.version()
    assert len(cluster.fault.seen) == 3
    cluster.fault = answering(code, headers=headers, times=99)
    with pytest.raises(ConnectionFailed, match=f"r1: .*{code}"):
        asking.version()
    assert len(cluster.fault.seen) == 3


@pytest.mark.parametrize("code", [400, 403, 409, 410, 422, 500])
def test_what_stays_is_not_tried_again(asking, cluster, code):
    cluster.fault = answering(code, times=99)
    with pytest.raises((UpdateError, ConnectionFailed, RefusedError)):
        asking.get(f"{MAPS}/a")
    assert len(cluster.fault.seen) == 1


def test_a_connection_that_is_cut_is_tried_again(asking, cluster):
    def cut(http):
        if len(cluster.requests) < 3:
            http.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        return False

    cluster.fault = cut
    assert asking.version()
    assert len(cluster.requests) == 3


def test_silence_is_waited_for_once(cluster):
    over = threading.Event()
    cluster.fault = lambda http: over.wait(60)
    with Cluster(connection(cluster, connect_s=2, silence_s=0.2, retries=5)) as asking:
        with pytest.raises(ConnectionFailed, match=r"r1: https://.* is silent for 0.2 s"):
            asking.get(MAPS)
        with pytest.raises(ConnectionFailed, match=r"is silent for 2 s"):
            asking.version()
    over.set()
    assert len(cluster.requests) == 2


def test_nobody_there():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        server = f"https://127.0.0.1:{held.getsockname()[1]}"
        gone = Connection(name="r1", server=server, tls=ssl.create_default_context())
        with Cluster(gone) as asking, pytest.raises(ConnectionFailed, match="cannot be reached"):
            asking.version()


@pytest.mark.parametrize(
    ("answer", "words", "times"),
    [(b"", "cannot be reached", 3), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS", 1)],
)
def test_a_peer_that_hangs_up_or_speaks_something_else(answer, words, times):
    came = []

    def serve():
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            came.append(peer.recv(100))
            peer.sendall(answer)
            peer.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        server = f"https://127.0.0.1:{listener.getsockname()[1]}"
        there = Connection(name="r1", server=server, tls=ssl.create_default_context())
        with Cluster(there) as asking, pytest.raises(ConnectionFailed, match=words):
            asking.version()
        listener.shutdown(socket.SHUT_RDWR)
    assert len(came) == times


@pytest.mark.parametrize(
    ("code", "content", "words"),
    [
        (200, b"<html>", "does not answer as a Kubernetes API"),
        (200, b"[1]", "does not answer as a Kubernetes API"),
        (200, b"[" * 100_000, "does not answer as a Kubernetes API"),
        (302, b"", "answers 302 .*not by a Kubernetes API"),
        (404, b"nginx", "the answer is 404, and not by a Kubernetes API"),
        (500, status(500, "\x1b[31mred\nline"), r"answers 500 \(.x1b\[31mred.nline"),
        (500, status(500, ".spec.x: field not declared in schema"), r"^r1: .spec.x: field"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none(asking, cluster, code, content, words):
    cluster.fault = answering(code, content, times=99)
    with pytest.raises((ConnectionFailed, UpdateError), match=words):
        asking.request("GET", "version")


def test_an_endless_and_a_trickling_answer(cluster, monkeypatch):
    monkeypatch.setattr(api, "MAX_ANSWER", 100_000)

    def endless(http):
        http.send_response(200)
        http.end_headers()
        while True:
            http.wfile.write(b" " * 10_000)

    cluster.fault = endless
    with (
        Cluster(connection(cluster)) as asking,
        pytest.raises(ConnectionFailed, match="r1: answers more than"),
    ):
        asking.version()

    def trickling(http):
        http.send_response(200)
        http.end_headers()
        while not over.wait(0.02):
            http.wfile.write(b" ")

    over, cluster.fault = threading.Event(), trickling
    with (
        Cluster(connection(cluster, answer_s=0.3)) as asking,
        pytest.raises(ConnectionFailed, match=r"not complete after 0.3 s"),
    ):
        asking.version()
    over.set()


def test_a_watch_tells_what_changes_and_ends(asking, cluster):
    begin = asking.request("GET", MAPS)["metadata"]["resourceVersion"]
    cluster.put(a_map(x="1"))
    cluster.put({**a_map(), "metadata": {"name": "b", "namespace": "elsewhere"}})
    events = [(kind, obj["metadata"].get("name")) for kind, obj in asking.watch(MAPS, begin, 1)]
    assert events[0] == ("ADDED", "a")
    assert {kind for kind, _ in events} == {"ADDED", "BOOKMARK"}
    assert "b" not in {name for _, name in events}


def test_a_watch_from_too_long_ago(asking, cluster):
    cluster.put(a_map(x="1"))
    cluster.compact()
    with pytest.raises(GoneError, match="too old resource version"):
        next(asking.watch(MAPS, "1", 5))
    cluster.fault = answering(410)
    with pytest.raises(GoneError):
        next(asking.watch(MAPS, "1", 5))


def test_a_watch_that_is_cut_within_an_event_and_one_without_end(asking, cluster, monkeypatch):
    monkeypatch.setattr(api, "MAX_EVENT", 1000)
    for content, words in (
        (b'{"type": "ADD', "within an event"),
        (b"x" * 5000, "an event has more"),
    ):
        cluster.fault = answering(200, content)
        with pytest.raises(ConnectionFailed, match=words):
            list(asking.watch(MAPS, "1", 5))
