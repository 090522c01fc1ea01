"""A stranger walks every route of a real server, in every spelling: nothing but refusals."""

import json
import socket
import ssl
from importlib import import_module

import httpx
import pytest

from cloud_server.robots.register import Register
from cloud_server.web.fleet_keys import header_of
from fleet_model.protocol.proof import make_key, public_line, read_key, sign, utc_now
from fleet_model.protocol.routes import ADMIN, HELLO, ROBOT, RUNS, STATUS, path_of

from .conftest import request, rest

REFUSED = {401, 403, 404, 405, 413, 429}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
PROTOBUF = "application/protobuf"


class Stranger:
    """Says what it wants, byte by byte, over TLS; proves nothing."""

    def __init__(self, server):
        host, _, port = server.address.partition(":")
        self.at = host, int(port)
        server_dir = server.server_dir
        self.context = ssl.create_default_context(cafile=str(server_dir.certificates / "ca.crt"))
        self.token = server_dir.admin_token.read_text().strip()
        self.operator = {"authorization": f"Bearer {self.token}"}
        self.base_url = f"https://{server.address}"

    def say(self, content: bytes) -> bytes:
        with (
            socket.create_connection(self.at, timeout=240) as raw,
            self.context.wrap_socket(raw, server_hostname=self.at[0]) as tls,
        ):
            tls.sendall(content)
            return rest(tls)

    def status(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> int:
        length = f"content-length: {len(body)}"
        head = request(target, *headers, length, "connection: close", method=method)
        answer = self.say(head + body)
        assert len(answer) < 600, answer  # a reason, nothing of the server
        assert b"/" not in answer.partition(b"\r\n\r\n")[2].replace(b"and/or", b"")
        return int(answer.split()[1])


@pytest.fixture(scope="module")
def stranger(running_server):
    return Stranger(running_server)


@pytest.fixture(scope="module")
def routes(stranger):
    """Return (method, path) of every route, Flower's and our own."""
    answer = httpx.get(
        f"{stranger.base_url}/openapi.json", headers=stranger.operator, verify=stranger.context
    )
    found = answer.json()["paths"]
    return [(method.upper(), path) for path, methods in found.items() for method in methods]


def filled(path: str) -> str:
    return path.replace("{", "").replace("}", "")


def test_there_is_something_to_walk(routes):
    paths = {path for _, path in routes}

    assert len(routes) > 60
    for needed in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet/push-object"):
        assert needed in paths
    for ours in (path_of(ROBOT, HELLO), path_of(ADMIN, STATUS), ADMIN + RUNS, "/metrics"):
        assert ours in paths


def test_no_route_answers_a_stranger(stranger, routes):
    extra = [("GET", path) for path in ("/", "/docs", "/openapi.json", "/docs/oauth2-redirect")]
    for method, path in [*routes, *extra, ("GET", "/metrics"), ("GET", "/redoc")]:
        status = stranger.status(filled(path), method=method)
        assert status in REFUSED, (method, path, status)


def test_no_route_answers_a_plausible_protobuf(stranger, routes):
    types = import_module("flwr.supercore.protobuf.translation").PROTOBUF_REQUEST_TYPES
    asked = 0
    for method, path in routes:
        if (method, path) in types:
            body = plausible(types[method, path]()).SerializeToString()
            status = stranger.status(path, f"content-type: {PROTOBUF}", method=method, body=body)
            assert status in REFUSED, (path, status)
            asked += 1
    assert asked > 40


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_no_method_opens_a_route(stranger, routes, method):
    for path in sorted({path for _, path in routes}):
        status = stranger.status(filled(path), method=method)
        assert status in REFUSED, (method, path, status)


TRICKS = [
    "//v1/control/list-runs",
    "/v1//control/list-runs",
    "/v1/control/list-runs/",
    "/v1/control/list-runs;x=1",
    "/v1/control/list-runs?x=/v1/fleet/",
    "/v1/control/list-runs#/v1/fleet/",
    "/V1/CONTROL/LIST-RUNS",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/%2e%2e%2fcontrol%2flist-runs",
    "/v1/fleet/..;/control/list-runs",
    "/v1/fleet/.%00./control/list-runs",
    "/v1/fleet/./push-object",
    "/v1/fleet/push-object/",
    "/v1/fleet/push-object%20",
    "/v1/fleet//push-object",
    "/v1/fl%65et/push-object",
    "/v1/fleet/",
    "/v1/fleet/\\..\\control\\list-runs",
    "/fleetlearn/v1/robot/../admin/status",
    "/fleetlearn/v1/robot/%2e%2e/admin/status",
    "/fleetlearn/v1/robot/..%2fadmin%2fstatus",
    "/fleetlearn/v1/robot//../admin/status",
    "/fleetlearn/v1/robot/hello/",
    "/fleetlearn/v1/robot/channels/stable/../../../admin/status",
    "/fleetlearn/v1/robot/objects/..%2f..%2fsecrets%2fca.key",
    "/fleetlearn/v1/admin/status",
    "/fleetlearn/v1/admin/status/",
    "/fleetlearn//v1/admin/status",
    "https://127.0.0.1/v1/control/list-runs",
    "https://127.0.0.1/fleetlearn/v1/admin/status",
    "http://127.0.0.1:1/fleetlearn/v1/admin/status",
    "https://user:pass@127.0.0.1/docs",
    "*",
]


@pytest.mark.parametrize("target", TRICKS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_no_spelling_opens_a_route(stranger, target, method):
    assert stranger.status(target, f"content-type: {PROTOBUF}", method=method) in REFUSED


@pytest.mark.parametrize("path", ["/v1/fleet/push-object", "/fleetlearn/v1/admin/status", "/docs"])
def test_a_websocket_opens_nothing(stranger, path):
    headers = ("upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: eA==")
    answer = stranger.say(request(path, "connection: upgrade", *headers))

    assert int(answer.split()[1]) in REFUSED


@pytest.mark.parametrize(
    "header",
    [
        "authorization: Bearer",
        "authorization: Bearer null",
        "authorization: Basic YWRtaW46YWRtaW4=",
        "x-forwarded-for: 127.0.0.1",
        "x-original-url: /fleetlearn/v1/robot/hello",
        "x-http-method-override: POST",
        "flwr-task-token: x",
        "cookie: admin=1",
    ],
)
def test_no_header_but_the_token_opens_a_route(stranger, header):
    assert stranger.status("/fleetlearn/v1/admin/status", header) == 401
    assert stranger.status("/v1/control/list-runs", header, method="POST") == 401


def test_the_token_opens_every_route_of_the_operator(stranger):
    headers = stranger.operator
    for path in ("/docs", "/openapi.json", "/fleetlearn/v1/admin/status", "/health"):
        answer = httpx.get(stranger.base_url + path, headers=headers, verify=stranger.context)
        assert answer.status_code == 200, path


def test_two_requests_in_one_are_two_requests(stranger):
    """A body that looks like a request is a body, whatever the lengths say."""
    inner = request("/fleetlearn/v1/admin/status", f"authorization: Bearer {stranger.token}")
    lying = request(
        "/v1/fleet/pull-messages", "content-length: 4", "transfer-encoding: chunked", method="POST"
    )

    answer = stranger.say(lying + b"0\r\n\r\n" + inner)

    assert answer.split()[1] in (b"400", b"413")
    assert b"robots" not in answer


def test_an_unknown_key_with_a_good_proof_reaches_nothing(stranger, running_server, tmp_path):
    line = make_key(tmp_path / "robot.key")
    key = read_key(tmp_path / "robot.key")
    assert public_line(key.public_key()) == line
    for method, path in [
        ("GET", "/fleetlearn/v1/robot/whoami"),
        ("POST", "/fleetlearn/v1/robot/hello"),
        ("GET", "/fleetlearn/v1/robot/channels/stable"),
        ("GET", f"/fleetlearn/v1/robot/objects/{'0' * 64}"),
        ("GET", "/fleetlearn/v1/admin/status"),
        ("POST", "/fleetlearn/v1/admin/runs"),
    ]:
        proof = sign(key, method, path, utc_now())
        answer = httpx.request(
            method, stranger.base_url + path, headers=proof, verify=stranger.context
        )
        assert answer.status_code in (401, 403), path


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"flwr-signature": "AAAA"},
        {"flwr-signature": "?", "flwr-timestamp": "2026"},
        {"flwr-signature": "AAAA", "flwr-timestamp": "99999-99-99T99:99:99Z"},
        {"flwr-signature": "AAAA", "flwr-timestamp": "2026-01-01T00:00:00"},
    ],
)
def test_who_knows_a_robots_public_key_reaches_nothing_with_it(
    stranger, running_server, routes, headers, tmp_path
):
    line = make_key(tmp_path / "robot.key")
    Register(running_server.server_dir.robots).add(f"r{len(headers)}-{tmp_path.name}", "hall", line)
    key = [f"{name}: {value}" for name, value in headers.items()]
    types = import_module("flwr.supercore.protobuf.translation").PROTOBUF_REQUEST_TYPES
    for method, path in routes:
        if path.startswith("/v1/fleet/"):
            for body in (b"", b"\xff\xff", plausible(types[method, path]()).SerializeToString()):
                head = f"flwr-public-key: {header_of(line).decode()}"
                status = stranger.status(
                    path, head, *key, f"content-type: {PROTOBUF}", method=method, body=body
                )
                assert status in REFUSED | {400}, (path, status)  # 400: no protobuf at all


def test_the_walk_has_left_no_traceback_no_secret_and_no_flood_in_the_log(running_server):
    log = running_server.log.read_text()
    server_dir = running_server.server_dir

    assert "Traceback" not in log
    assert server_dir.admin_token.read_text().strip() not in log
    for key in (server_dir.secrets / "server.key", server_dir.secrets / "ca.key"):
        assert key.read_text().splitlines()[1] not in log
    assert len(log) < 20_000
    assert json.dumps(log).count("refused a robot") < 100


def plausible(message):
    """Fill a protobuf request as somebody would who has read Flower's source."""
    for descriptor in message.DESCRIPTOR.fields:
        if descriptor.message_type is not None:
            if not descriptor.is_repeated:
                getattr(message, descriptor.name).SetInParent()
                if descriptor.name == "node":
                    message.node.node_id = 1
        elif not descriptor.is_repeated:
            value = {"string": "a" * 64, "bytes": b"a"}.get(kind(descriptor), 1)
            setattr(message, descriptor.name, value)
    return message


def kind(descriptor) -> str:
    return {9: "string", 12: "bytes"}.get(descriptor.type, "number")
