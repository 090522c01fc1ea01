"""Let virtual robots learn under the real round loop, and add up what it takes."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cloud_server.aggregation.aggregator import Aggregator, has
from cloud_server.aggregation.asked import asking
from cloud_server.aggregation.suited import suited_rule
from cloud_server.privacy.in_rounds import private_checks, private_request, with_privacy
from cloud_server.rounds.fleet import Clock, Fleet
from cloud_server.rounds.round_journal import MemoryJournal
from cloud_server.rounds.round_loop import QuorumError, run_round
from cloud_server.simulation.control import VirtualControls
from cloud_server.simulation.learning import LABELS, HeadTask
from cloud_server.simulation.population import Population, Traits
from cloud_server.simulation.virtual_fleet import VirtualFleet
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import RoundError, SettingsError
from fleet_model.protocol.private import privately
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint, TrainConfig, Update, Weights
from fleet_model.weights import size_bytes

RUN = "simulation"
EVERY_ROBOT = {"robots": (), "sites": (), "labels": (), "query": ""}  # of RoundSettings
_REASON = 120  # characters: the loop's error names every robot


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPlan:
    """What is simulated."""

    traits: Traits
    settings: ServerSettings  # the sections rounds, aggregation, checks, training are used
    rounds: int
    model_mb: float = 0.0  # what travels each way; 0: what the virtual robots learn, 0.026 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundLine:
    """One round, without the robots one by one."""

    round: int
    hours: float  # simulated, from the start to the closing
    seconds: float  # simulated, of this round
    asked: int = 0
    accepted: int = 0
    refused: int = 0
    gone: int = 0  # went away before they had answered
    late: int = 0  # no update by the deadline: a slow robot, or a slow network
    accuracy: float  # of the checkpoint after the round, on examples that no robot has
    loss: float
    error: str = ""  # why the round did not close


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSummary:
    """A whole simulation."""

    robots: int
    rounds: int  # that closed
    failed: int
    hours: float  # simulated
    gb_down: float
    gb_up: float
    used: float  # share of the questions that became part of a checkpoint
    accuracy: float
    wall_s: float  # what the simulation itself took


def left_out(settings: ServerSettings) -> list[str]:
    """Return a sentence for each setting of a server that a simulation does without."""
    found, rounds = [], settings.rounds
    if settings.sites.enabled:
        found.append(
            "sites.enabled: all virtual robots are of one site and learn one model; no cluster is "
            "looked for"
        )
    if rounds.compression != "none":
        found.append(
            f'rounds.compression = "{rounds.compression}": updates are sent whole, so fewer bytes '
            "and less time go back in your fleet"
        )
    if settings.aggregation.personal:
        found.append("aggregation.personal: virtual robots share every tensor")
    if chosen := [
        f"rounds.{name}" for name, none in EVERY_ROBOT.items() if getattr(rounds, name) != none
    ]:
        found.append(
            f"{', '.join(chosen)}: no virtual robot has such a name, site, label or report"
        )
    return found


class Simulation:
    """One plan on its way: iterate over `rounds`, then read `summary`.

    The whole course follows from the plan: the same plan gives the same numbers, bit for bit,
    but for `wall_s`.
    """

    def __init__(
        self, plan: SimulationPlan, work: Callable[[int, RobotRequest], Update] | None = None
    ) -> None:
        """Make the fleet.

        Args:
            plan: what is simulated. Settings that tell robots apart (rounds.robots, sites, labels,
                query) are left out: virtual robots are nobody's. `left_out` says what else is.
            work: how a robot trains; None: the head of learning.py on its own examples.

        Raises:
            SettingsError: no round can ever close, or the settings contradict each other.
        """
        self._plan, rounds = plan, plan.settings.rounds
        if rounds.quorum > plan.traits.robots:
            raise SettingsError(
                f"{plan.traits.robots} robots cannot give a quorum of {rounds.quorum}; lower "
                "rounds.quorum or simulate more robots"
            )
        self._task = HeadTask(plan.traits.seed)
        self._controls = VirtualControls(self._task.narrow, self._task.wide)
        self._population = Population(plan.traits, LABELS)
        self._fleet = VirtualFleet(self._population, work or self._train, self._message_bytes)
        self._lines: list[RoundLine] = []
        self._begin = time.perf_counter()

    def rounds(self) -> Iterator[RoundLine]:
        """Close one round after the other; see `course`."""
        for line in course(self._fleet, self._fleet.clock, self._task, self._plan):
            self._lines.append(line)
            yield line

    def summary(self) -> SimulationSummary:
        """Add up the rounds so far; there is at least one."""
        closed = [line for line in self._lines if not line.error]
        return SimulationSummary(
            robots=self._plan.traits.robots,
            rounds=len(closed),
            failed=len(self._lines) - len(closed),
            hours=self._fleet.clock.now() / 3600,
            gb_down=self._fleet.bytes_down / 1e9,
            gb_up=self._fleet.bytes_up / 1e9,
            used=sum(line.accepted for line in closed) / max(1, self._fleet.asked),
            accuracy=self._lines[-1].accuracy,
            wall_s=time.perf_counter() - self._begin,
        )

    def _train(self, robot: int, request: RobotRequest) -> Update:
        config, seed = request.config, self._plan.traits.seed
        fit = partial(train, self._task, self._population, robot, request)
        if config.control_variates:
            update = self._controls.train(robot, request.groups, config, fit)
        else:
            update = fit()
        if config.private_clip:
            noise = np.random.default_rng([seed, 4, robot, request.checkpoint.version])
            clip = config.private_clip
            weights = privately(update.weights, clip, config.private_noise, noise)
            update = replace(update, weights=weights)
        return update

    def _message_bytes(self, request: RobotRequest) -> float:
        sent = (request.checkpoint.weights, *request.groups.values())
        return self._plan.model_mb * 1e6 or sum(map(size_bytes, sent))


def train(
    task: HeadTask,
    population: Population,
    robot: int,
    request: RobotRequest,
    correction: Weights | None = None,
) -> Update:
    """Do what robot is asked, on its own examples; `correction` as in HeadTask.fit."""
    examples, mix = int(population.examples[robot]), population.mix[robot]
    return task.fit(robot, examples, mix, request.checkpoint, request.config, correction)


def course(fleet: Fleet, clock: Clock, task: HeadTask, plan: SimulationPlan) -> Iterator[RoundLine]:
    """Close the plan's rounds over any fleet whose robots learn `task`.

    A round that fails costs its time, and the next is tried.

    Raises:
        SettingsError: the settings contradict each other.
    """
    settings = plan.settings
    rule = suited_rule(settings)
    if has(rule, "needs_adapter"):
        raise SettingsError(
            f"rule {settings.aggregation.rule} is for adapters, and the model of a simulation has "
            "none: choose another rule"
        )
    noise = np.random.default_rng([plan.traits.seed, 3])
    aggregator = with_privacy(rule, settings.privacy, lambda: noise)
    rules, journal = settings.rounds.model_copy(update=EVERY_ROBOT), MemoryJournal()
    checkpoint, begin_s = task.start(), clock.now()
    for number in range(1, plan.rounds + 1):
        request, round_begin_s = _request(number, checkpoint, settings, aggregator), clock.now()
        record, error = None, ""
        try:
            checkpoint, record = run_round(
                fleet,
                aggregator,
                request,
                rules,
                private_checks(settings.checks, settings.privacy),
                clock,
                journal,
                stop=lambda: False,
            )
            journal.close(number)
        except QuorumError as failed:
            record, error = failed.record, str(failed)[:_REASON]
        except RoundError as failed:  # too few robots were switched on
            error = str(failed)[:_REASON]
        loss, accuracy = task.score(checkpoint.weights)
        line = RoundLine(
            round=number,
            hours=(clock.now() - begin_s) / 3600,
            seconds=clock.now() - round_begin_s,
            accuracy=accuracy,
            loss=loss,
            error=error,
        )
        yield line if record is None else _counted(line, record)


def _request(
    number: int, checkpoint: Checkpoint, settings: ServerSettings, rule: Aggregator
) -> RobotRequest:
    request = RobotRequest(
        run=RUN,
        round=number,
        checkpoint=checkpoint,
        config=TrainConfig(**settings.training.model_dump(), seed=checkpoint.version),
        trainer="",
        trainer_bytes=0,
        deadline_s=settings.rounds.deadline_s,
    )
    return private_request(asking(request, rule), settings.privacy)


def _counted(line: RoundLine, record: RoundRecord) -> RoundLine:
    kinds = Counter(robot.outcome.kind for robot in record.robots)
    return replace(
        line,
        asked=record.asked,
        accepted=kinds["accepted"],
        refused=kinds["refused"],
        gone=kinds["offline"],
        late=kinds["no_reply"],
    )
