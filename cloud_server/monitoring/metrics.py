"""What Prometheus is told: computed at the scrape from those who know, nothing is counted twice."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from cloud_server.models.release_log import ReleaseKind
from cloud_server.monitoring.fleet_status import FleetStatus
from cloud_server.monitoring.robot_status import RobotStatus
from cloud_server.monitoring.totals import SECONDS, HistoryTotals
from cloud_server.robots.register import State
from cloud_server.runs.run_store import RunState
from cloud_server.state.directory import ServerDirectory
from fleet_model import __version__
from fleet_model.protocol.outcome import KINDS
from fleet_model.protocol.rollout import State as RolloutState

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

P = "fleetlearn_"
ROBOT_STATES = get_args(State)
RUN_STATES = get_args(RunState)
RELEASE_KINDS = tuple(kind for kind in get_args(ReleaseKind) if kind != "rollout")
ROLLOUT_STATES = get_args(RolloutState)


def make_registry(
    server_dir: ServerDirectory,
    status: Callable[[], FleetStatus],
    now_s: Callable[[], float] = time.time,
) -> CollectorRegistry:
    """Return the registry of one server; `status` is asked anew at every scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fleet(server_dir, status, now_s))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class _Fleet(Collector):
    def __init__(
        self,
        server_dir: ServerDirectory,
        status: Callable[[], FleetStatus],
        now_s: Callable[[], float],
    ) -> None:
        self._server_dir = server_dir
        self._status = status
        self._now_s = now_s

    def collect(self) -> Iterator[Metric]:
        """Yield every family; raises SettingsError while the register is damaged."""
        status = self._status()
        yield from _robots(status, self._now_s())
        yield from _rounds(status.totals)
        yield from _refused(status)
        yield from _open_round(status)
        yield from _runs(status)
        yield from _rollouts(status)
        yield from _server(self._server_dir)


def _robots(status: FleetStatus, now_s: float) -> Iterator[Metric]:
    states = Counter(robot.state for robot in status.robots)
    yield _gauge("robots", "Robots of the register.", "state", {s: states[s] for s in ROBOT_STATES})
    online = sum(robot.online for robot in status.robots)
    yield _one("robots_online", "Robots that can be asked to train now.", online)
    yield _one("waiting_keys", "Unknown keys that asked to take part lately.", len(status.waiting))
    connected = [(robot, robot.online) for robot in status.robots]
    yield _each("robot_online", "1 if it can be asked now.", connected)
    seen = [(r, now_s - r.last_seen_s) for r in status.robots if r.last_seen_s is not None]
    yield _each("robot_last_seen_timestamp_seconds", "When it asked for something last.", seen)
    versions = [(r, r.active_version) for r in status.robots if r.active_version is not None]
    yield _each("robot_model_version", "The version that it predicts with.", versions)
    offenses = [(robot, robot.offenses) for robot in status.robots]
    yield _each("robot_refused_in_a_row", "Refused updates since an accepted one.", offenses)
    tried = GaugeMetricFamily(
        f"{P}robots_tried",
        "Robots by the version that they tried last, and what became of it there.",
        labels=("state", "version"),
    )
    trials = [t for robot in status.robots if (t := (robot.report or {}).get("trial"))]
    for (state, version), count in Counter((t["state"], t["version"]) for t in trials).items():
        tried.add_metric((state, str(version)), count)
    yield tried


def _rounds(totals: HistoryTotals) -> Iterator[Metric]:
    seconds = HistogramMetricFamily(f"{P}round_seconds", "How long closed rounds took.")
    buckets = [(str(float(bound)), totals.within[bound]) for bound in SECONDS]
    seconds.add_metric((), [*buckets, ("+Inf", totals.rounds)], totals.seconds)
    yield seconds
    updates = CounterMetricFamily(
        f"{P}updates", "What became of robots that were asked, by verdict.", labels=("verdict",)
    )
    for verdict in KINDS:
        updates.add_metric((verdict,), totals.updates[verdict])
    yield updates
    for name, about, value in (
        ("rounds", "Closed rounds.", totals.rounds),
        ("updates_late", "Updates of rounds that had closed: dropped.", totals.late),
        ("update_bytes", "Bytes of updates that arrived.", totals.update_bytes),
        ("examples", "Examples behind accepted updates.", totals.examples),
    ):
        yield CounterMetricFamily(f"{P}{name}", about, value=value)
    if totals.last is not None:
        about = "Means of the last round over held-out examples."
        yield _gauge("held_out", about, "metric", totals.last.metrics)


