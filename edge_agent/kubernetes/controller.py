"""The controller: looks again and again at RobotModels, DaemonSets and the agent's files.

Every look is a whole one, so nothing that was missed lasts; the watch only makes it sooner. Two
controllers would do the same twice: no leader is chosen.
"""

import logging
import math
import signal
import threading
from datetime import datetime
from pathlib import Path

from edge_agent.kubernetes.observed import observe
from edge_agent.kubernetes.reconcile import (
    Json,
    Said,
    agent_of,
    change_of,
    plan,
    status_object,
    status_of,
)
from edge_agent.robot.backoff import Backoff
from fleet_model.errors import FleetError, RefusedError, UpdateError
from fleet_model.kubernetes.api import Cluster, ConflictError, GoneError
from fleet_model.kubernetes.connection import Connection
from fleet_model.kubernetes.robot_model import GROUP, PLURAL, VERSION
from fleet_model.protocol.proof import utc_now

MANAGER = "fleetlearn-controller"  # the same for ever
LOOK_S = 10.0  # the agent's files say nothing when they change
WATCH_S = 300.0
REPORT_S = 300.0  # a status that stays the same is written so often: a robot's disk is a card
log = logging.getLogger(__name__)


class Controller:
    """Keeps one namespace's RobotModels; `run` is for one thread."""

    def __init__(
        self, connection: Connection, namespace: str, state: Path, alive: Path | None = None
    ) -> None:
        """Ask nothing yet.

        Args:
            connection: of the cluster that this runs in.
            namespace: of the RobotModels and the agents.
            state: the agent's state directory; it is only read.
            alive: this file's time is that of the last look, for a probe.
        """
        self._connection, self._state, self._alive = connection, state, alive
        self._models_path = f"apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"
        self._sets_path = f"apis/apps/v1/namespaces/{namespace}/daemonsets"
        self._stop, self._wake = threading.Event(), threading.Event()
        self._listed: str | None = None  # resource version of the last look
        self._told = ""

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Look until `stop`; what fails is tried again."""
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        backoff = Backoff()
        with Cluster(self._connection) as cluster:
            while not self._stop.is_set():
                self._wake.clear()
                wait_s = LOOK_S
                try:
                    self.look(cluster)
                except FleetError as error:
                    self._tell(str(error))
                    wait_s = backoff.next_s()
                    self._wake.clear()  # a change is no reason to ask sooner who does not answer
                else:
                    self._tell("")
                    backoff.reset()
                if self._alive is not None:
                    self._alive.touch()
                self._wake.wait(wait_s)

    def look(self, cluster: Cluster) -> None:
        """Bring agents and statuses to what RobotModels say; raises FleetError if asked in vain."""
        listed = cluster.get(self._models_path)
        if listed is None:
            raise UpdateError(
                "the cluster knows no RobotModel; apply deploy/kubernetes/robot-model"
            )
        models = listed["items"]
        found = (cluster.get(self._sets_path) or {}).get("items", ())
        sets = {one["metadata"]["name"]: one for one in found}
        made = plan(models, sets)
        said = {
            name: self._apply(cluster, one, made.variables.get(name, {}))
            for name, one in sets.items()
            if name not in made.kept
        }
        seen, now = observe(self._state), utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")
        for model in models:
            agent = agent_of(model)
            applied = made.refused.get(model["metadata"]["name"]) or said[agent]
            status = status_of(model, applied, sets.get(agent), seen, now)
            self._report(cluster, model, status_object(model, status))
        self._listed = listed["metadata"]["resourceVersion"]

    def _apply(self, cluster: Cluster, daemon_set: Json, variables: dict[str, str]) -> Said:
        """Set an agent's variables, if they are others; return the condition."""
        change = change_of(daemon_set, variables)
        words = ", ".join(f"{name}={value}" for name, value in sorted(variables.items()))
        name = daemon_set["metadata"]["name"]
        if change is not None:
            try:
                after = cluster.apply(f"{self._sets_path}/{name}", change, MANAGER)
            except ConflictError as error:
                reason = "another manager has set the variable; remove it there: "
                return Said("False", "FieldConflict", reason + str(error))
            except (UpdateError, RefusedError) as error:
                return Said("False", "NotTaken", str(error))
            log.info("%s: %s", name, words or "back to its agent.toml")
            daemon_set.update(after)
        return Said("True", "Applied", words)

    def _report(self, cluster: Cluster, model: Json, wanted: Json) -> None:
        before, status = model.get("status") or {}, wanted["status"]
        same = {**before, "reportedAt": ""} == {**status, "reportedAt": ""}
        if same and _seconds(before.get("reportedAt", ""), status["reportedAt"]) < REPORT_S:
            return
        name = model["metadata"]["name"]
        try:
            cluster.apply(f"{self._models_path}/{name}/status", wanted, MANAGER, force=True)
        except UpdateError as error:  # deleted since
            log.warning("the status of %s was not taken: %s", name, error)

    def _watch(self) -> None:
        """Wake `run` when a RobotModel changes."""
        backoff, since = Backoff(), None
        with Cluster(self._connection) as cluster:
            while not self._stop.is_set():
                since = since or self._listed
                if since is None:
                    self._stop.wait(0.1)
                    continue
                try:
                    for kind, obj in cluster.watch(self._models_path, since, WATCH_S):
                        since = obj["metadata"]["resourceVersion"]
                        if kind != "BOOKMARK":
                            self._wake.set()
                    backoff.reset()
                except GoneError:
                    since = self._listed = None  # the next look lists again
                    self._wake.set()
                except (FleetError, KeyError) as error:
                    log.info("the watch has ended: %s", error)
                    self._stop.wait(backoff.next_s())

    def _tell(self, reason: str) -> None:
        """Log a failure once, and its end."""
        if reason != self._told:
            log.warning("%s", reason) if reason else log.info("all is well again")
            self._told = reason


def run_until_signal(controller: Controller) -> None:
    """Run a controller until SIGTERM or Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: controller.stop())
    controller.run()


def _seconds(before: str, after: str) -> float:
    """Return the time between two reports; for ever if the first is none."""
    try:
        begin, end = (datetime.fromisoformat(one.replace("Z", "+00:00")) for one in (before, after))
    except ValueError:
        return math.inf
    return abs((end - begin).total_seconds())
