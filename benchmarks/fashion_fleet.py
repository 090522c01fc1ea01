"""A fleet that learns Fashion-MNIST by one rule: with this project's server, or with Flower's.

The robots' part is the same (small_cnn.fit), and the same seed gives the same start, dealing and
shuffles. Ours is `build_aggregator(rule).fold`; Flower's strategies run in this process, on records
as a ServerApp gets them. Both count every example: [checks] is off, as Flower has none.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.fashion import Pictures, deal
from benchmarks.small_cnn import SHAPES, Windows, accuracy, first_weights, fit, windows_of
from cloud_server.aggregation.aggregator import build_aggregator
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.simulation.control import VirtualControls
from fleet_model.types import Checkpoint, TrainConfig, Update, Weights
from fleet_model.weights import l2_norm

ROBOTS, EPOCHS, BATCH = 10, 2, 32
HOSTILE = 2  # that Krum is told of


@dataclass(frozen=True)
class Setting:
    """What tuning chose for an arm."""

    learning_rate: float = 0.02  # of robots
    proximal_mu: float = 0.0
    logit_adjustment: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)  # of the rule


@dataclass(frozen=True)
class Arm:
    """One line of the table: a rule of the server, and what its robots do."""

    rule: str
    strategy: str = ""  # Flower's; "": it has none
    named: Mapping[str, str] = field(
        default_factory=dict
    )  # our option -> Flower's; it has no other

    def flower(self, setting: Setting) -> Any:
        """Return Flower's strategy with the same settings."""
        from flwr.serverapp import strategy

        given = {
            self.named[name]: value for name, value in setting.options.items() if name in self.named
        }
        if self.strategy == "FedProx":
            given["proximal_mu"] = setting.proximal_mu
        return getattr(strategy, self.strategy)(fraction_train=0, **given)


_ADAGRAD = {"learning_rate": "eta", "tau": "tau"}  # without momentum: our beta_1 = 0
_STEPS = {**_ADAGRAD, "beta_1": "beta_1", "beta_2": "beta_2"}
_MOMENTUM = {"learning_rate": "server_learning_rate", "momentum": "server_momentum"}
_KRUM = {"hostile": "num_malicious_nodes", "keep": "num_nodes_to_select"}
ARMS = {
    "fedavg": Arm("fedavg", "FedAvg"),
    "fedprox": Arm("fedavg", "FedProx"),
    "fedavgm": Arm("fedavgm", "FedAvgM", _MOMENTUM),
    "fedadam": Arm("fedadam", "FedAdam", _STEPS),
    "adjusted": Arm("fedavg"),
    "fedyogi": Arm("fedyogi", "FedYogi", _STEPS),
    "fedadagrad": Arm("fedadagrad", "FedAdagrad", _ADAGRAD),
    "fednova": Arm("fednova"),
    "fedexp": Arm("fedexp"),
    "scaffold": Arm("scaffold"),
    "median": Arm("median", "FedMedian"),
    "trimmed_mean": Arm("trimmed_mean", "FedTrimmedAvg", {"share": "beta"}),
    "krum": Arm("krum", "Krum", _KRUM),
    "multi_krum": Arm("multi_krum", "MultiKrum", _KRUM),
    "norm_bounded": Arm("norm_bounded"),
    "adjusted_fedavgm": Arm("fedavgm"),
}
EVERYWHERE = ("fedavg", "fedprox", "fedavgm", "fedadam", "adjusted")  # at every skew


@dataclass(frozen=True, eq=False)
class Fleet:
    """Who has which pictures."""

    robots: Sequence[Windows]
    measured: Windows
    first: Weights
    seed: int

    def work(self, weights: Weights, version: int, setting: Setting) -> list[Update]:
        """Return what each robot answers in one round."""
        return [
            fit(own, weights, version, self.config(setting, version, robot))
            for robot, own in enumerate(self.robots)
        ]

    def corrected(
        self,
        controls: VirtualControls,
        start: Checkpoint,
        groups: Mapping[str, Weights],
        setting: Setting,
    ) -> list[Update]:
        """Return the same under SCAFFOLD, asked with the server's c and the tags that it holds."""
        made = []
        for robot, own in enumerate(self.robots):
            config = self.config(setting, start.version, robot)
            train = partial(fit, own, start.weights, start.version, config)
            made.append(controls.train(robot, groups, config, train))
        return made

    def config(self, setting: Setting, version: int, robot: int) -> TrainConfig:
        """Return how a robot trains in one round."""
        return TrainConfig(
            epochs=EPOCHS,
            batch_size=BATCH,
            learning_rate=setting.learning_rate,
            proximal_mu=setting.proximal_mu,
            logit_adjustment=setting.logit_adjustment,
            seed=(self.seed * 1000 + version) * 100 + robot,
        )


