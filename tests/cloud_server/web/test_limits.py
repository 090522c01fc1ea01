import logging
import resource
import signal
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc

import pytest
from service_manager import ServiceManager

from cloud_server.state.settings import LimitSettings
from cloud_server.web.limits import FILES_BESIDE_CONNECTIONS, keep_memory_flat, raise_file_limit

from .conftest import PATIENCE_S, request, rest


@pytest.mark.parametrize(
    "ciphers", ["AES256-SHA:AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA"]
)
def test_old_ciphers_are_not_spoken(open_port, ciphers):
    port = open_port()
    port.context.maximum_version = ssl.TLSVersion.TLSv1_2
    port.context.set_ciphers(ciphers)

    with pytest.raises(ssl.SSLError):
        port.tls()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_everybody_speaks_today_is_spoken(open_port, version):
    port = open_port()
    port.context.minimum_version = port.context.maximum_version = version

    assert port.tls().version() == {771: "TLSv1.2", 772: "TLSv1.3"}[version]


def test_tls_1_1_is_not_spoken(open_port):
    port = open_port()
    port.context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        port.context.minimum_version = port.context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises(ssl.SSLError):
        port.tls()


def test_plain_http_is_not_spoken(open_port):
    plain = open_port().tcp()
    plain.sendall(request("/fleetlearn/v1/robot/whoami"))

    assert b"200" not in rest(plain)


def test_refused_requests_leave_no_task_and_no_connection(open_port):
    port = open_port()

    def ask():
        for _ in range(10):
            assert port.status("/docs") == 401

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.monotonic() + PATIENCE_S
    while port.server.server_state.connections or port.server.server_state.tasks:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_idle_connection_costs_little_memory(open_port):
    port = open_port()
    first = port.tls()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        connections = [port.tls() for _ in range(20)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (after - before) / len(connections) < 120_000
    first.close()


def test_the_files_that_may_be_open_suffice_for_the_connections():
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096));"
        "from cloud_server.web.limits import raise_file_limit;"
        "print(raise_file_limit(1000), raise_file_limit(9000),"
        " resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == f"{1000 + FILES_BESIDE_CONNECTIONS} 4096 (4096, 4096)"
    assert "max_connections = 9000 needs 9512; raise `ulimit -n`" in done.stderr


def test_a_limit_that_is_high_enough_is_left_alone():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    raise_file_limit(8)

    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == before[1]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(before[0], 8)


def test_the_c_library_takes_the_setting_for_flat_memory(caplog):
    caplog.set_level(logging.DEBUG)

    keep_memory_flat()

    assert caplog.text == ""


def test_the_defaults_let_a_site_of_two_hundred_robots_through_one_address():
    limits = LimitSettings()

    assert limits.max_connections_per_address >= 200
    assert limits.requests_per_s >= 200 / 3  # one poll in 3 s, see edge_agent


def test_systemd_is_told_of_the_start_the_end_and_that_the_loop_turns(
    open_port, tmp_path, monkeypatch
):
    entered, leave = threading.Event(), threading.Event()

    def hang():
        entered.set()
        leave.wait(PATIENCE_S)

    with ServiceManager(str(tmp_path / "notify"), watchdog_s=0.1) as manager:
        for name, value in manager.environment.items():
            monkeypatch.setenv(name, value)
        port = open_port()
        assert manager.until("WATCHDOG=1") == ["READY=1", "WATCHDOG=1"]
        manager.until("WATCHDOG=1")
        port.server.servers[0].get_loop().call_soon_threadsafe(hang)
        assert entered.wait(PATIENCE_S)
        starves = manager.starves()
        leave.set()
        assert starves
        manager.until("WATCHDOG=1")
        monkeypatch.setattr("cloud_server.web.limits._leave", lambda: None)
        port.server.handle_exit(signal.SIGTERM, None)
        manager.until("STOPPING=1")
