"""Run the agent as a service: until SIGTERM or Ctrl-C, and then end in time."""

import faulthandler
import fcntl
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from edge_agent.agent.agent import Agent
from edge_agent.examples.source import require_source
from edge_agent.robot.settings import AgentSettings, TrainSettings
from edge_agent.training.trainer import TRAINERS
from fleet_model.command_line.systemd import notify, watchdog_s
from fleet_model.durable import remove_asides
from fleet_model.errors import SettingsError

GRACE_S = 1.2  # from SIGTERM to the end, whatever the network does
HANGS_S = 20.0  # after that not even the main thread has come to its end
ALIVE_S = 30.0  # between two signs of life in a file
LOCK = ".run.lock"  # in the state directory
log = logging.getLogger(__name__)


def serve(settings: AgentSettings, alive: Path | None = None) -> None:
    """Run an agent until SIGINT or SIGTERM.

    Args:
        settings: its own.
        alive: while the loop turns, this file's time is less than `ALIVE_S` ago: for a probe.

    Raises:
        SettingsError: there is no such trainer, another agent has this state directory, or as
            `Agent` and `Agent.run`.
    """
    _require_trainer(settings.training)
    require_source(settings.examples.source)
    agent = Agent(settings)
    with _held(settings.state):
        with suppress(OSError):  # of a disk that cannot be written others tell
            remove_asides(settings.state)  # of models Installer.begin removes them
        _run_until_signal(agent, alive)


def _require_trainer(training: TrainSettings) -> None:
    """Find a typing error at the start, not in the first round; plug-ins are not imported here."""
    name = training.trainer
    if training.enabled and name not in TRAINERS and ":" not in name:
        known = ", ".join(sorted(TRAINERS))
        raise SettingsError(
            f"training.trainer: no trainer {name!r}; choose {known} or module:Class"
        )


@contextmanager
def _held(state: Path) -> Iterator[None]:
    """Hold the state directory: two agents on one would overwrite each other.

    The lock ends with this process, however it ends: child processes do not inherit it.
    """
    with ExitStack() as held:
        try:
            state.mkdir(parents=True, exist_ok=True)
            stream = held.enter_context((state / LOCK).open("a"))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"another `edge-agent run` works on this directory ({state}); stop it first"
            ) from None
        except OSError as error:  # a full disk is no reason to stop
            log.warning("%s: %s; a second agent would not be noticed", state / LOCK, error.strerror)
        yield


def _run_until_signal(agent: Agent, alive: Path | None = None) -> None:
    """Run the agent until SIGINT or SIGTERM; raises as `Agent.run` does.

    The agent has a thread of its own: Python handles a signal only between two steps of the main
    thread, and looking up a name or connecting may take half a minute where the network is gone.
    """
    ended: Future[None] = Future()
    with _Wake() as wake:
        wake.at(signal.SIGINT, signal.SIGTERM)
        ended.add_done_callback(lambda _: wake.call())
        threading.Thread(target=_run_into, args=(ended, agent), name="agent", daemon=True).start()
        _wait_and_feed(wake, agent, alive)
    with _ending():
        agent.stop()
        notify("STOPPING=1")
        if wait([ended], GRACE_S).done:
            ended.result()
        else:
            agent.abandon()
            leave()


class _Wake:
    """What the main thread waits for: a signal, or a call of another thread.

    The signal writes to a socket. One that comes in the moment before a thread waits, or that the
    system gives to another thread, does not end a wait for a lock.
    """

    def __init__(self) -> None:
        self._waits, self._calls = socket.socketpair()
        self._calls.setblocking(False)

    def __enter__(self) -> "_Wake":
        self._before = signal.set_wakeup_fd(self._calls.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        self._waits.close()
        self._calls.close()

    def at(self, *numbers: int) -> None:
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def call(self) -> None:
        with suppress(OSError):  # full: it has been called; closed: nobody waits any more
            self._calls.send(b"\0")

    def wait(self, timeout_s: float | None) -> bool:
        """Return whether it was called within this time."""
        self._waits.settimeout(timeout_s)
        try:
            return bool(self._waits.recv(1))
        except TimeoutError:
            return False


def leave() -> NoReturn:
    """End the process at once: everything on disk is whole at any moment.

    Python's own end may wait for what a hanging thread holds, and ends threads inside of libraries.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


@contextmanager
def _ending() -> Iterator[None]:
    """Let a thread that needs nothing of Python end a process that hangs here, and say where."""
    if sys.stderr is sys.__stderr__:  # else nobody could read it
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _wait_and_feed(wake: _Wake, agent: Agent, alive: Path | None) -> None:
    """Wait for the end; feed who watches while the loop turns, and starve them when not."""
    is_stalled, due_s = False, watchdog_s()
    if alive is not None:
        due_s = ALIVE_S if due_s is None else min(due_s, ALIVE_S)
        _touch(alive)
    while not wake.wait(due_s):
        was_stalled, is_stalled = is_stalled, not agent.pulse.is_alive()
        if not is_stalled:
            notify("WATCHDOG=1")
            if alive is not None:
                _touch(alive)
        elif not was_stalled:
            log.critical("the agent's loop hangs; a watchdog or a probe ends this process")


def _touch(alive: Path) -> None:
    try:
        alive.touch()
    except OSError as error:  # a probe may end this process; a full disk is no reason to
        log.warning("%s: %s; no sign of life", alive, error.strerror)


def _run_into(ended: "Future[None]", agent: Agent) -> None:
    try:
        agent.run()
    except BaseException as error:  # noqa: BLE001  (raised again in the main thread)
        ended.set_exception(error)
    else:
        ended.set_result(None)