def fleet_of(train: Pictures, measured: Windows, skew: float, seed: int) -> Fleet:
    """Deal pictures to robots; a skew of 0 is one robot that has all: central training."""
    rng = np.random.default_rng([seed, 7])
    rows = deal(train.classes, ROBOTS, skew, rng) if skew else [np.arange(len(train))]
    robots = [windows_of(train.part(own)) for own in rows]
    return Fleet(robots, measured, first_weights(seed), seed)


def ours(fleet: Fleet, arm: Arm, setting: Setting, rounds: int) -> list[float]:
    """Return the accuracy after each round of our rule."""
    aggregator = build_aggregator(arm.rule, setting.options)
    state = [Checkpoint(version=0, weights=fleet.first)]
    controls = VirtualControls()

    def work(weights: Weights, version: int) -> Sequence[Update]:
        if arm.rule == "scaffold":
            return fleet.corrected(controls, state[0], aggregator.asks(state[0]).groups, setting)
        return fleet.work(weights, version, setting)

    def fold(_: int, updates: Sequence[Update]) -> Weights:
        state[0] = aggregator.fold(state[0], contributions_of(updates))
        return state[0].weights

    return _curve(fleet, rounds, work, fold)


def flower(fleet: Fleet, arm: Arm, setting: Setting, rounds: int) -> list[float]:
    """Return the accuracy after each round of Flower's strategy."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

    logging.getLogger("flwr").setLevel(logging.ERROR)  # else three lines a round
    strategy = arm.flower(setting)
    before = [fleet.first]

    def arrays(weights: Weights) -> Any:
        return ArrayRecord({name: Array(np.asarray(one)) for name, one in weights.items()})

    def reply(update: Update) -> Any:
        trained = {name: before[0][name] + one for name, one in update.weights.items()}
        metrics = MetricRecord({"num-examples": update.num_examples})
        content = RecordDict({"arrays": arrays(trained), "metrics": metrics})
        # A Message can only be made inside a task of its SuperLink; this is all that is read of it.
        return SimpleNamespace(content=content, has_error=lambda: False)

    def fold(version: int, updates: Sequence[Update]) -> Weights:
        # With fraction_train = 0 it asks nobody, and remembers what the round begins with.
        strategy.configure_train(version + 1, arrays(before[0]), ConfigRecord(), None)
        made, _ = strategy.aggregate_train(version + 1, [reply(one) for one in updates])
        before[0] = {
            name: np.asarray(made[name].numpy()).astype(np.float32).reshape(shape)
            for name, shape in SHAPES.items()
        }
        return before[0]

    return _curve(fleet, rounds, lambda *now: fleet.work(*now, setting), fold)


def _curve(
    fleet: Fleet,
    rounds: int,
    work: Callable[[Weights, int], Sequence[Update]],
    fold: Callable[[int, Sequence[Update]], Weights],
) -> list[float]:
    """Return accuracies; what is no longer finite names nothing rightly, and stays so."""
    weights, made = fleet.first, [0.0] * rounds
    for version in range(rounds):
        with np.errstate(over="ignore", invalid="ignore"):
            weights = fold(version, work(weights, version))
            made[version] = accuracy(weights, fleet.measured)
        if not np.isfinite(made[version]):
            made[version] = 0.0
            break
    return made


def contributions_of(updates: Sequence[Update]) -> UpdatesInMemory:
    """Return a round as rules see it."""
    return UpdatesInMemory(
        [
            (
                Contribution(
                    robot=f"r{robot:02}",
                    site="",
                    examples=one.num_examples,
                    norm=l2_norm(one.weights),
                    steps=one.num_steps,
                ),
                one,
            )
            for robot, one in enumerate(updates)
        ]
    )
