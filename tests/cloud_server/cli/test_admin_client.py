import socket
import threading
from contextlib import ExitStack

import pytest

from cloud_server.cli.admin_client import AdminClient
from cloud_server.state.certificates import make_secrets
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.learning_settings import TrainingSettings
from cloud_server.state.settings import NetworkSettings, load_settings, server_toml
from fleet_model.errors import ConnectionFailed, RefusedError, RoundError, SettingsError
from fleet_model.protocol.proof import utc_now


@pytest.fixture
def operator():
    """Return a maker of clients that are closed at the end: an open one delays the server's."""
    with ExitStack() as stack:

        def make(server_dir):
            client = AdminClient(server_dir)
            stack.callback(client._client.close)
            return client

        yield make


def test_the_operator_sees_the_running_server(operator, running_server):
    status = operator(running_server.server_dir).status()

    assert status["channels"] == {"stable": 1}
    assert status["robots"] == []


def test_a_run_is_started_and_followed(operator, running_server):
    client = operator(running_server.server_dir)

    run = client.start_run(2)

    assert run["rounds"] == 2
    assert client.run(run["id"])["id"] == run["id"]


def test_the_servers_reason_is_passed_on(operator, running_server):
    client = operator(running_server.server_dir)

    with pytest.raises(RoundError, match="the server answers 404: there is no run x"):
        client.run("x")
    with pytest.raises(RoundError, match=r"the server answers 422: .*rounds"):
        client.start_run(0)


def test_a_token_that_is_not_the_servers_is_refused(operator, running_server, tmp_path, server_dir):
    port = load_settings(running_server.server_dir.settings, {}).network.port
    toml = server_toml(NetworkSettings(port=port), TrainingSettings())
    server_dir.settings.write_text(toml)
    ca = (running_server.server_dir.certificates / "ca.crt").read_bytes()
    (server_dir.certificates / "ca.crt").write_bytes(ca)

    with pytest.raises(RefusedError, match="refuses the admin token of"):
        operator(server_dir).status()


def test_a_stranger_on_the_port_is_not_given_the_token(operator, running_server, server_dir):
    port = load_settings(running_server.server_dir.settings, {}).network.port
    toml = server_toml(NetworkSettings(port=port), TrainingSettings())
    server_dir.settings.write_text(toml)

    with pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"):
        operator(server_dir).status()


def test_a_server_that_does_not_run_is_told_with_the_command(operator, server_dir):
    with pytest.raises(
        ConnectionFailed, match=r"is it running\? Start it with `cloud-server start"
    ):
        operator(server_dir).status()


@pytest.mark.parametrize("name", ["admin_token", "certificates"])
def test_a_directory_that_lacks_a_file_is_a_settings_error(operator, server_dir, name):
    path = {"admin_token": server_dir.admin_token}.get(name, server_dir.certificates / "ca.crt")
    path.unlink()

    with pytest.raises(SettingsError, match="cannot be read"):
        operator(server_dir)


def test_a_proxy_of_the_environment_is_not_asked(operator, running_server, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

    assert operator(running_server.server_dir).status()["channels"]


@pytest.mark.parametrize(
    ("listened", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::1", "::1")]
)
def test_a_server_on_all_interfaces_is_reached_over_loopback(operator, tmp_path, listened, reached):
    """The other side here only counts: the TLS handshake need not go on."""
    family = socket.AF_INET6 if ":" in reached else socket.AF_INET
    try:
        listener = socket.create_server((reached, 0), family=family)
    except OSError:
        pytest.skip("no IPv6 here")
    server_dir = ServerDirectory(tmp_path)
    make_secrets(server_dir, ("localhost",), utc_now())
    port = listener.getsockname()[1]
    network = NetworkSettings(host=listened, port=port)
    server_dir.settings.write_text(server_toml(network, TrainingSettings()))
    accepted = []
    thread = threading.Thread(target=lambda: accepted.append(listener.accept()[0].close()))
    thread.start()

    with pytest.raises(ConnectionFailed):
        operator(server_dir).status()
    thread.join(10)
    listener.close()
    assert accepted == [None]


def test_an_answer_of_something_else_is_an_error_and_no_traceback(
    operator, running_server, monkeypatch
):
    monkeypatch.setattr("cloud_server.cli.admin_client.ADMIN", "/health/nothing")

    with pytest.raises(RoundError, match="the server answers 404: Not Found"):
        operator(running_server.server_dir).status()
