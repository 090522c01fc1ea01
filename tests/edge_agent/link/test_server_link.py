"""The HTTPS store against the real server, and against servers that no robot should meet."""

import gzip
import json
import os
import re
import socket
import socketserver
import ssl
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register
from cloud_server.state.certificates import make_secrets
from cloud_server.state.directory import ServerDirectory
from edge_agent.cli.enroll import enroll
from edge_agent.link import answers
from edge_agent.link.download import Download
from edge_agent.link.server_link import HttpsStore
from edge_agent.robot.settings import ExampleSettings, ServerLink, load_settings
from fleet_model.bundle import entry_of, sha256_of, sha256_of_file
from fleet_model.errors import (
    BundleError,
    ConnectionFailed,
    FleetError,
    RefusedError,
    SettingsError,
)
from fleet_model.protocol.proof import fingerprint, make_key, utc_now
from fleet_model.protocol.report import RobotReport, Standing, pack_report
from fleet_model.protocol.version import PROTOCOL
from fleet_model.protocol.whole import MOST_WHOLE_BYTES

MOVES_WHOLE = {"hold_s": 25.0, "whole_reply_bytes": MOST_WHOLE_BYTES}  # limits.hold_s

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
base = pytest.mark.base


# ------------------------------------------------------------------------------- the real server


@pytest.fixture(scope="module")
def link(running_server, tmp_path_factory) -> ServerLink:
    """Robot r1 of site hall: enrolled and admitted."""
    robot = tmp_path_factory.mktemp("r1")
    line = enroll(running_server.server_dir.kit, robot, ExampleSettings(), train=True)
    Register(running_server.server_dir.robots).add("r1", "hall", line)
    return load_settings(robot / "agent.toml", {}).server


@pytest.fixture
def store(link):
    store = HttpsStore(link)
    yield store
    store.close()


def test_hello_tells_name_and_site(store):
    assert store.hello() == store.whoami() == ("r1", "hall")


def test_its_requests_name_the_server_that_they_are_for(store, running_server):
    store.hello()

    server_dir = running_server.server_dir
    (robot,) = [r for r in Register(server_dir.robots).robots() if r.name == "r1"]
    assert LastSeen(server_dir.seen).has_named_server(robot)


def test_the_newest_manifest_costs_its_bytes_once(store):
    offer = store.latest("stable")
    assert offer.content == (TINY / "manifest.json").read_bytes()
    assert 0 < store.bytes_down < 3000
    before = store.bytes_down
    store.active_version = 1
    assert store.latest("stable") == offer
    assert store.bytes_down == before


def test_nothing_on_a_channel_is_none(store):
    assert store.latest("canary") is None


def test_a_file_arrives_whole(store, tmp_path):
    entry = store.latest("stable").manifest.files["trunk.tflite"]
    before = store.bytes_down
    assert store.fetch(entry.sha256, entry.size_bytes, tmp_path / "file") == entry.size_bytes
    assert (tmp_path / "file").read_bytes() == (TINY / "trunk.tflite").read_bytes()
    assert store.bytes_down - before == entry.size_bytes


def test_the_real_server_sends_the_rest_of_a_file(store, tmp_path):
    entry = store.latest("stable").manifest.files["trunk.tflite"]
    content = (TINY / "trunk.tflite").read_bytes()
    begin = len(content) * 99 // 100
    (tmp_path / f".{entry.sha256}.part").write_bytes(content[:begin])

    received = store.fetch(entry.sha256, entry.size_bytes, tmp_path / "file")

    assert received == len(content) - begin
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.slow
def test_a_large_file_lies_in_the_memory_of_neither_side(
    store, running_server, tmp_path, monkeypatch
):
    size = 200_000_000
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(size)
    digest = sha256_of_file(large)
    large.rename(running_server.server_dir.store / "objects" / digest)
    server, samples = running_server.process.pid, []
    idle = [anonymous_bytes(server), anonymous_bytes(os.getpid())]
    blocks = answers.blocks

    def watched(*about):
        for number, block in enumerate(blocks(*about)):
            if number % 100 == 0:
                samples.append([anonymous_bytes(server), anonymous_bytes(os.getpid())])
            yield block

    monkeypatch.setattr(answers, "blocks", watched)

    assert store.fetch(digest, size, tmp_path / "file") == size

    assert len(samples) > 10
    for side, before in enumerate(idle):
        assert max(sample[side] for sample in samples) - before < size / 5


