"""The SDK's own client talks to `cloud-server mcp`, a real process, about a running server."""

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError

import httpx
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from cloud_server.cli.assistants import service
from cloud_server.cli.assistants.service import address_of
from cloud_server.initialize import renew_certificate
from cloud_server.robots.register import Register
from fleet_model.errors import SettingsError

NAME = "fleet.example.com"
CALL = {
    "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_robots"}
}  # fmt: skip
ACCEPT = {"accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def port(fleet, tmp_path_factory):
    """The process's port; its certificate and its settings name the server as robots know it."""
    toml = fleet.settings.read_text()
    named, count = re.subn(r"(?m)^names = .*$", f'names = ["{NAME}", "127.0.0.1"]', toml)
    assert count == 1
    fleet.settings.write_text(named)
    renew_certificate(fleet)
    log = tmp_path_factory.mktemp("service") / "log"
    words = [sys.executable, "-m", "cloud_server.cli", "mcp", str(fleet.root)]
    environment = {**os.environ, "FLEETLEARN_LIMITS__REFUSALS_PER_S": "1000"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*words, "--http", "127.0.0.1:0"], stdout=stream, stderr=stream, env=environment
        )
    try:
        end = time.monotonic() + 240
        while not (
            found := re.search(
                r"only read the fleet at https://127\.0\.0\.1:(\d+)/mcp", log.read_text()
            )
        ):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield int(found[1])
        process.terminate()
        assert process.wait(240) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
        assert fleet.admin_token.read_text().strip() not in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def named(monkeypatch):
    """Let this process find the server by its name, as a name server would."""
    ask = socket.getaddrinfo

    def answered(host, *more, **options):
        here = host in (NAME, NAME.encode())
        return ask("127.0.0.1" if here else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answered)


@pytest.fixture
def robots(fleet, port, said):
    """Return what asks for robots at a host with a token, by the SDK's own client."""
    trusted = ssl.create_default_context(cafile=str(fleet.certificates / "ca.crt"))

    async def ask(host, headers):
        async with httpx2.AsyncClient(verify=trusted, headers=headers) as http:
            transport = streamable_http_client(f"https://{host}:{port}/mcp", http_client=http)
            async with Client(transport) as client:
                assert len((await client.list_tools()).tools) == 10
                return said(await client.call_tool("list_robots", {}))

    def run(host, token):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return asyncio.run(asyncio.wait_for(ask(host, headers), 240))

    return run


def words_of(error):
    """Return the message of the SDK's error, which lies in groups of groups."""
    while hasattr(error, "exceptions"):
        (error,) = error.exceptions
    assert isinstance(error, MCPError)
    return error.error.message


