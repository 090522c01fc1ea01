"""The parts of benchmarks/sites.py that can be wrong without anyone noticing."""

import numpy as np
import pytest

from benchmarks import site_arms, site_fleet, sites
from benchmarks.site_arms import (
    ADAPTER,
    BIAS,
    CLASSES,
    KERNEL,
    WIDTH,
    A,
    B,
    accuracy,
    adapt,
    by_site,
    gradient_of,
    learn_adapters,
    learn_heads,
)
from benchmarks.site_fleet import SITES, TRUTH, world
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.sites.clusters import adjusted_rand
from fleet_model.adapters.lora import first_factors


@pytest.fixture
def fleet(monkeypatch, tmp_path):
    """Return a maker of worlds in which each class has a direction of its own; dim halves it."""

    def features(server, folder, name, *, dim):
        rng = np.random.default_rng([*name.encode(), int(dim)])
        classes = rng.permutation(np.arange(80) % CLASSES)
        clear = np.eye(WIDTH, dtype=np.float32)[classes * 7] * (4 if dim else 8)
        noise = rng.normal(0, 0.2, clear.shape).astype(np.float32)
        held_out = np.arange(80) % 4 == 0
        return {"features": clear + noise, "classes": classes, "held_out": held_out}

    monkeypatch.setattr(site_fleet, "_features", features)
    monkeypatch.setattr(site_fleet, "_record", lambda *_: None)
    return lambda kind: world(tmp_path, kind, 1, 80)


def test_worlds_have_three_robots_at_each_site_and_swap_labels_or_light_at_two(fleet):
    swapped, look, one = fleet("swapped"), fleet("look"), fleet("one")

    for robots in (swapped, look, one):
        assert [robot.site for robot in robots] == [site for site in SITES for _ in range(3)]
    for plain, other in zip(look, swapped, strict=True):
        same = plain.site in SITES[:2]
        assert same == np.array_equal(plain.train.classes, other.train.classes)
        assert same == np.array_equal(plain.held_out.features, other.held_out.features)
    assert {robot.name.partition("/")[0] for robot in one} == {"hall-1"}
    assert len({robot.name for robot in one}) == 12
    robot = swapped[-1]
    assert (robot.train.features[:, 0] > 4).tolist() == (robot.train.classes == 1).tolist()
    assert (robot.train.features[:, 14] > 4).tolist() == (robot.train.classes == 2).tolist()


def test_heads_and_class_means_find_the_swapped_sites_and_the_adapter_s_a_does_not(
    fleet, monkeypatch
):
    robots = fleet("swapped")

    heads, plain = learn_heads(robots, by_site("head/*")), learn_heads(robots, FedAvg())
    monkeypatch.setattr(site_arms, "EXCHANGES", 1)  # each takes seconds
    adapters, own = learn_adapters(robots)

    assert [adjusted_rand(found, TRUTH) for found in heads.clusters] == [1.0] * 5
    means = sites.find_clusters(sites.class_means(robots))
    assert adjusted_rand(means.labels, TRUTH) == 1
    assert adapters.clusters[-1].tolist() == [0, 0, 0, 0]
    assert set(adapters.checkpoint.weights) == {A}
    assert set(own["hall-1/r1"]) == {B, KERNEL, BIAS}
    for robot in robots:
        assert accuracy(robot, heads.of(robot.site)) == 1
    assert np.mean([accuracy(robot, plain.checkpoint.weights) for robot in robots]) < 0.9


def test_the_adapter_s_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    sizes = {A: (WIDTH, 8), B: (8, WIDTH), KERNEL: (WIDTH, CLASSES), BIAS: (CLASSES,)}
    weights = {name: rng.normal(0, 0.05, size) for name, size in sizes.items()}
    x, truth = rng.normal(size=(5, WIDTH)), np.eye(CLASSES)[[0, 1, 2, 1, 1]]

    def loss(weights):
        logits = adapt(x, weights) @ weights[KERNEL] + weights[BIAS]
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return -np.log((chances * truth).sum(1)).mean()

    found = gradient_of(x, truth, weights)

    assert set(found) == set(weights)
    for name, slope in found.items():
        way = rng.normal(size=slope.shape) + slope / np.abs(slope).mean()
        near = [{**weights, name: weights[name] + d * way} for d in (1e-4, -1e-4)]
        expected = (loss(near[0]) - loss(near[1])) / 2e-4
        assert (slope * way).sum() == pytest.approx(expected, rel=1e-2), name


def test_an_adapter_begins_as_nothing():
    x = np.random.default_rng(0).normal(size=(4, WIDTH)).astype(np.float32)

    assert np.array_equal(adapt(x, first_factors(ADAPTER)), x)


def test_a_class_that_a_site_lacks_has_the_mean_of_its_others(fleet):
    robots = fleet("look")
    means = sites.class_means(robots)

    assert means.shape == (4, CLASSES * WIDTH)
    assert means[0].reshape(CLASSES, WIDTH)[2, 14] == pytest.approx(6, abs=0.3)  # 8 - 8 / 4


def test_figures_are_least_and_mean_values_over_seeds():
    names = [
        "ari", "ari_first", "ari_means", "ari_a", "ari_look", "sites_look", "fedavg_look",
        "sites_one", "fedavg_one",
        *(f"{arm}_{kind}" for arm in sites.ARMS for kind in ("mean", "worst")),
    ]  # fmt: skip
    found = {name: [0.5, 1.0] for name in names} | {"clusters_one": [1.0, 2.0]}
    found |= {"fedsa_mean": [0.9, 0.8], "fedavg_mean": [0.7, 0.7]}

    made = sites.result(found, {"cluster_s_1000": 0.5})

    assert made.figures["ari_min"] == 0.5
    assert made.figures["ari_a"] == 0.75
    assert made.figures["one_cluster_share"] == 0.5
    assert made.figures["personal_mean"] == pytest.approx(0.85)
    assert made.comparisons[0].ratio == pytest.approx(2)