def _refused(status: FleetStatus) -> Iterator[Metric]:
    """Count since the server started: apart from what is late by the history, which is for ever."""
    for name, about, counts in (
        ("updates_duplicate", "Second answers to one question: dropped.", status.answered_again),
        ("updates_expired", "Answers to questions that were over: dropped.", status.answered_late),
        ("updates_repeated", "The same replies again: they count once.", status.repeated),
        ("updates_too_large", "Replies larger than the model allows: refused.", status.too_large),
        ("updates_misnamed", "Replies with objects of others' names: refused.", status.misnamed),
    ):
        yield CounterMetricFamily(f"{P}{name}", about, value=sum(counts.values()))


def _open_round(status: FleetStatus) -> Iterator[Metric]:
    now = status.open_round
    if now is not None:
        yield _one("open_round_asked", "Robots asked in the open round.", now.asked)
        yield _one("open_round_answered", "Robots that have answered in it.", now.answered)
        yield _one("open_round_good", "Updates in it that may be folded in.", now.good)
        yield _one("open_round_seconds_left", "Seconds to its deadline.", now.seconds_left)


def _runs(status: FleetStatus) -> Iterator[Metric]:
    if status.runs:
        run = status.runs[-1]
        states = {state: float(state == run.state) for state in RUN_STATES}
        yield _gauge("run_state", "1 for the state of the newest run.", "state", states)
        yield _one("run_rounds_closed", "Rounds that the newest run closed.", run.rounds_closed)
    if status.release is not None:
        kinds = {kind: float(kind == status.release.kind) for kind in RELEASE_KINDS}
        yield _gauge("release", "1 for what became of the newest version.", "kind", kinds)
        yield _one(
            "release_version", "The newest version, published or not.", status.release.version
        )
    about = "The newest version of each channel."
    yield _gauge("published_version", about, "channel", status.channels)


def _rollouts(status: FleetStatus) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        f"{P}rollout_state", "1 for the state of a rollout.", labels=("state", "channel")
    )
    robots = GaugeMetricFamily(
        f"{P}rollout_robots",
        "Robots of a rollout, by what became of the new version on them.",
        labels=("outcome", "channel"),
    )
    wanted = GaugeMetricFamily(
        f"{P}robot_wanted_version",
        "The version that it is to run by a rollout.",
        labels=("channel", "robot"),
    )
    for one in status.rollouts:
        for state in ROLLOUT_STATES:
            states.add_metric((state, one.channel), float(state == one.state))
        for outcome, count in one.counts.items():
            robots.add_metric((outcome, one.channel), count)
        for name, version in one.wants.items():
            wanted.add_metric((one.channel, name), version)
    yield states
    yield robots
    yield wanted
    open_groups = {one.channel: one.open for one in status.rollouts}
    yield _gauge("rollout_groups_open", "Groups that may take it.", "channel", open_groups)
    groups = {one.channel: len(one.groups) for one in status.rollouts}
    yield _gauge("rollout_groups", "Groups of its plan.", "channel", groups)
    versions = {one.channel: one.next for one in status.rollouts}
    yield _gauge("rollout_version", "The version that is rolled out.", "channel", versions)


def _server(server_dir: ServerDirectory) -> Iterator[Metric]:
    yield _gauge("build_info", "The program's version.", "version", {__version__: 1})
    free = shutil.disk_usage(server_dir.root).free
    yield _one("disk_free_bytes", "Free on the file system of the server directory.", free)
    if server_dir.history.exists():
        changed = server_dir.history.stat().st_mtime
        yield _one("last_round_timestamp_seconds", "When a round closed last.", changed)
    until = _certificate(server_dir.certificates / "server.crt").not_valid_after_utc.timestamp()
    yield _one("certificate_expiry_timestamp_seconds", "When the server's TLS ends.", until)


def _certificate(path: Path) -> "Certificate":
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(path.read_bytes())


def _one(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{P}{name}", about, value=value)


def _gauge(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"{P}{name}", about, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _each(name: str, about: str, values: Iterable[tuple[RobotStatus, float]]) -> Metric:
    family = GaugeMetricFamily(f"{P}{name}", about, labels=("robot", "site"))
    for robot, value in values:
        family.add_metric((robot.name, robot.site), value)
    return family
