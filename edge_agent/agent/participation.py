"""A robot's part in rounds: the fleet client, and the training process behind it."""

import time
from typing import TYPE_CHECKING

from edge_agent.agent.neighbor import yielding
from edge_agent.agent.pulse import Pulse
from edge_agent.agent.status import StatusFile
from edge_agent.examples.spool.watch import SpoolWatch
from edge_agent.link.news import News, WholeMessages
from edge_agent.link.server_link import HttpsStore
from edge_agent.models.deploy import Models
from edge_agent.robot.pause import pause_reason
from edge_agent.robot.settings import AgentSettings
from edge_agent.robot.train_when import Gate
from fleet_model.errors import BusyError, FrameError, SettingsError, one_line
from fleet_model.memory import give_back
from fleet_model.protocol.pseudo_counts import named
from fleet_model.types import EVALUATE, SUMS, TRAIN

if TYPE_CHECKING:  # each loads Flower: only robots that train need it
    from edge_agent.link.flower_connection import FleetConnection
    from fleet_model.protocol.wire import RobotRequest
    from fleet_model.types import Update


class Participation:
    """Answers messages between two looks at the models; one thread, but for `cancel`."""

    def __init__(
        self,
        settings: AgentSettings,
        models: Models,
        store: HttpsStore,
        status: StatusFile,
        pulse: Pulse,
        news: News,
    ) -> None:
        """Find out whether this robot can train; nothing is started yet.

        Raises:
            SettingsError: what training needs is not installed.
        """
        try:
            from edge_agent.link.fleet_client import FleetClient
        except ModuleNotFoundError as error:
            package = (error.name or "flwr").partition(".")[0]
            raise SettingsError(
                f"training needs {package}: pip install 'fleetlearn[agent]' (Python 3.11 or "
                "newer), or set training.enabled = false to follow published models only"
            ) from None
        from edge_agent.training.local_training import LocalTraining
        from edge_agent.training.training_process import TrainingProcess, environment_of

        training = settings.training
        environment = {**environment_of(training), "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._settings, self._store, self._file = settings, store, status
        self._pulse, self._gate = pulse, Gate(settings.train_when)
        self._cause = ""  # all that is known of a failure; the server is told less
        self.trained_at: float | None = None  # monotonic, end of the last training
        self._process = TrainingProcess(environment, idle_s=training.idle_s)
        self._training = LocalTraining(settings, models, store, self._process.fit, self._counted)
        self._news = news
        self._client = FleetClient(
            self._connect, self._work, settings.poll, self._server_now, news.spares
        )
        self._spool = SpoolWatch(settings, status.count_ingest) if settings.examples.spool else None

    def start(self) -> None:
        """Begin to read new bags; the session begins with the first step."""
        if self._spool is not None:
            self._spool.start()

    @property
    def pause_s(self) -> float:
        """How long to wait before the next step."""
        return self._client.pause_s

    @property
    def objects(self) -> int:
        """How many parts of messages have come or gone."""
        return self._client.objects

    @property
    def at_work(self) -> bool:
        """Whether the server awaits something that is here."""
        return self._client.at_work

    def step(self) -> None:
        """Answer one message if there is one; raises as FleetClient.step does."""
        if not self._news.question and not self._client.goes_on:
            return
        rounds = self._file.status.rounds
        if not self._client.step():
            self._news.fetched()
            return
        failure = self._client.last_failure
        self._file.set_failure(failure and (self._cause or failure))
        if rounds and "bytes_up" not in rounds[-1]:
            rounds[-1]["bytes_up"], rounds[-1]["bytes_down"] = self._client.last_traffic
        self._file.set_state("idle")
        give_back()

    def session_ended(self) -> None:
        """The server has ended this robot's session: the next step comes online again."""
        self._client.session_ended()

    def leave_fleet(self) -> None:
        """Leave the fleet; the next step joins it again."""
        self._client.close()

    def cancel(self) -> None:
        """End a training that is under way; from any thread."""
        self._process.cancel()

    def rest(self) -> None:
        """Let go of the memory that a warm trainer holds; from any thread."""
        self._process.rest()

    def leave_spool(self) -> None:
        """End what reads new bags, immediately."""
        if self._spool is not None:
            self._spool.close()

    def close(self) -> None:
        """End everything."""
        self.leave_spool()
        self._client.close()
        self._process.close()

    def _connect(self) -> "FleetConnection":
        from edge_agent.link.flower_connection import FleetConnection

        link = self._settings.server
        address = link.superlink or self._store.address
        whole = None if link.superlink else WholeMessages(self._store)
        return FleetConnection(address, link.ca.read_bytes(), self._store.key, whole)

    def _counted(self) -> tuple[str, int]:
        """Ask the server which update of this robot it has folded in last."""
        self._store.whoami()
        return self._store.standing.counted_run, self._store.standing.counted_version

    def _server_now(self) -> float:
        return time.time() + self._store.server_ahead_s

    def _work(self, request: "RobotRequest") -> "Update":
        """Do what is asked, and remember what it cost."""
        self._cause = ""
        if reason := pause_reason(self._settings.state):  # the server asked before it heard of it
            raise BusyError(reason)
        status, memory = self._file.status, self._file.memory
        self._file.set_state("training")
        self._pulse.expect(request.deadline_s)
        memory.busy(True)
        fetched = self._store.bytes_down
        begin = time.monotonic()
        try:
            with yielding(self._gate.closed, self._process):
                update = self._training.answer(request, status.name)
        except FrameError as error:
            self._cause = one_line(str(error))
            raise
        finally:
            memory.look(idle=False)
            memory.busy(False)
            self._file.set_state("idle")
        version, count, metrics = update.base_version, update.num_examples, dict(update.metrics)
        if update.kind == EVALUATE:
            status.evaluation = {"version": version, "num_examples": count, **metrics}
        elif update.kind == SUMS:
            status.sums = {"version": version, "num_examples": count, **metrics}
        elif update.kind == TRAIN:
            self._remember(request, update, time.monotonic() - begin, fetched)
            self.trained_at = time.monotonic()
        return update

    def _remember(
        self, request: "RobotRequest", update: "Update", seconds: float, fetched: int
    ) -> None:
        status = self._file.status
        status.framework_loaded |= bool(update.metrics.get("framework_loaded"))
        status.examples = update.num_examples
        status.pseudo_labels = named(update.metrics, self._training.classes)
        status.rounds.append(
            {
                "run": request.run,
                "round": request.round,
                "num_examples": update.num_examples,
                "seconds": round(seconds, 3),
                "trainer_bytes": self._store.bytes_down - fetched,
                "metrics": dict(update.metrics),
                "codec": update.codec,
            }
        )
        self._file.set_state("idle")
