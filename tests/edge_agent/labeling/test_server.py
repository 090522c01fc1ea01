"""A real `edge-agent label` on a robot's directory, asked over HTTP."""

import json
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from edge_agent.labeling.answer import read_answers

PATIENCE_S = 240.0
SETTINGS = """
state = "state"
[server]
address = "127.0.0.1:1"
"""


def frames_of(client, count, have=()):
    """Return that many frames once the robot has looked at them."""
    found, end = [], time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < end, client.get("/state").text
        answer = client.get("/next", params={"have": ",".join([*have, *(f["id"] for f in found)])})
        found += answer.json()["frames"]
        time.sleep(0.02)
    return found[:count]


def test_a_person_labels_frames_and_a_kill_loses_nothing(label, folder):
    page = label("--port", "0", "--as", "ann")
    assert "ssh -L" in page.told["tunnel"]
    with page.client() as client:
        state = client.get("/state").json()
        assert state["classes"] == ["circle", "square", "star"]
        for frame, name in zip(frames_of(client, 3), ("star", "circle", "star"), strict=True):
            assert frame["version"] == 3
            assert client.get(f"/frame/{frame['id']}.jpg").content[:2] == b"\xff\xd8"
            answer = {"id": frame["id"], "kind": "label", "label": name}
            told = client.post("/answer", json=answer).json()
        assert told["progress"]["labels"] == {"star": 2, "circle": 1}
    page.end(signal.SIGKILL)
    given = read_answers(folder / "state" / "labels")
    assert [one.label for one in given] == ["star", "circle", "star"]
    again = label("--port", "0", "--as", "bob")
    with again.client() as client:
        assert client.get("/state").json()["progress"]["frames"] == 3
        names = {frame["id"] for frame in frames_of(client, 6)}
        assert not names & {one.frame.id for one in given}
        client.post("/answer", json={"id": names.pop(), "kind": "skip"})
    ended = json.loads(again.end())
    assert (ended["frames"], ended["skipped"], ended["answers"]) == (3, 1, 1)
    assert again.process.returncode == 0
    assert ended["by"] == ["ann", "bob"]
    status = subprocess.run(
        [sys.executable, "-m", "edge_agent", "status", "-c", folder], capture_output=True, text=True
    )
    assert status.stdout == "the agent has not run yet\n"


def test_only_the_page_itself_is_answered(label):
    page = label()
    token = parse_qs(urlsplit(page.url).query)["token"][0]
    with httpx.Client(base_url=page.origin, timeout=PATIENCE_S) as stranger:
        for path in (
            "/",
            "/label.js",
            "/state",
            "/next",
            "/frame/0.jpg",
            "/?token=x",
            "/..",
            "/no",
        ):
            answer = stranger.get(path)
            assert answer.status_code == 403, path
            assert "set-cookie" not in answer.headers
            assert token not in answer.text
        own = {"origin": page.origin}
        assert stranger.post("/answer", json={}, headers=own).status_code == 403
        assert stranger.get(f"/?token={token}", headers={"host": "evil.com"}).status_code == 403
    with page.client() as client:
        (cookie,) = client.cookies.jar
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "Strict"
        for headers in (
            {"origin": "http://localhost:1"},
            {"origin": "null"},
            {"host": "evil.example.com"},
            {"sec-fetch-site": "same-site", "origin": page.origin},
        ):
            assert client.get("/state", headers=headers).status_code == 403, headers
            assert client.post("/undo", json={}, headers=headers).status_code == 403, headers
        assert client.post("/undo", data={"a": "b"}).status_code == 415
        assert client.put("/undo", json={}).status_code == 405
        assert client.post("/answer", content=b"{", headers=JSON).status_code == 400
        too_long = client.post("/answer", json={"id": "x" * 300_000})
        assert too_long.json() == {"error": "an answer has at most 262144 bytes"}
        assert client.get("/label.css").status_code == 200
        assert client.get("/nothing").status_code == 404


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "path",
    ["/../agent.toml", "/frame/../../agent.toml", "/%2e%2e/agent.toml", "/..%2f..%2fagent.toml",
     "/label.js/../../server.py", "/frame/..%5c..%5cagent.toml"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(page_of_all, path):
    page, cookie = page_of_all
    host = urlsplit(page.origin)
    with socket.create_connection((host.hostname, host.port), PATIENCE_S) as raw:
        head = f"GET {path} HTTP/1.1\r\nHost: {host.netloc}\r\nCookie: {cookie}\r\n"
        raw.sendall(f"{head}Connection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 403 "), answer[:200]
    assert b"127.0.0.1:1" not in answer


def test_every_answer_protects_the_page(page_of_all):
    page, cookie = page_of_all
    for path in ("/", "/label.js", "/state", "/nothing"):
        answer = httpx.get(page.origin + path, headers={"cookie": cookie})
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_without_a_model_frames_are_spread_over_time(page_of_all):
    page, _ = page_of_all
    with page.client() as client:
        state = client.get("/state").json()
        assert state["classes"] == ["a", "b"]
        assert state["problems"] == ["no model is installed yet"]
        assert [frame["version"] for frame in frames_of(client, 2)] == [None, None]


def test_on_a_unix_socket(label, folder):
    page = label("--socket", folder / "page")
    transport = httpx.HTTPTransport(uds=str(folder / "page"))
    assert f":{folder / 'page'} " in page.told["tunnel"]
    with page.client(transport=transport) as client:
        assert client.get("/state").status_code == 200
    page.end()
    assert not (folder / "page").exists()


def refusal(folder, *words):
    command = [sys.executable, "-m", "edge_agent", "label", "--config", folder, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    *_, line = done.stderr.splitlines()  # before it LiteRT says what it runs on
    return done.returncode, line


def test_what_is_missing_is_said_in_one_line(label, folder):
    page = label()
    code, line = refusal(folder, "--port", "0")
    assert (code, "another `edge-agent label` is open" in line) == (2, True)
    page.end()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, line = refusal(folder, "--port", str(taken.getsockname()[1]))
    assert (code, "choose another with --port or --socket" in line) == (2, True)
    (folder / "state" / "models" / "current").unlink()
    code, line = refusal(folder)
    assert (code, "name them: --classes clear,blocked" in line) == (2, True)
    (folder / "agent.toml").write_text(SETTINGS)
    code, line = refusal(folder)
    assert (code, "examples.paths" in line) == (2, True)
