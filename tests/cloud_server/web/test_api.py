"""The routes of a real server process over TLS."""

import hashlib
import json
import re
import ssl
import time
from datetime import timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register
from cloud_server.robots.tokens import Tokens
from cloud_server.state.logs import REPEAT_S
from fleet_model.bundle import MANIFEST, read_bundle
from fleet_model.protocol.proof import (
    NAME_HEADER,
    TOKEN_HEADER,
    public_line,
    server_name,
    sign,
    utc_now,
)
from fleet_model.protocol.report import (
    STANDING_HEADER,
    RobotReport,
    Standing,
    pack_report,
    unpack_standing,
)
from fleet_model.protocol.version import PROTOCOL
from fleet_model.protocol.whole import MOST_WHOLE_BYTES

MOVES_WHOLE = {"hold_s": 25.0, "whole_reply_bytes": MOST_WHOLE_BYTES}  # limits.hold_s

ROBOT, ADMIN = "/fleetlearn/v1/robot", "/fleetlearn/v1/admin"


@pytest.fixture(scope="module")
def http(running_server):
    """A client that trusts the server and proves nothing."""
    server_dir = running_server.server_dir
    context = ssl.create_default_context(cafile=str(server_dir.certificates / "ca.crt"))
    url = f"https://{running_server.address}"
    with httpx.Client(base_url=url, verify=context, timeout=240) as client:
        yield client


@pytest.fixture(scope="module")
def operator(running_server):
    return {"authorization": f"Bearer {running_server.server_dir.admin_token.read_text().strip()}"}


@pytest.fixture(scope="module")
def register(running_server):
    return Register(running_server.server_dir.robots)


@pytest.fixture(scope="module")
def caller(http, register):
    """Admit a robot; return a caller with its proof."""

    def admit(name, site="hall-1", **fields):
        key = ec.generate_private_key(ec.SECP384R1())
        register.add(name, site, public_line(key.public_key()), **fields)

        def call(path, method="GET", signed=None, at=None, **headers):
            proof = sign(key, method, signed or path, at or utc_now())
            return http.request(method, path, headers={**headers, **proof})

        return call

    return admit


@pytest.fixture(scope="module")
def robot(caller):
    """Return a caller with the proof of an admitted robot, r1 of hall-1."""
    return caller("r1")


def standing_of(response):
    return unpack_standing(response.headers[STANDING_HEADER])