def anonymous_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


def test_an_object_that_the_server_lacks_says_publish_again(store, tmp_path):
    with pytest.raises(
        BundleError, match="object 000000000000 is no longer published; the newest model is"
    ):
        store.fetch("0" * 64, 1, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_file_longer_than_announced_is_cut_off(store, tmp_path):
    entry = store.latest("stable").manifest.files["trunk.tflite"]
    with pytest.raises(BundleError, match="more than the 10 bytes of its entry"):
        store.fetch(entry.sha256, 10, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_is_refused_with_its_fingerprint_and_the_command(link, tmp_path):
    line = make_key(tmp_path / "other.key")
    store = HttpsStore(link.model_copy(update={"key": tmp_path / "other.key"}))
    for call in (store.hello, store.whoami, lambda: store.latest("stable")):
        with pytest.raises(RefusedError) as caught:
            call()
        assert fingerprint(line) in str(caught.value)
        assert f"cloud-server robots add DIR NAME --site SITE --key '{line}'" in str(caught.value)


@pytest.mark.parametrize(("offset_s", "way"), [(30, "ahead"), (-400, "behind")])
def test_a_clock_that_is_off_is_told_by_how_much(link, offset_s, way):
    store = HttpsStore(link, now=lambda: utc_now() + timedelta(seconds=offset_s))
    with pytest.raises(RefusedError, match=f"clock is {abs(offset_s)}|{abs(offset_s) - 1} s {way}"):
        store.hello()


def test_another_servers_certificate_is_told_apart_from_no_answer(link, tmp_path):
    server_dir = ServerDirectory(tmp_path)
    make_secrets(server_dir, ["localhost"], datetime.now(timezone.utc))
    store = HttpsStore(link.model_copy(update={"ca": server_dir.certificates / "ca.crt"}))
    with pytest.raises(ConnectionFailed, match="is not the server of this robot's kit"):
        store.hello()


def told_by_certificates(folder, name, made_at):
    """Return an address and what a robot says of the server there, with certificates like that."""
    server_dir = ServerDirectory(folder)
    make_secrets(server_dir, [name], made_at)
    make_key(folder / "robot.key")
    with HostileServer(server_dir) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        store = HttpsStore(ServerLink(address=address, ca=server.ca, key=folder / "robot.key"))
        with pytest.raises(ConnectionFailed) as failed:
            store.hello()
        server.shutdown()
    return address, str(failed.value)


def test_a_name_that_the_certificate_lacks_is_no_other_server(tmp_path):
    address, told = told_by_certificates(tmp_path, "fleet.example", utc_now())
    words = f"{address}: the server's certificate does not name 127.0.0.1; on the server add it to"
    assert told.startswith(words)
    assert "kit" not in told


@pytest.mark.parametrize("days", [400, -20_000])
def test_a_certificate_that_is_not_valid_by_this_clock_is_no_other_server(tmp_path, days):
    address, told = told_by_certificates(tmp_path, "127.0.0.1", utc_now() + timedelta(days=days))
    words = f"the certificate of {address} is not valid at the time of this robot's clock, 20"
    assert told.startswith(words)
    assert "kit" not in told


def test_a_report_is_taken_and_the_standing_comes_back(store, link, running_server):
    store.latest("stable", pack_report(RobotReport(battery=80.0, facts={"docked": True})))
    assert store.standing == Standing(protocol=PROTOCOL, signs=True, **MOVES_WHOLE)
    register = Register(running_server.server_dir.robots)
    register.suspend("r1", "its camera is dirty")
    store.latest("stable")
    assert (store.standing.state, store.standing.reason) == ("suspended", "its camera is dirty")
    register.approve("r1")
    store.whoami()
    assert store.standing == Standing(protocol=PROTOCOL, signs=True, **MOVES_WHOLE)


def test_a_report_that_the_server_does_not_take_is_left_out_for_a_while(store, caplog):
    for _ in range(3):
        assert store.latest("stable", "nonsense").manifest.version == 1
    assert caplog.text.count("does not take this robot's report: report: ") == 1


def test_the_servers_clock_is_known_when_it_is_another(store, link):
    store.whoami()
    assert store.server_ahead_s == 0
    ahead = HttpsStore(link, now=lambda: utc_now() - timedelta(seconds=200))
    ahead.whoami()
    assert 198 < ahead.server_ahead_s < 203
    refused = HttpsStore(link, now=lambda: utc_now() + timedelta(hours=5))
    with pytest.raises(RefusedError):
        refused.whoami()
    assert -18_003 < refused.server_ahead_s < -17_995


def test_one_connection_serves_many_requests(store):
    store.hello()
    (pool,) = store._client._transport._pool.connections
    for _ in range(3):
        store.latest("stable")
    assert store._client._transport._pool.connections == [pool]


# ------------------------------------------------------------------------------- settings


@base
def test_a_missing_key_names_the_command(hostile, link_to):
    link = link_to(hostile).model_copy(update={"key": Path("/nowhere/robot.key")})
    with pytest.raises(SettingsError, match="run `edge-agent enroll` first"):
        HttpsStore(link)


@base
@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_ca_that_is_none_is_named(hostile, link_to, tmp_path, content):
    if content is not None:
        (tmp_path / "ca.crt").write_text(content)
    link = link_to(hostile).model_copy(update={"ca": tmp_path / "ca.crt"})
    with pytest.raises(SettingsError, match=r"ca\.crt: not a CA certificate .*; copy ca\.crt"):
        HttpsStore(link)


@base
@pytest.mark.parametrize("address", ["xn--a:80", "a..b:443"])
def test_an_address_that_no_url_can_hold_is_named(hostile, link_to, address):
    link = link_to(hostile).model_copy(update={"address": address})
    with pytest.raises(FleetError, match=re.escape(address)):
        HttpsStore(link).hello()


# ------------------------------------------------------------------------------- bad servers


class HostileServer(socketserver.ThreadingTCPServer):
    """Speaks TLS with a trusted certificate, and answers with whatever `answer` writes."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self, server_dir):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key = server_dir.certificates / "server.crt", server_dir.secrets / "server.key"
        self.context.load_cert_chain(certificate, key)
        self.ca = server_dir.certificates / "ca.crt"
        self.answer = lambda stream: None
        self.requests = []  # their heads

    def handle_error(self, request, client_address):
        pass  # the robot has hung up: that is what it should do


class _Handler(socketserver.BaseRequestHandler):
    def handle(self):
        with self.server.context.wrap_socket(self.request, server_side=True) as stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += stream.recv(65536)
            self.server.requests.append(request.decode().lower())
            self.server.answer(stream)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    server_dir = ServerDirectory(tmp_path_factory.mktemp("hostile"))
    make_secrets(server_dir, ["127.0.0.1"], datetime.now(timezone.utc))
    with HostileServer(server_dir) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def link_to(tmp_path_factory):
    key = tmp_path_factory.mktemp("key") / "robot.key"
    make_key(key)

    def _link(server) -> ServerLink:
        address = f"127.0.0.1:{server.server_address[1]}"
        return ServerLink(address=address, ca=server.ca, key=key)

    return _link


def http(status=200, body=b"", *headers, length=None) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *headers]
    lines += [f"content-length: {len(body) if length is None else length}", "", ""]
    return "\r\n".join(lines).encode() + body


def drip(stream):
    """Send a byte now and then, for ever."""
    stream.sendall(http(length=1000))
    while True:
        stream.sendall(b" ")
        time.sleep(0.05)


def flood(stream):
    """Send without end."""
    stream.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    while True:
        stream.sendall(b"x" * 65536)


BOMB = gzip.compress(b" " * 20_000_000)
LENGTHY = json.dumps({"detail": "x" * 9999}).encode()
NAMELESS = json.dumps({"site": "hall"}).encode()
ANSWERS = {
    "nothing": lambda stream: None,
    "not HTTP": lambda stream: stream.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "endless header": lambda stream: stream.sendall(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 300_000),
    "redirect": lambda stream: stream.sendall(http(302, b"", "location: https://localhost/x")),
    "redirect with a body": lambda stream: stream.sendall(http(307, b"{}", "location: /x")),
    "server error": lambda stream: stream.sendall(http(500, b"x")),
    "not found": lambda stream: stream.sendall(http(404, b"{}")),
    "nothing new, unasked": lambda stream: stream.sendall(http(304)),
    "refused without reason": lambda stream: stream.sendall(http(403, b"<html>")),
    "refused at length": lambda stream: stream.sendall(http(403, LENGTHY)),
    "no JSON": lambda stream: stream.sendall(http(200, b"<html>")),
    "a list": lambda stream: stream.sendall(http(200, b"[1]")),
    "deep JSON": lambda stream: stream.sendall(http(200, b"[" * 200_000)),
    "not text": lambda stream: stream.sendall(http(200, b"\xff\xfe\x00")),
    "no name": lambda stream: stream.sendall(http(200, NAMELESS)),
    "cut off": lambda stream: stream.sendall(http(200, b'{"name":', length=1000)),
    "too long": lambda stream: stream.sendall(http(200, b" " * 1_000_001)),
    "a bomb": lambda stream: stream.sendall(http(200, BOMB, "content-encoding: gzip")),
    "damaged gzip": lambda stream: stream.sendall(http(200, b"xx", "content-encoding: gzip")),
    "flood": flood,
    "drip": drip,
    "silence": lambda stream: time.sleep(3),
}  # fmt: skip
ENDLESS = {"flood", "drip", "silence"}  # to be given up; the others end
CALLS = {
    "hello": lambda store, folder: store.hello(),
    "latest": lambda store, folder: store.latest("stable"),
    "fetch": lambda store, folder: store.fetch("0" * 64, 100_000, folder / "file"),
}


def require_parts_only(folder):
    """What a bad server sent never gets the file's name, and is no longer than the file."""
    for path in folder.iterdir():
        assert path.name == f".{'0' * 64}.part"
        assert 0 < path.stat().st_size <= 100_000


QUIET = {("nothing new, unasked", "latest"), ("not found", "latest")}  # None: nothing is offered


@base
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_bad_server_gets_nothing_but_our_own_errors(
    hostile, link_to, tmp_path, monkeypatch, answer, call
):
    if answer in ENDLESS:
        monkeypatch.setattr(answers, "SILENCE_S", 0.3)
        monkeypatch.setattr(answers, "PATIENCE_S", 0.3)
        monkeypatch.setattr(answers, "SLOWEST_BYTES_S", 1e7)
    hostile.answer = ANSWERS[answer]
    store = HttpsStore(link_to(hostile))
    if (answer, call) in QUIET:
        assert store.latest("stable") is None
    else:
        with pytest.raises(FleetError) as caught:
            CALLS[call](store, tmp_path)
        assert len(str(caught.value)) < 1500
    assert store.bytes_down < 3_000_000
    require_parts_only(tmp_path)
    store.close()


@base
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    status=st.sampled_from([200, 200, 201, 204, 206, 301, 304, 400, 401, 403, 404, 416, 418, 503]),
    body=st.binary(max_size=300) | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "site", "detail", "files"]), inner),
    ).map(lambda value: json.dumps(value).encode()),
)  # fmt: skip
def test_whatever_a_server_says_the_robot_keeps_its_composure(
    hostile, link_to, tmp_path, status, body
):
    hostile.answer = lambda stream: stream.sendall(http(status, body, "connection: close"))
    store = HttpsStore(link_to(hostile))
    for call in CALLS.values():
        try:
            result = call(store, tmp_path)
        except FleetError:
            continue
        assert result is None or {type(part) for part in result} == {str}
    require_parts_only(tmp_path)
    store.close()