def test_over_stdio_a_client_reads_all_of_a_fleet_and_can_change_nothing(
    fleet, session, over_stdio, said
):
    async def use(client):
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == {
            "fleet_status", "list_robots", "get_robot", "list_runs", "get_run", "get_round",
            "compare_runs", "list_models", "get_model", "compare_models",
        }  # fmt: skip
        assert all(tool.annotations.read_only_hint for tool in tools)
        assert not any(tool.annotations.destructive_hint for tool in tools)
        asked = {
            "fleet_status": {},
            "list_robots": {},
            "get_robot": {"name": "r1"},
            "list_runs": {},
            "get_run": {"run": "20260101-120000"},
            "get_round": {"run": "20260101-120000", "round": 2, "limit": 1},
            "list_models": {},
            "get_model": {"version": 1},
            "compare_models": {"first": 1, "second": 2},
        }
        told = {}
        for name, arguments in asked.items():
            failed, told[name] = said(await client.call_tool(name, arguments))
            assert not failed, (name, told[name])
        wrong = {
            "misspelt": ("list_robots", {"stat": "approved"}),
            "no number": ("list_robots", {"limit": True}),
            "too many": ("list_robots", {"limit": 1000}),
            "none of this name": ("get_robot", {"name": "r77"}),
            "missing": ("get_robot", {}),
            "no tool": ("approve_robots", {"name": "r2"}),
            "withheld": ("approve_robot", {"name": "r2"}),
            "no site": ("list_robots", {"site": "hal"}),
            "no verdict": ("get_round", {"run": "20260101-120000", "round": 2, "verdict": "ok"}),
            "no run": ("get_run", {"run": "20010101-000000"}),
            "no round": ("get_round", {"run": "20260101-120000", "round": 3}),
            "no version": ("get_model", {"version": 99}),
        }
        for what, (name, arguments) in wrong.items():
            failed, told[what] = said(await client.call_tool(name, arguments))
            assert failed, (what, told[what])
            assert "\n" not in told[what]
        return told

    told = session(over_stdio(fleet.root), use)

    assert [robot["name"] for robot in told["list_robots"]["robots"]] == ["r1", "r2"]
    assert told["list_robots"]["robots"][1]["state"] == "pending"
    assert told["list_robots"]["left_out"] == 0
    assert told["fleet_status"]["robots"]["by_state"] == {"approved": 1, "pending": 1}
    newest, before = told["get_robot"]["rounds"]
    assert (newest["round"], before["round"]) == (2, 1)
    assert newest["examples_left_out"] == "12 without a label"
    assert newest["measures"] == {"accuracy_after": 0.75}
    assert told["list_runs"]["runs"][0]["rounds_closed"] == 2
    assert any("of another model" in line for line in told["get_run"]["words"])
    part = told["get_round"]
    assert [robot["name"] for robot in part["robots"]] == ["r1"]
    assert (part["total"], part["left_out"], part["next_offset"]) == (2, 1, 1)
    assert told["list_models"]["channels"] == {"stable": 1}
    assert told["list_models"]["withheld"][0]["reasons"][0]["words"] == "it fell"
    assert told["get_model"]["after"] == {"accuracy": 0.9}
    accuracy = told["compare_models"]["measures"]["accuracy"]
    assert round(accuracy["difference"], 6) == -0.7
    keys = [robot["key"].split()[1] for robot in json.loads(fleet.robots.read_text())["robots"]]
    everything = json.dumps(told)
    assert not [key for key in keys if key in everything]
    assert fleet.admin_token.read_text().strip() not in everything

    assert told["misspelt"] == (
        'list_robots: stat: unknown argument "stat"; did you mean "state"?; it takes: offset, '
        "limit, state, site, online"
    )
    assert told["no number"].startswith("list_robots: limit: expected a whole number")
    assert "at most 200" in told["too many"]
    assert (
        "robot 'r77' is not in the register; `cloud-server robots list" in told["none of this name"]
    )
    assert told["missing"].startswith("get_robot: name: the argument is missing")
    assert told["no tool"].startswith("there is no tool approve_robots; there are: fleet_status, ")
    assert told["withheld"].startswith(
        "approve_robot changes the fleet, and this server only reads"
    )
    assert f"`cloud-server mcp {fleet.root} --allow-writes`" in told["withheld"]
    assert told["no site"] == "there is no robot of site 'hal'; sites with robots: hall"
    assert 'verdict: expected "accepted" or' in told["no verdict"]
    assert "there is no run 20010101-000000" in told["no run"]
    assert "has closed 2 rounds" in told["no round"]
    assert "there is no version 99" in told["no version"]


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("host", ["127.0.0.1", NAME])
def test_with_the_token_a_client_lists_the_robots_by_any_name_of_the_server(robots, fleet, host):
    failed, told = robots(host, fleet.admin_token.read_text().strip())
    assert not failed
    assert [robot["name"] for robot in told["robots"]] == ["r1", "r2"]


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize(
    ("token", "why"), [(None, "no token: send"), ("guessed", "the token is another one: send")]
)
def test_without_it_the_client_is_told_what_to_send(robots, token, why):
    with pytest.raises(Exception, match=r".") as caught:
        robots(NAME, token)
    assert words_of(caught.value).startswith(f"{why} `Authorization: Bearer TOKEN`")


