"""The rules beside those of the flwr that is installed, on the same updates.

Where the two differ on purpose, the test says so: flwr counts FedAdam's rounds from 1 more (flwr
1.41 to 1.43, serverapp/strategy/fedadam.py), averages Multi-Krum by examples, and trims nothing of
less than 1 / share robots.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from cloud_server.aggregation.aggregator import build_aggregator
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from fleet_model.types import Checkpoint, Update

flwr_app = pytest.importorskip("flwr.app")
strategies = pytest.importorskip("flwr.serverapp.strategy")
pytestmark = pytest.mark.flower
SHAPES = {"head/kernel": (40, 7), "head/bias": (7,), "block/scale": ()}
ROUNDS, ROBOTS = 4, 11


def rounds(robots=ROBOTS, *, equal=False):
    """Yield (updates, examples) of each round."""
    rng = np.random.default_rng(5)
    for _ in range(ROUNDS):
        lean = {name: rng.normal(0, 0.1, shape) for name, shape in SHAPES.items()}
        updates = [
            {name: np.float32(lean[name] + rng.normal(0, 0.05, s)) for name, s in SHAPES.items()}
            for _ in range(robots)
        ]
        yield updates, [10 if equal else int(n) for n in rng.integers(5, 400, robots)]


def beginning():
    rng = np.random.default_rng(1)
    weights = {name: np.float32(rng.normal(0, 0.3, shape)) for name, shape in SHAPES.items()}
    return Checkpoint(version=0, weights=weights)


def ours(name, options, given):
    rule, checkpoint = build_aggregator(name, options), beginning()
    for updates, examples in given:
        pairs = [
            (
                Contribution(robot=f"r{n:02}", site="", examples=examples[n]),
                Update(
                    robot="", base_version=0, weights=one, num_examples=examples[n], num_steps=1
                ),
            )
            for n, one in enumerate(updates)
        ]
        checkpoint = rule.fold(checkpoint, UpdatesInMemory(pairs))
        yield checkpoint.weights


def flowers(strategy, given, first_round=1):
    """Yield the weights after each round, as a ServerApp would have them."""
    weights = beginning().weights
    for server_round, (updates, examples) in enumerate(given, start=first_round):
        # With fraction_train = 0 it asks nobody, and remembers what the round begins with.
        strategy.configure_train(server_round, as_arrays(weights), flwr_app.ConfigRecord(), None)
        replies = [  # a Message of flwr's own can be made only inside of its SuperLink's tasks
            SimpleNamespace(content=reply(weights, one, n), has_error=lambda: False)
            for one, n in zip(updates, examples, strict=True)
        ]
        made, _ = strategy.aggregate_train(server_round, replies)
        weights = {
            name: np.asarray(array.numpy()).astype(np.float32).reshape(SHAPES[name])
            for name, array in made.items()
        }
        yield weights


def as_arrays(weights):
    return flwr_app.ArrayRecord(
        {name: flwr_app.Array(np.asarray(w)) for name, w in weights.items()}
    )


def reply(weights, update, examples):
    trained = {name: np.asarray(weights[name] + update[name]) for name in weights}
    record = flwr_app.RecordDict()
    record["arrays"] = as_arrays(trained)
    record["metrics"] = flwr_app.MetricRecord({"num-examples": examples})
    return record


def compare(name, options, strategy, *, equal=False, first_round=1, most=1e-6):
    both = zip(
        ours(name, options, rounds(equal=equal)),
        flowers(strategy, rounds(equal=equal), first_round),
        strict=True,
    )
    for number, (mine, theirs) in enumerate(both, start=1):
        assert mine.keys() == theirs.keys()
        for tensor in SHAPES:
            np.testing.assert_allclose(
                mine[tensor], theirs[tensor], rtol=0, atol=most, err_msg=f"{tensor}, {number}"
            )
    assert number == ROUNDS


def test_fedavg():
    compare("fedavg", {}, strategies.FedAvg(fraction_train=0))


def test_fedavgm():
    strategy = strategies.FedAvgM(fraction_train=0, server_learning_rate=0.7, server_momentum=0.6)
    compare("fedavgm", {"learning_rate": 0.7, "momentum": 0.6}, strategy)


@pytest.mark.parametrize(
    ("name", "strategy", "first_round", "betas"),
    [
        # flwr's first round has the correction of the second: told that it is round 0, it agrees.
        ("fedadam", "FedAdam", 0, {"beta_1": 0.8, "beta_2": 0.95}),
        ("fedyogi", "FedYogi", 1, {"beta_1": 0.8, "beta_2": 0.95}),
        ("fedadagrad", "FedAdagrad", 1, {}),
    ],
)
def test_adaptive_steps(name, strategy, first_round, betas):
    made = getattr(strategies, strategy)(fraction_train=0, eta=0.03, tau=1e-3, **betas)
    options = {"learning_rate": 0.03, "tau": 1e-3, "beta_1": 0.0, **betas}

    compare(name, options, made, first_round=first_round)


def test_median():
    compare("median", {}, strategies.FedMedian(fraction_train=0))


def test_trimmed_mean():
    compare("trimmed_mean", {"share": 0.2}, strategies.FedTrimmedAvg(fraction_train=0, beta=0.2))


def separated(robots=ROBOTS, hostile=2):
    """Return one round whose honest updates differ clearly, and whose others are far away."""
    rng = np.random.default_rng(7)
    updates = [
        {name: np.float32(rng.normal(0, 0.02 * (1 + n), s)) for name, s in SHAPES.items()}
        for n in range(robots)
    ]
    for one in updates[-hostile:]:
        for name in one:
            one[name] = np.float32(one[name] + 5)
    return [(updates, [10] * robots)]


@pytest.mark.parametrize(
    ("name", "options", "strategy", "theirs"),
    [
        ("krum", {"hostile": 2}, "Krum", {"num_malicious_nodes": 2}),
        (
            "multi_krum",
            {"hostile": 2, "keep": 4},
            "MultiKrum",
            {"num_malicious_nodes": 2, "num_nodes_to_select": 4},
        ),
    ],
)
def test_krum_on_updates_that_are_well_apart(name, options, strategy, theirs):
    made = getattr(strategies, strategy)(fraction_train=0, **theirs)

    (mine,), (flower,) = ours(name, options, separated()), flowers(made, separated())

    for tensor in SHAPES:
        np.testing.assert_allclose(mine[tensor], flower[tensor], rtol=0, atol=1e-6)