@base
def test_bytes_that_are_not_what_was_asked_for_never_get_the_name(hostile, link_to, tmp_path):
    good = b"what was asked for"
    entry = entry_of(good)
    store = HttpsStore(link_to(hostile))
    hostile.answer = lambda stream: stream.sendall(http(200, good[::-1]))
    with pytest.raises(BundleError, match="changed or damaged on the way"):
        store.fetch(entry.sha256, entry.size_bytes, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
    hostile.answer = lambda stream: stream.sendall(http(200, good))
    assert store.fetch(entry.sha256, entry.size_bytes, tmp_path / "file") == len(good)
    assert sha256_of((tmp_path / "file").read_bytes()) == entry.sha256


CONTENT = bytes(range(256)) * 400
ENTRY = entry_of(CONTENT)
REST = 1024  # what lacks after a break at 99 %
PART_NAME = f".{ENTRY.sha256}.part"


def rest_of(content, begin):
    """Answer with the end of a file."""
    last = len(content) - 1
    headers = (f"content-range: bytes {begin}-{last}/{len(content)}",)
    return lambda stream: stream.sendall(http(206, content[begin:], *headers))


def fetch_by_another_process(hostile, link_to, into):
    store = HttpsStore(link_to(hostile))
    try:
        return store.fetch(ENTRY.sha256, ENTRY.size_bytes, into)
    finally:
        store.close()


@pytest.fixture
def broken_off(hostile, link_to, tmp_path):
    """Return where a file is to be of which 99 % have arrived."""
    begin = len(CONTENT) - REST
    hostile.answer = lambda stream: stream.sendall(
        http(200, CONTENT[:begin], "connection: close", length=len(CONTENT))
    )
    with pytest.raises(ConnectionFailed):
        fetch_by_another_process(hostile, link_to, tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {PART_NAME}
    hostile.requests.clear()
    return tmp_path / "file"


@base
def test_a_download_that_broke_at_99_percent_continues_there(hostile, link_to, broken_off):
    hostile.answer = rest_of(CONTENT, len(CONTENT) - REST)

    assert fetch_by_another_process(hostile, link_to, broken_off) == REST

    assert broken_off.read_bytes() == CONTENT
    assert [path.name for path in broken_off.parent.iterdir()] == ["file"]
    (request,) = hostile.requests
    assert f"range: bytes={len(CONTENT) - REST}-\r\n" in request
    assert f'if-range: "{ENTRY.sha256}"\r\n' in request


@base
def test_a_server_that_knows_no_parts_sends_the_whole_file(hostile, link_to, broken_off):
    hostile.answer = lambda stream: stream.sendall(http(200, CONTENT))

    assert fetch_by_another_process(hostile, link_to, broken_off) == len(CONTENT)
    assert broken_off.read_bytes() == CONTENT


@base
def test_pieces_that_do_not_fit_are_discarded_once_and_the_file_is_fetched_from_0(
    hostile, link_to, broken_off
):
    part = broken_off.with_name(PART_NAME)
    part.write_bytes(bytes(len(CONTENT) - REST))  # as a power cut may leave it
    answers = [rest_of(CONTENT, len(CONTENT) - REST), lambda s: s.sendall(http(200, CONTENT))]
    hostile.answer = lambda stream: answers.pop(0)(stream)

    assert fetch_by_another_process(hostile, link_to, broken_off) == REST + len(CONTENT)
    assert broken_off.read_bytes() == CONTENT
    assert "range:" not in hostile.requests[1]


@base
def test_a_file_that_is_wrong_also_from_0_is_given_up(hostile, link_to, broken_off):
    answers = [rest_of(CONTENT[::-1], len(CONTENT) - REST)]
    answers += [lambda stream: stream.sendall(http(200, CONTENT[::-1]))]
    hostile.answer = lambda stream: answers.pop(0)(stream)

    with pytest.raises(BundleError, match="changed or damaged on the way"):
        fetch_by_another_process(hostile, link_to, broken_off)
    assert list(broken_off.parent.iterdir()) == []


@base
@pytest.mark.parametrize("part", [CONTENT, CONTENT[::-1], CONTENT + b"x"])
def test_a_part_that_is_as_long_as_the_file_is_it_or_is_fetched_again(
    hostile, link_to, broken_off, part
):
    broken_off.with_name(PART_NAME).write_bytes(part)
    hostile.answer = lambda stream: stream.sendall(http(200, CONTENT))

    received = fetch_by_another_process(hostile, link_to, broken_off)

    assert received == (0 if part == CONTENT else len(CONTENT))
    assert broken_off.read_bytes() == CONTENT
    assert [path.name for path in broken_off.parent.iterdir()] == ["file"]


@base
@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (rest_of(CONTENT, 5), ConnectionFailed, "status 206 for a part of a file"),
        (lambda s: s.sendall(http(416)), ConnectionFailed, "status 416 for a part of a file"),
        (lambda s: s.sendall(http(404)), BundleError, "is no longer published"),
        (lambda s: s.sendall(http(200, CONTENT + b"x")), BundleError, "more than the"),
    ],
    ids=["another part", "no such part", "not published", "too long"],
)
def test_an_answer_that_does_not_continue_the_part_ends_it(
    hostile, link_to, broken_off, answer, error, words
):
    hostile.answer = answer

    with pytest.raises(error, match=words):
        fetch_by_another_process(hostile, link_to, broken_off)
    assert list(broken_off.parent.iterdir()) == []


