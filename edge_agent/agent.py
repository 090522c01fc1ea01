"""The loop behind the service: say hello, follow published models, answer train messages."""

import logging
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

from edge_agent.deploy import Models
from edge_agent.memory import MemoryWatch
from edge_agent.server_link import HttpsStore
from edge_agent.settings import AgentSettings
from edge_agent.spool.watch import SpoolWatch
from edge_agent.status import Status, write_status
from fleet_model.errors import (
    BundleError,
    FleetError,
    RefusedError,
    SettingsError,
    StorageError,
)

if TYPE_CHECKING:
    from fleet_model.bundle import Manifest
    from fleet_model.flower_compat import FleetConnection
    from fleet_model.types import Update
    from fleet_model.wire import TrainRequest  # loads Flower: only robots that train need it

MAX_BACKOFF_S = 60.0
GRACE_S = 1.2  # from SIGTERM to the end, whatever the network does
log = logging.getLogger(__name__)


class Agent:
    """One robot's agent; `run` returns after `stop`."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._store = HttpsStore(settings.server)
        self._models = Models(settings.state / "models")
        self._active: Manifest | None = None
        self._status = Status(trainer=settings.training.trainer)
        self._stop, self._saving = threading.Event(), threading.Lock()
        self._memory = MemoryWatch()
        self._training: Any = None  # a TrainingProcess
        self._client: Any = None  # a FleetClient
        self._spool: SpoolWatch | None = None
        self._backoff, self._install_backoff = Backoff(), Backoff()
        self._look_at = 0.0  # monotonic: no look at the newest model before

    def stop(self) -> None:
        """Ask `run` to return soon; a training that is under way is cancelled."""
        self._stop.set()
        if self._training is not None:
            self._training.cancel()

    def run(self) -> None:
        """Serve until `stop`; the network may come and go.

        Raises:
            RefusedError: the server does not know this robot.
            SettingsError: it should train, and what that needs is not installed.
        """
        reason = ""
        self._save("starting")
        try:
            self._look_at_models()
            if self._settings.training.enabled and self._settings.examples.wanted:
                self._open_training()
            self._retry(self._hello)
            while not self._stop.is_set():
                self._retry(self._step)
                self._stop.wait(self._pause_s())
        except FleetError as error:
            reason = str(error)
            raise
        finally:
            self._close(reason)

    def abandon(self) -> None:
        """Leave a `run` that hangs where it is: everything on disk is whole at any moment."""
        log.warning("a call to %s hangs; leaving it", self._settings.server.address)
        if self._spool is not None:
            self._spool.close()
        self._save("stopped")

    def _look_at_models(self) -> None:
        """Find out what is active; damaged files or a new precision are installed again."""
        try:
            self._activate(self._models.active(self._settings.engine.precision))
        except (BundleError, StorageError) as error:
            log.warning("the active model is not whole: %s", error)

    def _activate(self, manifest: "Manifest | None") -> None:
        self._active = manifest
        version = None if manifest is None else manifest.version
        self._status.active_version = self._store.active_version = version

    def _hello(self) -> None:
        self._status.name, self._status.site = self._store.hello()
        log.info("the server knows this robot as %s, site %s", self._status.name, self._status.site)
        self._save("idle")

    def _step(self) -> None:
        """Do what there is to do now."""
        self._follow_models()
        if self._client is not None and self._client.step():
            self._count_traffic()
        self._backoff.reset()

    def _follow_models(self) -> None:
        """Install what is new; what cannot be installed is tried again, less and less often."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self._settings.poll.idle_s  # also while a run goes on
        before = self._store.bytes_down
        try:
            manifest = self._store.latest(self._settings.server.channel)
            if manifest is None or manifest == self._active:
                return
            self._models.install(self._store, manifest, self._settings.engine.precision)
        except (BundleError, StorageError) as error:
            log.error("the newest model is not installed: %s", error)
            self._look_at = time.monotonic() + self._install_backoff.next_s()
            return
        self._install_backoff.reset()
        received = self._store.bytes_down - before
        log.info("version %d is active, %d bytes fetched", manifest.version, received)
        self._activate(manifest)
        self._status.publishes.append({"version": manifest.version, "bytes_down": received})
        self._save("idle")

    def _train(self, request: "TrainRequest") -> "Update":
        """Train, and remember what it cost."""
        from edge_agent.local_training import LocalTraining

        self._save("training")
        self._memory.busy(True)
        fetched = self._store.bytes_down
        try:
            training = LocalTraining(self._settings, self._models, self._store, self._training.fit)
            begin = time.monotonic()
            update = training.train(request, self._status.name)
        finally:
            self._memory.look(idle=False)
            self._memory.busy(False)
            self._save("idle")
        self._status.tensorflow_loaded |= bool(update.metrics.get("tensorflow_loaded"))
        self._status.rounds.append(
            {
                "run": request.run,
                "round": request.round,
                "num_examples": update.num_examples,
                "seconds": round(time.monotonic() - begin, 3),
                "trainer_bytes": self._store.bytes_down - fetched,
                "metrics": dict(update.metrics),
            }
        )
        self._save("idle")
        return update

    def _count_traffic(self) -> None:
        rounds = self._status.rounds
        if rounds and "bytes_up" not in rounds[-1]:
            rounds[-1]["bytes_up"], rounds[-1]["bytes_down"] = self._client.last_traffic
            self._save("idle")

    def _count_ingest(self, totals: Mapping[str, Any]) -> None:
        """Called from the spool's thread: what the agent does meanwhile stays as it is."""
        self._status.ingest = dict(totals)
        self._write_status()

    def _open_training(self) -> None:
        """Prepare to join the fleet: Flower is imported only on robots that train."""
        try:
            from edge_agent.fleet_client import FleetClient
        except ModuleNotFoundError as error:
            package = (error.name or "flwr").partition(".")[0]
            raise SettingsError(
                f"training needs {package}: pip install 'fleetlearn[agent]' (Python 3.11 or "
                "newer), or set training.enabled = false to follow published models only"
            ) from None
        from edge_agent.training_process import TrainingProcess

        training = self._settings.training
        environment = {"OMP_NUM_THREADS": str(training.threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._training = TrainingProcess(environment, idle_s=training.idle_s)
        self._client = FleetClient(self._connect, self._train, self._settings.poll)
        if self._settings.examples.spool:
            self._spool = SpoolWatch(self._settings, self._count_ingest)
            self._spool.start()

    def _connect(self) -> "FleetConnection":
        from fleet_model.flower_compat import FleetConnection

        link = self._settings.server
        return FleetConnection(link.address, link.ca.read_bytes(), self._store.key)

    def _retry(self, action: Callable[[], None]) -> None:
        """Do it until it works or the agent stops; wait longer each time, with jitter.

        After a failure the session begins anew with a hello, which ends what the server still holds
        of the last one: Flower would refuse this robot for the minute until it misses heartbeats.
        """
        while not self._stop.is_set():
            try:
                action()
            except FleetError as error:
                if isinstance(error, RefusedError) and action == self._hello:
                    raise  # the server's last word; Flower's refusals have other reasons, too
                self._offline(str(error))
            except Exception as error:
                log.exception("the agent goes on after a bug")
                self._offline(f"{type(error).__name__} in the agent; details are in its log")
            else:
                return
            action = self._hello

    def _offline(self, reason: str) -> None:
        if self._client is not None:
            self._client.close()
        wait_s = self._backoff.next_s()
        if self._status.reason != reason:
            log.warning("%s; trying again", reason)
        self._save("offline", reason)
        self._stop.wait(wait_s)

    def _pause_s(self) -> float:
        return self._settings.poll.idle_s if self._client is None else self._client.pause_s

    def _save(self, state: str, reason: str = "") -> None:
        status = self._status
        status.state, status.reason = state, reason
        status.idle_mb, status.peak_mb = self._memory.idle_mb, self._memory.peak_mb
        status.tensorflow_loaded |= "tensorflow" in sys.modules
        self._write_status()

    def _write_status(self) -> None:
        try:
            with self._saving:
                write_status(self._settings.state, self._status)
        except OSError as error:  # a full disk is no reason to stop
            log.warning("the status cannot be written: %s", error.strerror)

    def _close(self, reason: str) -> None:
        for part in (self._spool, self._client, self._training, self._store):
            if part is not None:
                part.close()
        self._save("stopped", reason)
        log.info("stopped")


class Backoff:
    """Wait 1, 2, 4, ... s, at most a minute.

    Each wait is spread by half, so that a fleet does not knock at once after a power cut.
    """

    def __init__(self) -> None:
        self._next = 1.0
        self._random = random.Random()  # noqa: S311  (not for secrets)

    def next_s(self) -> float:
        """Return how long to wait now."""
        wait_s = self._next * self._random.uniform(0.5, 1.5)
        self._next = min(self._next * 2, MAX_BACKOFF_S)
        return wait_s

    def reset(self) -> None:
        """It worked: start short again."""
        self._next = 1.0


def run_agent(settings: AgentSettings) -> None:
    """Run an agent until SIGINT or SIGTERM; raises as `Agent.run` does.

    The agent has a thread of its own: Python handles a signal only between two steps of the main
    thread, and looking up a name or connecting may take half a minute where the network is gone.
    """
    agent = Agent(settings)
    ended: Future[None] = Future()
    wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put may interrupt its get
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: wake.put(None))
    ended.add_done_callback(lambda _: wake.put(None))
    threading.Thread(target=_run_into, args=(ended, agent), name="agent", daemon=True).start()
    wake.get()
    agent.stop()
    if wait([ended], GRACE_S).done:
        ended.result()
    else:
        agent.abandon()


def _run_into(ended: "Future[None]", agent: Agent) -> None:
    try:
        agent.run()
    except BaseException as error:  # noqa: BLE001  (raised again in the main thread)
        ended.set_exception(error)
    else:
        ended.set_result(None)
