"""One agent a state directory, whatever became of the one before."""

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from service_manager import ServiceManager

from edge_agent.agent import pulse, service
from edge_agent.agent.agent import Agent
from edge_agent.cli.enroll import enroll
from edge_agent.link.server_link import HttpsStore
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink, load_settings
from fleet_model.errors import ConnectionFailed, SettingsError

pytestmark = pytest.mark.base

NO_PROCESS = 2**22 + 1  # Linux gives none that number

# Holds the directory, and has a child process that outlives it.
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from edge_agent.agent import service

class Agent:
    def __init__(self, settings):
        pass
    def run(self):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid, flush=True)
        time.sleep(600)

from edge_agent.robot.settings import AgentSettings, ServerLink
service.Agent = Agent
link = ServerLink(address="localhost:1")
service.serve(AgentSettings(server=link, state=Path(sys.argv[1])))
"""

# Gets SIGTERM when its agent runs, in a thread that is not the main one; what is left of it then
# is in the arguments.
ENDING = """
import os, signal, sys, threading, time
from pathlib import Path
from edge_agent.agent import service

class Agent:
    def __init__(self, settings):
        self.ends = threading.Event()
    def run(self):
        threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
        time.sleep(0.2)  # the main thread waits, and this one gets the signal
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        self.ends.wait()
    def stop(self):
        self.ends.set()
        if sys.argv[2] == "hangs":
            time.sleep(600)

from edge_agent.robot.settings import AgentSettings, ServerLink
service.Agent, service.HANGS_S = Agent, 1.0
link = ServerLink(address="localhost:1")
service.serve(AgentSettings(server=link, state=Path(sys.argv[1])))
service.leave()
"""


class Ended:
    """An agent that has nothing to do."""

    runs = 0

    def __init__(self, settings):
        pass

    def run(self):
        Ended.runs += 1

    def stop(self):
        pass


@pytest.fixture
def signals():
    """Put back what `serve` changes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def serve(tmp_path, monkeypatch, signals):
    """Serve with an agent that ends at once, on the state directory of the test."""
    monkeypatch.setattr(service, "Agent", Ended)
    monkeypatch.setattr(Ended, "runs", 0)
    link = ServerLink(address="localhost:1")
    return lambda: service.serve(AgentSettings(server=link, state=tmp_path / "state"))


