"""How the robots of a world learn: one model, a model for each site, and personal tensors.

    fedavg   one head for all
    sites    a head for each site: cloud_server/sites around FedAvg
    shares   the same heads; a robot adds the logarithm of its own label shares to the logits
    fedsa    FedSA-LoRA (arXiv:2410.01463) in sites: an adapter of rank 8 on the features
             (fleet_model/adapters), of which A is shared as a model for each site; B and the
             classifier stay on the robot

Robots take the steps of the agent's optimizer on features of the demo's trunk.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.site_fleet import SITES, Labeled, SiteRobot
from cloud_server.aggregation.aggregator import Aggregator
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.simulation.learning import BIAS, KERNEL, WIDTH, Examples, descend
from cloud_server.sites.site_models import site_models
from cloud_server.sites.site_rule import SiteRule
from cloud_server.state.learning_settings import SiteSettings
from fleet_model.adapters.lora import factor_gradients, first_factors, merged
from fleet_model.adapters.spec import LoraSpec
from fleet_model.optimizer import step, still
from fleet_model.types import Checkpoint, TrainConfig, Update, Weights
from fleet_model.weights import difference

CLASSES, EXCHANGES = 4, 5
# A dense layer on the features that begins as the identity; its factors have the names A and B.
LAYER = "adapter/kernel"
ADAPTER = LoraSpec(rank=8, alpha=16, targets={LAYER: (WIDTH, WIDTH)})
IDENTITY = {LAYER: np.eye(WIDTH, dtype=np.float32)}
A, B = ADAPTER.factors
CONFIG = TrainConfig(logit_adjustment=1.0)  # what `init` writes for this trunk
Work = Callable[[SiteRobot, Checkpoint], Weights]  # what a robot has, from what it was sent


@dataclass(frozen=True, eq=False)
class Course:
    """What an arm has learned, and the clusters of every exchange."""

    checkpoint: Checkpoint
    clusters: Sequence[NDArray[np.int64]]  # (sites,) an exchange; zeros without sites

    def of(self, site: str) -> Weights:
        """Return what robots of a site start from."""
        return site_models(self.checkpoint).starts().get(site, self.checkpoint.weights)


def learn_heads(robots: Sequence[SiteRobot], rule: Aggregator) -> Course:
    """Let robots train heads from zeros."""
    head = {KERNEL: np.zeros((WIDTH, CLASSES), np.float32), BIAS: np.zeros(CLASSES, np.float32)}
    return _course(robots, rule, head, _train_head)


def by_site(on: str) -> Aggregator:
    """Return the product's rule for sites, with its default settings."""
    return SiteRule(FedAvg(), SiteSettings(enabled=True, on=on))


def learn_adapters(robots: Sequence[SiteRobot]) -> tuple[Course, Mapping[str, Weights]]:
    """Let robots train adapters; return what is shared, and robot -> its own tensors."""
    first = first_factors(ADAPTER)
    zeros = {
        B: first[B],
        KERNEL: np.zeros((WIDTH, CLASSES), np.float32),
        BIAS: np.zeros(CLASSES, np.float32),
    }
    own: dict[str, Weights] = {robot.name: zeros for robot in robots}

    def work(robot: SiteRobot, start: Checkpoint) -> Weights:
        both = train_adapter(robot.train, {**start.weights, **own[robot.name]}, _seed(robot, start))
        own[robot.name] = {name: both[name] for name in zeros}
        return {A: both[A]}

    return _course(robots, by_site(A), {A: first[A]}, work), own


def accuracy(robot: SiteRobot, head: Weights, *, shares: bool = False) -> float:
    """Return the share of a robot's own held-out frames that are named as people there do."""
    logits: NDArray[Any] = robot.held_out.features @ head[KERNEL] + head[BIAS]
    if shares:
        counts = np.bincount(robot.train.classes, minlength=CLASSES)
        logits = logits + np.log((counts + 0.5) / (counts + 0.5).sum())
    return float((logits.argmax(1) == robot.held_out.classes).mean())


def accuracy_with_adapter(robot: SiteRobot, weights: Weights) -> float:
    """Return the same of a robot's own classifier behind its adapter."""
    adapted = adapt(robot.held_out.features, weights)
    return accuracy(replace(robot, held_out=replace(robot.held_out, features=adapted)), weights)


def adapt(features: NDArray[Any], weights: Weights) -> NDArray[Any]:
    """Return features (n, WIDTH) behind the adapter."""
    return np.asarray(features @ _layer(weights))


def _layer(weights: Weights) -> NDArray[Any]:
    return merged(ADAPTER, {name: weights[name] for name in (A, B)}, IDENTITY)[LAYER]


def train_adapter(own: Labeled, start: Weights, seed: int) -> Weights:
    """Train A, B, kernel and bias together, with the optimizer of the agent."""
    rng, truth = np.random.default_rng(seed), np.eye(CLASSES, dtype=np.float32)[own.classes]
    weights, velocity = start, still(start)
    for _ in range(CONFIG.epochs):
        order = rng.permutation(len(truth))
        for begin in range(0, len(order), CONFIG.batch_size):
            rows = order[begin : begin + CONFIG.batch_size]
            gradient = gradient_of(own.features[rows], truth[rows], weights)
            weights, velocity = step(weights, velocity, gradient, start, CONFIG)
    return weights


def gradient_of(x: NDArray[Any], truth: NDArray[Any], weights: Weights) -> Weights:
    """Return the gradient of the mean cross-entropy of a batch: (n, WIDTH) and (n, CLASSES)."""
    adapted = adapt(x, weights)
    logits = adapted @ weights[KERNEL] + weights[BIAS]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    wrong = (powers / powers.sum(axis=1, keepdims=True) - truth) / np.float32(len(x))
    slopes = {
        LAYER: x.T @ (wrong @ weights[KERNEL].T),
        KERNEL: adapted.T @ wrong,
        BIAS: wrong.sum(axis=0),
    }
    return factor_gradients(ADAPTER, weights, slopes)


def _course(robots: Sequence[SiteRobot], rule: Aggregator, first: Weights, work: Work) -> Course:
    checkpoint, clusters = Checkpoint(version=0, weights=first), []
    for _ in range(EXCHANGES):
        starts = site_models(checkpoint).starts()
        pairs = []
        for robot in robots:
            weights = starts.get(robot.site, checkpoint.weights)
            made = difference(work(robot, replace(checkpoint, weights=weights)), weights)
            examples = len(robot.train.classes)
            update = Update(
                robot=robot.name, base_version=checkpoint.version, weights=made,
                num_examples=examples, num_steps=1,
            )  # fmt: skip
            one = Contribution(robot=robot.name, site=robot.site, examples=examples)
            pairs.append((one, update))
        checkpoint = rule.fold(checkpoint, UpdatesInMemory(pairs))
        found = {entry.name: entry.cluster for entry in site_models(checkpoint).entries}
        clusters.append(np.array([found.get(site, 0) for site in SITES]))
    return Course(checkpoint, clusters)


def _train_head(robot: SiteRobot, start: Checkpoint) -> Weights:
    kernel, bias, _ = descend(
        Examples(robot.train.features, robot.train.classes),
        start.weights[KERNEL],
        start.weights[BIAS],
        CONFIG,
        np.random.default_rng(_seed(robot, start)),
    )
    return {KERNEL: kernel, BIAS: bias}


def _seed(robot: SiteRobot, start: Checkpoint) -> int:
    """Return the seed of the shuffles; mixed as the agent does it."""
    return start.version ^ zlib.crc32(robot.name.encode())