@base
def test_a_break_in_the_rest_keeps_what_came_of_it(hostile, link_to, broken_off):
    begin = len(CONTENT) - REST
    head = f"content-range: bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}"
    hostile.answer = lambda stream: stream.sendall(
        http(206, CONTENT[begin : begin + 100], head, "connection: close", length=REST)
    )
    with pytest.raises(ConnectionFailed):
        fetch_by_another_process(hostile, link_to, broken_off)
    hostile.answer = rest_of(CONTENT, begin + 100)

    assert fetch_by_another_process(hostile, link_to, broken_off) == REST - 100


@base
def test_a_full_disk_is_given_its_room_back(tmp_path):
    download = Download(ENTRY, tmp_path / "file")

    def blocks():
        yield CONTENT[:1000]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        download.append(blocks())
    assert list(tmp_path.iterdir()) == []


@base
@pytest.mark.parametrize(
    ("status", "said"), [(429, "later"), (500, "status 500"), (503, "it cannot read its register")]
)
def test_a_server_in_trouble_is_waited_for(hostile, link_to, status, said):
    body = b"<html>" if said.startswith("status") else json.dumps({"detail": said}).encode()
    hostile.answer = lambda stream: stream.sendall(http(status, body, "connection: close"))
    store = HttpsStore(link_to(hostile))
    with pytest.raises(ConnectionFailed, match=f"cannot answer now: {said}"):
        store.hello()