def test_a_second_agent_is_refused_until_the_first_is_killed(serve, tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            child = int(holder.stdout.readline())
            with pytest.raises(SettingsError, match="another `edge-agent run` works on this dir"):
                serve()
            assert Ended.runs == 0
        finally:
            holder.kill()
    try:
        serve()
    finally:
        os.kill(child, signal.SIGKILL)
    serve()
    assert Ended.runs == 2


def test_what_earlier_agents_were_killed_at_is_removed(serve, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    kept, left = state / "status.json", state / f".status.json.{NO_PROCESS}.new"
    kept.touch()
    left.touch()
    serve()
    assert set(state.iterdir()) == {kept, state / service.LOCK}


def test_a_lock_that_cannot_be_written_is_no_reason_to_stop(serve, tmp_path, caplog):
    (tmp_path / "state" / service.LOCK).mkdir(parents=True)
    serve()
    assert Ended.runs == 1
    assert "a second agent would not be noticed" in caplog.text


@pytest.mark.parametrize(
    ("what", "code", "told"), [("ends", 0, ""), ("hangs", 1, "in stop")], ids=["ends", "hangs"]
)
def test_the_process_ends_whatever_else_goes_on_in_it(tmp_path, what, code, told):
    done = subprocess.run(
        [sys.executable, "-c", ENDING, tmp_path / "state", what],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, told in done.stderr) == (code, True)


# ------------------------------------------------------------------------------- beside systemd


@pytest.fixture
def enrolled(server_dir, tmp_path):
    """Return the settings of a robot that only follows models; its server is away."""
    enroll(server_dir.kit, tmp_path / "r1", ExampleSettings(), train=False)
    return load_settings(tmp_path / "r1" / "agent.toml", {})


def test_the_main_thread_feeds_the_watchdog_while_the_loop_waits_and_not_when_it_hangs(
    enrolled, tmp_path, monkeypatch, signals, caplog
):
    later_s, hangs, hung, leave = [0.0], threading.Event(), threading.Event(), threading.Event()
    seen = []

    def hello(_):
        if hangs.is_set():
            hung.set()
            leave.wait(240)
        raise ConnectionFailed("away")

    def systemd():  # the main thread is the service's
        try:
            seen.append(manager.until("READY=1"))
            seen.append(manager.until("STATUS=offline: away"))
            manager.until("WATCHDOG=1")
            hangs.set()
            assert hung.wait(240)
            manager.until("WATCHDOG=1")  # a step may take a while
            later_s[0] = 10 * pulse.STALL_S
            end = time.monotonic() + 240
            while "loop hangs" not in caplog.text and time.monotonic() < end:
                time.sleep(0.01)
            seen.append(manager.starves())
        finally:
            leave.set()
            os.kill(os.getpid(), signal.SIGTERM)

    with ServiceManager(str(tmp_path / "notify"), watchdog_s=0.02) as manager:
        for name, value in manager.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(HttpsStore, "hello", hello)
        agent = Agent(enrolled)
        agent.pulse = pulse.Pulse(lambda: 0, lambda: time.monotonic() + later_s[0])
        driver = threading.Thread(target=systemd, daemon=True)
        driver.start()
        service._run_until_signal(agent)
        driver.join()
        seen.append(manager.until("STATUS=stopped"))

    assert seen[0][0] == "STATUS=starting"
    assert "STATUS=offline: away" not in seen[0]  # the network is not waited for
    assert seen[1][-1] == "STATUS=offline: away"
    assert seen[2] is True
    assert "STOPPING=1" in seen[3]


def test_a_loop_that_hangs_just_after_its_last_sign_of_life_is_told_once(monkeypatch, caplog):
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    answers = iter([True, False, False])

    def is_alive():
        if (answer := next(answers, None)) is None:
            wake.call()
        return bool(answer)

    agent = SimpleNamespace(pulse=SimpleNamespace(is_alive=is_alive))
    with service._Wake() as wake:
        service._wait_and_feed(wake, agent, None)
    assert caplog.text.count("loop hangs") == 1


def test_a_file_tells_that_the_loop_turns_and_no_more_when_it_hangs(
    enrolled, tmp_path, monkeypatch, signals, caplog
):
    alive, now_s, left = tmp_path / "alive", [0.0], []

    def until(done):
        end = time.monotonic() + 240
        while not done() and time.monotonic() < end:
            time.sleep(0.01)
        return done()

    def probe():  # the main thread is the service's
        try:
            left.append(until(alive.exists))
            alive.unlink()
            left.append(until(alive.exists))  # again, while the server is away
            now_s[0] = 10 * pulse.STALL_S
            left.append(until(lambda: "loop hangs" in caplog.text))
            alive.unlink()
            time.sleep(0.2)
            left.append(alive.exists())
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def hello(_):
        raise ConnectionFailed("away")

    monkeypatch.setattr(service, "ALIVE_S", 0.02)
    monkeypatch.setattr(HttpsStore, "hello", hello)
    agent = Agent(enrolled)
    agent.pulse = Hanging(now_s)
    driver = threading.Thread(target=probe, daemon=True)
    driver.start()
    service._run_until_signal(agent, alive)
    driver.join()
    assert left == [True, True, True, False]


class Hanging(pulse.Pulse):
    """A loop that is back in time by its own word, until the clock goes on."""

    def __init__(self, now_s):
        super().__init__(lambda: 0, lambda: now_s[0])

    def expect(self, within_s=0.0):
        pass


def test_a_sign_of_life_that_cannot_be_given_is_told(tmp_path, caplog):
    service._touch(tmp_path / "none" / "alive")
    assert "no sign of life" in caplog.text
