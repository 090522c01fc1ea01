"""The loop behind the service: say hello, follow published models, answer train messages."""

import json
import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.deploy import Models
from edge_agent.memory import MemoryWatch
from edge_agent.server_link import HttpsStore
from edge_agent.settings import AgentSettings
from fleet_model.durable import write_durably
from fleet_model.errors import BundleError, ConnectionFailed, RefusedError
from fleet_model.types import Update
from fleet_model.wire import TrainRequest

MAX_BACKOFF_S = 60.0
KEEP = 50  # rounds and publishes remembered in status.json
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Status:
    """What `edge-agent status` shows; written to state/status.json at every change."""

    name: str = ""
    site: str = ""
    state: str = "starting"  # then "idle", "training", "offline", "stopped"
    reason: str = ""  # why it is offline
    trainer: str = ""
    active_version: int | None = None
    tensorflow_loaded: bool = False  # in the agent or its training process, ever
    idle_mb: float = 0.0  # summed PSS of the process tree
    peak_mb: float = 0.0
    rounds: list[dict[str, Any]] = field(default_factory=list)
    publishes: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


class Agent:
    """One robot's agent; `run` returns after `stop`."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._store = HttpsStore(settings.server)
        self._models = Models(settings.state / "models")
        self._status = Status(trainer=settings.training.trainer)
        self._stop = threading.Event()
        self._memory = MemoryWatch()
        self._training: Any = None  # a TrainingProcess
        self._client: Any = None  # a FleetClient
        self._backoff = Backoff()

    def stop(self, *_: object) -> None:
        """Ask `run` to return soon; a training that is under way is cancelled."""
        self._stop.set()
        if self._training is not None:
            self._training.cancel()

    def run(self) -> None:
        """Serve until `stop`; the network may come and go.

        Raises:
            RefusedError: the server does not know this robot.
            SettingsError: key or certificate cannot be read.
        """
        active = self._models.active()
        self._status.active_version = None if active is None else active.version
        self._store.active_version = self._status.active_version
        if not self._retry(self._hello):
            return
        if self._settings.training.enabled and self._settings.examples.paths:
            self._open_training()
        try:
            while not self._stop.is_set():
                self._retry(self._step)
                self._stop.wait(self._pause_s())
        finally:
            self._close()

    def _hello(self) -> None:
        self._status.name, self._status.site = self._store.hello()
        log.info("the server knows this robot as %s, site %s", self._status.name, self._status.site)
        self._save("idle")

    def _step(self) -> None:
        """Do what there is to do now."""
        self._follow_models()
        if self._client is not None and self._client.step():
            self._count_traffic()
        if self._status.state == "offline":
            self._save("idle")

    def _follow_models(self) -> None:
        before = self._store.bytes_down
        manifest = self._store.latest(self._settings.server.channel)
        if manifest is None or manifest.version == self._status.active_version:
            return
        try:
            self._models.install(self._store, manifest, self._settings.engine.precision)
        except BundleError as error:
            log.error("version %d is not installed: %s", manifest.version, error)
            return
        received = self._store.bytes_down - before
        log.info("version %d is active, %d bytes fetched", manifest.version, received)
        self._status.active_version = self._store.active_version = manifest.version
        self._status.publishes.append({"version": manifest.version, "bytes_down": received})
        self._save("idle")

    def _train(self, request: TrainRequest) -> Update:
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

    def _open_training(self) -> None:
        """Join the fleet: Flower is imported only on robots that train."""
        from edge_agent.fleet_client import FleetClient
        from edge_agent.training_process import TrainingProcess
        from fleet_model.flower_compat import FleetConnection

        training, link = self._settings.training, self._settings.server
        environment = {"OMP_NUM_THREADS": str(training.threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._training = TrainingProcess(environment, idle_s=training.idle_s)
        ca_pem = link.ca.read_bytes()
        self._client = FleetClient(
            lambda: FleetConnection(link.address, ca_pem, self._store.key),
            self._train,
            self._settings.poll,
        )

    def _retry(self, action: Callable[[], None]) -> bool:
        """Do it until it works or the agent stops; wait longer each time, with jitter."""
        while not self._stop.is_set():
            try:
                action()
            except ConnectionFailed as error:
                self._offline(str(error))
            except RefusedError as error:
                if self._status.state in ("starting", "offline"):
                    self._save("stopped", str(error))
                    raise
                self._offline(str(error))
                action = self._hello  # the server has restarted, or forgotten this robot
            else:
                self._backoff.reset()
                return True
        return False

    def _offline(self, reason: str) -> None:
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
        del status.rounds[:-KEEP], status.publishes[:-KEEP]
        path = self._settings.state / "status.json"
        write_durably(path, json.dumps(status.as_json(), indent=1))

    def _close(self) -> None:
        for part in (self._client, self._training, self._store):
            if part is not None:
                part.close()
        self._save("stopped")
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
    """Run an agent until SIGINT or SIGTERM."""
    agent = Agent(settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, agent.stop)
    agent.run()


def read_status(state: Path) -> dict[str, Any]:
    """Return what the agent last wrote; empty if it has never run."""
    try:
        return dict(json.loads((state / "status.json").read_text()))
    except FileNotFoundError:
        return {}