@base
@pytest.mark.parametrize(
    "date", ["", "yesterday", "Thu, 99 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 -0000"]
)
def test_a_date_that_is_none_says_nothing_of_the_clock(hostile, link_to, date):
    body = json.dumps({"name": "r1", "site": "hall"}).encode()
    headers = ("connection: close", f"date: {date}", "x-robot-standing: [1]")
    hostile.answer = lambda stream: stream.sendall(http(200, body, *headers))
    store = HttpsStore(link_to(hostile))
    assert store.hello() == ("r1", "hall")
    assert store.server_ahead_s == 0
    assert store.standing == Standing()


@base
def test_a_redirect_is_not_followed(hostile, link_to):
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        port = elsewhere.getsockname()[1]
        answer = http(302, b"", f"location: https://127.0.0.1:{port}/")
        hostile.answer = lambda stream: stream.sendall(answer)
        with pytest.raises(ConnectionFailed, match="answers status 302; is it a fleetlearn server"):
            HttpsStore(link_to(hostile)).hello()
        elsewhere.settimeout(0.1)
        with pytest.raises(TimeoutError):
            elsewhere.accept()


@base
def test_nobody_there_is_a_failed_connection_that_names_the_address(link_to, hostile):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    store = HttpsStore(link_to(hostile).model_copy(update={"address": address}))
    with pytest.raises(ConnectionFailed, match=f"no answer from {address}"):
        store.hello()