@pytest.fixture(scope="module")
def routes(http, operator):
    """Return (method, path) of every route, Flower's and our own."""
    paths = http.get("/openapi.json", headers=operator).json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_no_route_answers_a_stranger(http, routes):
    assert len(routes) > 50
    for method, path in [*routes, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/")]:
        url = path.replace("{", "").replace("}", "")
        response = http.request(method, url, headers={"content-type": "application/protobuf"})
        assert response.status_code in (401, 403), (method, path, response.text)
        assert len(response.content) < 200


def test_the_operators_token_opens_no_robots_path_and_a_robots_proof_no_operators(
    http, operator, robot
):
    assert http.get(f"{ROBOT}/whoami", headers=operator).status_code == 403
    assert robot(f"{ADMIN}/status").status_code == 401
    assert http.get(f"{ADMIN}/status", headers={"authorization": "Bearer x"}).status_code == 401


def test_a_robot_is_told_who_it_is_here(robot):
    assert robot(f"{ROBOT}/whoami").json() == {"name": "r1", "site": "hall-1"}
    assert robot(f"{ROBOT}/hello", method="POST").json() == {"name": "r1", "site": "hall-1"}


def test_an_unknown_key_is_refused_with_the_command_that_admits_it(http, running_server):
    key = ec.generate_private_key(ec.SECP384R1())
    path = f"{ROBOT}/whoami"

    response = http.get(path, headers=sign(key, "GET", path, utc_now()))

    assert response.status_code == 403
    line = public_line(key.public_key())
    assert f"cloud-server robots add DIR NAME --site SITE --key '{line}'" in response.text
    Register(running_server.server_dir.robots).add("r2", "hall-2", line)
    assert http.get(path, headers=sign(key, "GET", path, utc_now())).json()["name"] == "r2"


@pytest.fixture
def stranger(http, running_server):
    """Return a caller with a key of its own that nobody knows; `named`: its proof names us."""
    key = ec.generate_private_key(ec.SECP384R1())
    server = server_name((running_server.server_dir.certificates / "ca.crt").read_bytes())

    def call(token, name="new-robot", path=f"{ROBOT}/hello", *, named=True):
        proof = sign(key, "POST", path, utc_now(), server if named else "")
        headers = {**proof, TOKEN_HEADER: token, NAME_HEADER: name}
        return http.request("POST", path, headers=headers)

    return call


def test_a_robot_with_a_token_admits_itself_once(http, running_server, register, stranger):
    token = Tokens(running_server.server_dir.tokens).make(
        utc_now(), valid=timedelta(hours=1), site="dock"
    )
    assert stranger(token, named=False).status_code == 403  # an older agent, or a repeated proof
    assert stranger(token).json() == {"name": "new-robot", "site": "dock"}
    assert stranger(token).json() == {"name": "new-robot", "site": "dock"}  # its answer was lost
    assert register.by_name("new-robot").state == "approved"
    register.revoke("new-robot", "stolen")
    response = stranger(token)
    assert response.status_code == 403
    assert "is revoked (stolen)" in response.text
    log = running_server.log.read_text()
    assert "robot new-robot (dock) is admitted by a token" in log
    assert token.partition(".")[2] not in log


def test_a_wrong_token_is_refused_with_the_command_that_admits_the_key(stranger):
    response = stranger("0badcafe.guess")
    assert response.status_code == 403
    assert "the token is not one of this server, or was revoked" in response.text
    assert "cloud-server robots add DIR NAME" in response.text
    assert "guess" not in response.text


def test_a_proof_of_another_path_or_time_is_refused_with_the_reason(robot):
    path = f"{ROBOT}/whoami"

    assert "signature does not fit" in robot(path, signed=f"{ROBOT}/hello").text
    late = robot(path, at=utc_now() - timedelta(hours=1))
    assert late.status_code == 403
    assert "robot r1: its clock is 3600 s behind" in late.text


def test_a_known_robot_that_is_refused_is_told_to_the_operator_until_it_is_let_in(
    http, operator, caller, register, running_server
):
    early, sold = caller("early"), caller("sold")
    register.revoke("sold", "to Bob")

    def words():
        lines = http.get(f"{ADMIN}/status", headers=operator).json()["words"]
        return [line for line in lines if line.startswith(("robot early", "robot sold"))]

    early(f"{ROBOT}/whoami", at=utc_now() + timedelta(seconds=600.9))
    sold(f"{ROBOT}/whoami")

    first, second = words()
    assert re.fullmatch(
        r"robot early is refused: its clock is 60[01] s ahead of the server's; "
        r"set it \(NTP, chrony\)", first
    )  # fmt: skip
    assert second == "robot sold is refused: it is revoked (to Bob) and still asks"
    assert "refused a robot: robot early: its clock is 60" in running_server.log.read_text()
    early(f"{ROBOT}/whoami", signed=f"{ROBOT}/hello")  # proves nothing: anybody can claim the key
    assert words()[0] == first
    assert early(f"{ROBOT}/whoami").status_code == 200
    assert words() == [second]
    register.forget("sold")
    assert words() == []


@pytest.fixture
def signed(http, register, running_server):
    """Admit a robot; return a caller that signs for a server: this one, another, or none."""
    ca = (running_server.server_dir.kit / "ca.crt").read_bytes()
    names = {"this": server_name(ca), "another": "ab" * 32, "none": ""}

    def admit(name):
        key = ec.generate_private_key(ec.SECP384R1())
        register.add(name, "hall-1", public_line(key.public_key()))
        path = f"{ROBOT}/whoami"
        return lambda server: http.get(
            path, headers=sign(key, "GET", path, utc_now(), names[server])
        )

    return admit


def test_a_request_that_was_signed_for_another_server_is_refused(signed):
    ask = signed("twofold")

    refused = ask("another")

    assert refused.status_code == 403
    assert "signed for another server" in refused.text
    assert ask("this").status_code == 200


def test_a_robot_that_has_named_the_server_is_held_to_it_until_an_operator_approves_it(
    http, operator, signed, register
):
    ask = signed("updated")

    def status():
        answer = http.get(f"{ADMIN}/status", headers=operator).json()
        (robot,) = [robot for robot in answer["robots"] if robot["name"] == "updated"]
        words = " ".join(answer["words"])
        return robot["names_server"], "updated" in words and "do not name this server" in words

    assert ask("none").status_code == 200  # an agent that is older than the server
    assert status() == (False, True)
    assert ask("this").status_code == 200
    assert status() == (True, False)
    refused = ask("none")
    assert refused.status_code == 403
    assert "robot updated: its proof does not name this server any more" in refused.text
    register.approve("updated")
    assert ask("none").status_code == 200
    assert ask("this").status_code == 200
    assert ask("none").status_code == 403


def test_the_query_is_part_of_the_proof(robot):
    path = f"{ROBOT}/channels/stable"

    assert robot(f"{path}?active=1").status_code == 200
    assert robot(f"{path}?active=1", signed=path).status_code == 403


def test_the_newest_manifest_comes_once_and_then_304(robot, running_server):
    published = (running_server.server_dir.model / MANIFEST).read_bytes()

    first = robot(f"{ROBOT}/channels/stable")
    again = robot(f"{ROBOT}/channels/stable", **{"if-none-match": first.headers["etag"]})
    other = robot(f"{ROBOT}/channels/stable", **{"if-none-match": '"another"'})

    assert (first.status_code, first.content) == (200, published)
    assert first.headers["etag"] == f'"{hashlib.sha256(published).hexdigest()}"'
    assert (again.status_code, again.content) == (304, b"")
    assert other.content == published


def test_files_come_by_content(robot, running_server):
    manifest = read_bundle(running_server.server_dir.model)

    for name, entry in {**manifest.files, "trainer.json": manifest.trainer}.items():
        response = robot(f"{ROBOT}/objects/{entry.sha256}")
        assert response.content == (running_server.server_dir.model / name).read_bytes()


def test_what_is_signed_comes_as_it_lies_in_the_store(robot, running_server):
    store = running_server.server_dir.store
    names = [path.name for path in (store / "metadata").iterdir()]
    assert {"1.root.json", "timestamp.json"} < set(names)
    for name in names:
        response = robot(f"{ROBOT}/metadata/{name}")
        assert response.content == (store / "metadata" / name).read_bytes()
    (manifest,) = (store / "targets/stable").iterdir()
    response = robot(f"{ROBOT}/targets/stable/{manifest.name}")
    assert response.content == manifest.read_bytes()
    assert robot(f"{ROBOT}/metadata/2.root.json").status_code == 404


def test_a_robot_gets_the_rest_of_the_file_that_it_began_with_and_else_the_whole(
    robot, running_server
):
    manifest = read_bundle(running_server.server_dir.model)
    path = f"{ROBOT}/objects/{manifest.files['trunk.tflite'].sha256}"
    content = (running_server.server_dir.model / "trunk.tflite").read_bytes()
    tag = robot(path).headers["etag"]

    rest = robot(path, **{"range": "bytes=1000-", "if-range": tag})
    other = robot(path, **{"range": "bytes=1000-", "if-range": '"another"'})
    behind = robot(path, **{"range": f"bytes={len(content)}-", "if-range": tag})

    assert tag == f'"{manifest.files["trunk.tflite"].sha256}"'
    assert (rest.status_code, rest.content) == (206, content[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{len(content) - 1}/{len(content)}"
    assert (other.status_code, other.content) == (200, content)
    assert behind.status_code == 416


@pytest.mark.parametrize(
    "path",
    [
        "channels/canary",
        "channels/" + "a" * 300,
        "channels/STABLE",
        "channels/..%2Fversions%2F000001",
        "channels/%2E%2E%2Fversions%2F000001",
        "objects/" + "0" * 64,
        "objects/" + "0" * 300,
        "objects/..%2F..%2Fsecrets%2Fserver.key",
        "objects/%2e%2e",
        "objects/%00",
        "objects/..%5c..%5csecrets",
        "metadata/..%2Fpins.json",
        "metadata/%2e%2e",
        "metadata/.signing.lock",
        "metadata/1.root.json.more.than.names",
        "metadata/" + "0" * 300 + ".json",
        "targets/../pins.json",
        "targets/stable/..%2F..%2F..%2Fserver.toml",
        "targets/stable",
    ],
)
def test_nothing_outside_the_store_can_be_asked_for(robot, path):
    decoded = f"{ROBOT}/{path}".replace("%2F", "/").replace("%2E", ".").replace("%2e", ".")
    decoded = decoded.replace("%00", "\0").replace("%5c", "\\")

    response = robot(f"{ROBOT}/{path}", signed=decoded)

    assert response.status_code in (401, 404), response.text
    assert len(response.content) < 200


def test_a_damaged_channel_is_told_in_plain_words(http, operator, robot, running_server):
    damaged = running_server.server_dir.store / "channels" / "damaged.json"
    damaged.write_text("{")
    try:
        told = robot(f"{ROBOT}/channels/damaged")
        status = http.get(f"{ADMIN}/status", headers=operator)
    finally:
        damaged.unlink()
    assert (told.status_code, told.json()["detail"]) == (
        503,
        "the server cannot read its channel damaged",
    )
    assert status.status_code == 500
    assert "damaged.json: damaged; restore it" in status.json()["detail"]


def test_a_damaged_manifest_is_told_in_plain_words_to_agents_it_would_be_cut_for(
    robot, running_server
):
    store = running_server.server_dir.store
    files = {
        store / "versions" / "000778.json": "{",
        store / "channels" / "cut.json": '{"version": 778}',
    }
    for file, content in files.items():
        file.write_text(content)
    try:
        told = robot(f"{ROBOT}/channels/cut")
    finally:
        for file in files:
            file.unlink()
    assert (told.status_code, told.json()["detail"]) == (
        503,
        "the server cannot read its channel cut",
    )


def test_the_operator_sees_robots_channels_and_runs(http, operator, robot):
    robot(f"{ROBOT}/channels/stable?active=1")

    status = http.get(f"{ADMIN}/status", headers=operator).json()

    assert status["channels"] == {"stable": 1}
    assert status["runs"] == []
    (seen,) = (one for one in status["robots"] if one["name"] == "r1")
    assert (seen["site"], seen["online"], seen["active_version"]) == ("hall-1", False, 1)
    assert 0 <= seen["last_seen_s"] < 30


def test_the_operator_sees_what_a_robot_reports_its_state_and_its_labels(
    http, operator, caller, register
):
    robot = caller("r5", labels=["gpu"])
    report = RobotReport(model_version=1, battery=30, busy="paused", facts={"docked": True})

    answer = robot(f"{ROBOT}/channels/stable?report={pack_report(report)}")

    assert answer.status_code == 200
    register.suspend("r5", "in the workshop")
    status = http.get(f"{ADMIN}/status", headers=operator).json()
    (seen,) = (one for one in status["robots"] if one["name"] == "r5")
    assert seen["report"] == report.model_dump(exclude_defaults=True)
    assert (seen["active_version"], seen["labels"]) == (1, ["gpu"])
    assert (seen["state"], seen["reason"]) == ("suspended", "in the workshop")
    assert (seen["offenses"], seen["verdict"]) == (0, "")


def test_a_manifest_is_cut_for_agents_that_announce_no_number(robot, running_server):
    store = running_server.server_dir.store
    stored = json.loads((running_server.server_dir.model / MANIFEST).read_text())
    newer = json.dumps({**stored, "protocol": 2, "task": {}}).encode()
    (store / "versions" / "000777.json").write_bytes(newer)
    (store / "channels" / "newer.json").write_text('{"version": 777}')
    old, new = (robot(f"{ROBOT}/channels/newer{query}") for query in ("", "?protocol=2"))
    assert (new.content, old.json()) == (newer, stored)
    for answer in (old, new):
        assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("report=", "report: "),
        ("report=AAAA", "report: not base64 of a JSON object"),
        ("report=" + "A" * 3000, "expected at most 2000"),
        ("report=eyJiYXR0ZXJ5IjogNTAwfQ", "report: 'battery'"),
        ("active=many", "active: "),
        ("active=-1", "active: "),
        ("protocol=0", "protocol: "),
        ("protocol=two", "protocol: "),
        ("active=" + "9" * 50, "active: "),
    ],
)
def test_a_report_that_makes_no_sense_is_400_with_the_reason(robot, query, message):
    response = robot(f"{ROBOT}/channels/stable?{query}")

    assert response.status_code == 400
    assert message in response.json()["detail"]
    assert len(response.content) < 500
    assert standing_of(response) == Standing(protocol=PROTOCOL, signs=True, **MOVES_WHOLE)


def test_every_answer_to_a_robot_tells_its_standing(caller, register):
    robot = caller("r6")
    tag = robot(f"{ROBOT}/channels/stable").headers["etag"]
    register.suspend("r6", "ünder repair")
    standing = Standing(
        state="suspended", reason="ünder repair", protocol=PROTOCOL, signs=True, **MOVES_WHOLE
    )

    answers = [
        robot(f"{ROBOT}/whoami"),
        robot(f"{ROBOT}/hello", method="POST"),
        robot(f"{ROBOT}/channels/stable"),
        robot(f"{ROBOT}/channels/stable", **{"if-none-match": tag}),
        robot(f"{ROBOT}/channels/canary"),
        robot(f"{ROBOT}/objects/" + "0" * 64),
    ]

    assert [a.status_code for a in answers] == [200, 200, 200, 304, 404, 404]
    assert [standing_of(answer) for answer in answers] == [standing] * 6


def test_a_pending_robot_follows_models_and_is_told_what_it_waits_for(caller, register):
    robot = caller("r7", pending=True)

    answer = robot(f"{ROBOT}/channels/stable")

    assert answer.status_code == 200
    assert standing_of(answer).state == "pending"
    assert "cloud-server robots approve DIR r7" in standing_of(answer).reason
    register.approve("r7")
    assert standing_of(robot(f"{ROBOT}/whoami")) == Standing(
        protocol=PROTOCOL, signs=True, **MOVES_WHOLE
    )


def test_a_revoked_robot_is_refused_everywhere_with_the_reason(caller, register):
    robot = caller("r8")
    assert robot(f"{ROBOT}/whoami").status_code == 200

    register.revoke("r8", "sold")

    for path in ("whoami", "channels/stable", "objects/" + "0" * 64):
        response = robot(f"{ROBOT}/{path}")
        assert response.status_code == 403
        assert "robot r8 is revoked (sold); ask the operator" in response.json()["detail"]
        assert STANDING_HEADER not in response.headers


def test_unknown_keys_that_asked_are_listed_with_the_command_until_they_are_admitted(
    http, operator, register
):
    key = ec.generate_private_key(ec.SECP384R1())
    line, path = public_line(key.public_key()), f"{ROBOT}/whoami"
    http.get(path, headers=sign(key, "GET", path, utc_now()))

    def waiting():
        return http.get(f"{ADMIN}/status", headers=operator).json()["waiting"]

    (one,) = (one for one in waiting() if line in one["reason"])
    assert (one["state"], one["name"]) == ("waiting", "")
    assert one["fingerprint"].startswith("SHA256:")
    assert one["reason"] == f"cloud-server robots add DIR NAME --site SITE --key '{line}'"
    register.add("r9", "hall", line)
    assert not any(line in one["reason"] for one in waiting())


def test_a_request_without_a_right_proof_does_not_wait_for_admission(http, operator):
    key = ec.generate_private_key(ec.SECP384R1())
    path = f"{ROBOT}/whoami"

    http.get(path, headers=sign(key, "GET", f"{ROBOT}/hello", utc_now()))

    status = http.get(f"{ADMIN}/status", headers=operator).json()
    line = public_line(key.public_key())
    assert not any(line in one["reason"] for one in status["waiting"])


def test_a_run_that_is_not_known_is_404(http, operator):
    response = http.get(f"{ADMIN}/runs/20200101-000000", headers=operator)

    assert response.status_code == 404
    assert "there is no run 20200101-000000" in response.text


@pytest.mark.parametrize(
    "body", [{}, {"rounds": 0}, {"rounds": 10_001}, {"rounds": "many"}, {"rounds": 1, "x": 1}]
)
def test_a_run_that_makes_no_sense_is_not_started(http, operator, body):
    response = http.post(f"{ADMIN}/runs", headers=operator, json=body)

    assert response.status_code == 422
    assert http.get(f"{ADMIN}/status", headers=operator).json()["runs"] == []


def test_strangers_cannot_fill_the_log(http, running_server):
    before = len(running_server.log.read_text())

    for _ in range(50):
        assert http.get(f"{ROBOT}/whoami").status_code == 403

    assert len(running_server.log.read_text()) - before < 500


def test_a_robot_that_begins_again_and_again_cannot_fill_the_log(caller, running_server):
    restless, began = caller("restless"), time.monotonic()

    for _ in range(20):
        assert restless(f"{ROBOT}/hello", method="POST").status_code == 200

    said = running_server.log.read_text().count("robot restless (hall-1) begins a session")
    assert 1 <= said <= 1 + (time.monotonic() - began) // REPEAT_S


def test_a_body_that_would_fill_the_memory_is_refused_before_it_is_read(http):
    response = http.post(
        "/v1/fleet/push-object", content=iter([b"x" * 1000]), headers={"content-type": "x"}
    )

    assert response.status_code == 413


def test_a_damaged_register_is_told_to_the_operator_and_robots_try_again_later(
    http, operator, robot, running_server
):
    path = running_server.server_dir.robots
    good = path.read_text()
    path.write_text('{"robots": [')

    response = http.get(f"{ADMIN}/status", headers=operator)
    refusal = robot(f"{ROBOT}/whoami")

    path.write_text(good)
    assert refusal.status_code == 503
    assert refusal.json()["detail"] == "the server cannot read its register of robots"
    assert robot(f"{ROBOT}/whoami").status_code == 200
    assert response.status_code == 500
    assert "robots.json: the file: Invalid JSON" in response.json()["detail"]
    assert http.get(f"{ADMIN}/status", headers=operator).status_code == 200


def test_the_log_holds_no_traceback_and_no_secret(http, running_server):
    log = running_server.log.read_text()

    assert "Traceback" not in log
    assert running_server.server_dir.admin_token.read_text().strip() not in log
    assert json.dumps("PRIVATE KEY")[1:-1] not in log


def test_a_server_that_ends_writes_down_whom_it_saw(running_server, robot):
    """Last in this file: it ends the server."""
    assert robot(f"{ROBOT}/channels/stable?active=1").status_code == 200

    running_server.process.terminate()
    running_server.process.wait(240)

    seen = LastSeen(running_server.server_dir.seen)
    assert seen.of("r1").active_version == 1
    assert seen.waiting() != []