def test_strangers_are_refused_each_with_its_own_status(fleet, port):
    token = {"authorization": f"Bearer {fleet.admin_token.read_text().strip()}"}
    url = f"https://127.0.0.1:{port}/mcp"
    with httpx.Client(
        verify=ssl.create_default_context(cafile=str(fleet.certificates / "ca.crt"))
    ) as client:

        def post(more, content=None):
            headers = ACCEPT | token | more
            answer = client.post(
                url,
                headers=headers,
                **({"json": CALL} if content is None else {"content": content}),
            )
            return answer.status_code, answer.text

        status, text = post({"host": "evil.example"})
        assert (status, "'evil.example' is no name of this server" in text) == (421, True)
        assert "network.names in server.toml" in text
        assert post({"host": f"{NAME.upper()}.:443"})[0] == 200
        assert post({"origin": "https://evil.example"})[0] == 403
        assert post({"origin": "null"})[0] == 403
        assert post({"origin": f"http://{NAME}"})[0] == 403
        assert post({"origin": f"https://{NAME}:{port}"})[0] == 200
        longer = client.post(url, headers=ACCEPT | token, content=b" " * 70_000)
        assert (longer.status_code, longer.headers["connection"]) == (413, "close")
        unknown = client.post(url, headers=ACCEPT, json=CALL)
        assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, "Bearer")
        assert client.get(f"https://127.0.0.1:{port}/docs", headers=token).status_code == 404
        assert client.get(f"https://127.0.0.1:{port}/docs").status_code == 401


def test_with_the_flag_an_assistant_changes_what_the_commands_change(
    fleet, session, over_stdio, said
):
    async def use(client):
        told = [said(await client.call_tool("approve_robot", {"name": "r2"}))]
        told.append(said(await client.call_tool("start_run", {"rounds": 1, "round": 2})))
        told.append(said(await client.call_tool("start_run", {"rounds": 1})))
        run = told[-1][1]["id"]
        while said(await client.call_tool("get_run", {"run": run}))[1]["state"] != "failed":
            await asyncio.sleep(0.05)
        told.append(said(await client.call_tool("stop_run", {})))
        return told, (await client.list_tools()).tools

    told, tools = session(over_stdio(fleet.root, "--allow-writes"), use)
    approved, misspelt, started, stopped = told
    assert approved[1]["words"][0].startswith("approved r2 at site hall: SHA256:")
    assert {one.state for one in Register(fleet.robots).robots()} == {"approved"}
    assert misspelt[0]
    assert 'unknown argument "round"' in misspelt[1]
    assert (started[0], started[1]["rounds"]) == (False, 1)
    assert stopped[0]
    assert re.match(r"run \S+ has ended already", stopped[1])
    may = {one.name: one.annotations for one in tools if not one.annotations.read_only_hint}
    assert {name for name, one in may.items() if one.destructive_hint} == {
        "stop_run", "publish_model", "promote_model", "roll_back_model"
    }  # fmt: skip
    assert {name for name, one in may.items() if not one.destructive_hint} == {
        "approve_robot", "start_run"
    }  # fmt: skip


def test_ctrl_c_ends_it_while_an_assistant_holds_stdin(fleet):
    words = [sys.executable, "-m", "cloud_server.cli", "mcp", str(fleet.root)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        hello = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        process.stdin.write(json.dumps(hello).encode() + b"\n")
        process.stdin.flush()
        assert b'"id":1' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(240) == 130
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("127.0.0.1:8444", ("127.0.0.1", 8444)),
        ("[::1]:0", ("::1", 0)),
        ("fleet.example.com:65535", ("fleet.example.com", 65535)),
    ],
)
def test_an_address_is_host_and_port(typed, wanted):
    assert address_of(typed) == wanted


@pytest.mark.parametrize("typed", ["8444", ":8444", "::1:8444", "host:", "host:65536", "host:-1"])
def test_what_is_no_address_is_told_before_anything_is_served(cloud_server, server_dir, typed):
    code, out, err = cloud_server("mcp", server_dir.root, "--http", typed)
    assert (code, out) == (2, "")
    assert f"--http {typed}: expected HOST:PORT, as 127.0.0.1:8444 or [::1]:8444" in err


def test_a_port_that_is_taken_is_told_with_the_option(cloud_server, server_dir):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = cloud_server("mcp", server_dir.root, "--http", address)
    assert code == 2
    assert err.endswith("; choose another --http HOST:PORT")


@pytest.mark.parametrize(
    ("found", "words"),
    [(None, "mcp is not installed: pip"), ("1.30.0", "mcp 1.30.0 is installed, expected 2: pip")],
)
def test_without_the_sdk_or_with_an_older_one_the_extra_is_named(monkeypatch, found, words):
    def version(_):
        if found is None:
            raise PackageNotFoundError
        return found

    monkeypatch.setattr(service, "version", version)
    with pytest.raises(SettingsError, match=rf"{re.escape(words)} install 'fleetlearn\[mcp\]'"):
        service.require_sdk()
