"""A model for each site, by hand: tensors of one number, groups that pull against each other."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from cloud_server.aggregation.aggregator import build_aggregator, has
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.sites import site_rule
from cloud_server.sites.site_models import PREFIX, site_models, without_sites
from cloud_server.sites.site_rule import SiteRule
from cloud_server.state.learning_settings import SiteSettings
from fleet_model.errors import CheckpointError, RoundError
from fleet_model.types import Checkpoint, Update

pytestmark = pytest.mark.base
START = Checkpoint(version=3, weights={"w": np.array([1.0, 0.0], np.float32)}, seed=5)


def sites(**changes):
    return SiteSettings(enabled=True, **changes)


def replies(*told, staleness=0):
    """Return contributions: (robot, site, examples, change of w)."""
    pairs = []
    for robot, site, examples, change in told:
        weights = {"w": np.array(change, np.float32)}
        one = Contribution(robot=robot, site=site, examples=examples, staleness=staleness)
        update = Update(
            robot=robot, base_version=3, weights=weights, num_examples=examples, num_steps=1
        )
        pairs.append((one, update))
    return UpdatesInMemory(pairs)


def weights_of(checkpoint):
    return {
        site: weights["w"].tolist() for site, weights in site_models(checkpoint).starts().items()
    }


def clusters_of(checkpoint):
    return {entry.name: entry.cluster for entry in site_models(checkpoint).entries}


def test_each_site_s_robots_are_folded_by_themselves_and_the_fleet_gets_the_mean():
    rule = SiteRule(FedAvg(), sites(cluster_mixing=0, global_mix=0))

    made = rule.fold(
        START, replies(("a1", "a", 1, [1, 0]), ("a2", "a", 3, [5, 0]), ("b1", "b", 4, [0, 8]))
    )

    # a: 1 + (1 + 15) / 4; b: as sent; the fleet: half of each
    assert weights_of(made) == {"a": [5, 0], "b": [1, 8]}
    assert made.weights["w"].tolist() == [3, 4]
    assert (made.version, made.seed) == (4, 5)


def test_the_second_round_goes_on_from_each_site_s_own_model():
    rule = SiteRule(FedAvg(), sites(cluster_mixing=0, global_mix=0.5))
    told = replies(("a1", "a", 1, [4, 0]), ("b1", "b", 1, [0, 4]))

    second = rule.fold(first := rule.fold(START, told), told)

    assert weights_of(first) == {"a": [4, 1], "b": [2, 3]}
    # own: a (8, 1), b (2, 7); the fleet's mean is (5, 4)
    assert weights_of(second) == {"a": [6.5, 2.5], "b": [3.5, 5.5]}
    assert second.weights["w"].tolist() == [5, 4]


def test_sites_that_pull_the_same_way_are_one_cluster_and_draw_near_to_it():
    rule = SiteRule(FedAvg(), sites(cluster_mixing=0.5, global_mix=0))
    told = replies(
        ("r1", "a", 1, [10, 0]), ("r2", "b", 1, [0, 10]),
        ("r3", "c", 1, [12, 0]), ("r4", "d", 1, [0, 12]),
    )  # fmt: skip

    made = rule.fold(START, told)

    assert clusters_of(made) == {"a": 0, "b": 1, "c": 0, "d": 1}
    assert weights_of(made) == {"a": [11.5, 0], "b": [1, 10.5], "c": [12.5, 0], "d": [1, 11.5]}
    found = site_models(made).found
    assert found.similarity_of == ("a", "c", "b", "d")
    assert set(found.inertia) == {1, 2, 3, 4}
    assert found.silhouette[2] > 0.8


@pytest.mark.parametrize(
    ("rule", "options"), [("fedavg", {}), ("fedadam", {}), ("fedavgm", {}), ("median", {})]
)
def test_one_site_learns_to_the_last_bit_what_the_rule_makes_without_sites(rule, options):
    plain, by_site = (build_aggregator(rule, options) for _ in range(2))
    alone, mine = START, START
    for change in ([1.1, 0.3], [0.2, -0.7], [0.5, 0.25]):
        told = replies(("r1", "a", 7, change), ("r2", "a", 3, change), ("r3", "a", 2, [9, 1]))
        alone = plain.fold(alone, told)
        mine = SiteRule(by_site, sites()).fold(mine, told)

    assert mine.weights["w"].tobytes() == alone.weights["w"].tobytes()
    state = site_models(mine).rule_states.get("a", {})
    assert state.keys() == without_sites(alone).keys()
    for name, tensor in state.items():
        assert tensor.tobytes() == alone.server_state[name].tobytes()


def test_with_a_global_mix_of_1_all_sites_have_what_fedavg_makes():
    told = replies(("r1", "a", 7, [1, 2]), ("r2", "b", 3, [4, 0.5]), ("r3", "c", 2, [9, 1]))

    made = SiteRule(FedAvg(), sites(global_mix=1)).fold(START, told)

    expected = FedAvg().fold(START, told).weights["w"]
    for weights in (made.weights["w"], *map(np.array, weights_of(made).values())):
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_a_site_that_joins_late_gets_the_model_of_the_cluster_that_its_update_points_to():
    rule = SiteRule(FedAvg(), sites(cluster_mixing=0, global_mix=0))
    first = rule.fold(
        START,
        replies(
            ("r1", "a", 1, [10, 0]), ("r2", "b", 1, [0, 10]),
            ("r3", "c", 3, [14, 0]), ("r4", "d", 1, [0, 12]),
        ),
    )  # fmt: skip
    # the fleet's mean is (9.67, 3.67): a step along the second axis points to b and d
    second = rule.fold(first, replies(("r5", "new", 2, [-1.0, 1.5]), ("r1", "a", 1, [0, 0])))

    assert clusters_of(second)["new"] == clusters_of(second)["b"] == 1
    assert weights_of(second)["new"] == [1, 11]  # the mean of b and d, without its own update
    entries = {entry.name: entry.late for entry in site_models(second).entries}
    assert entries == {"a": False, "b": False, "c": False, "d": False, "new": True}
    third = rule.fold(second, replies(("r5", "new", 2, [0, 1.0])))
    assert weights_of(third)["new"] == [1, 12]
    assert not any(entry.late for entry in site_models(third).entries)


def test_a_site_without_a_reply_keeps_its_model_but_follows_its_cluster():
    rule = SiteRule(FedAvg(), sites(cluster_mixing=0.5, global_mix=0))
    first = rule.fold(START, replies(("r1", "a", 1, [2, 0]), ("r2", "b", 1, [4, 0])))

    second = rule.fold(first, replies(("r1", "a", 1, [8, 0])))

    assert weights_of(first) == {"a": [3.5, 0], "b": [4.5, 0]}
    assert weights_of(second) == {"a": [9.75, 0], "b": [6.25, 0]}  # from 11.5 and 4.5, mean 8
    assert [entry.version for entry in site_models(second).entries] == [5, 4]


def test_a_site_whose_replies_give_no_model_stays_as_it_is_and_is_told(caplog):
    rule = SiteRule(build_aggregator("trimmed_mean", {}), sites(cluster_mixing=0, global_mix=0))
    many = [(f"r{n}", "a", 1, [2, 0]) for n in range(5)]
    first = rule.fold(START, replies(*many))

    with caplog.at_level(logging.WARNING):
        second = rule.fold(first, replies(*many, ("s", "b", 1, [1, 1])))

    assert weights_of(second) == {"a": [5, 0]}
    assert "b" in site_models(second).found.left_out
    assert "their models stay as they are: site b: " in caplog.text
    with pytest.raises(RoundError, match=r"no site's replies give a model \(site b: "):
        rule.fold(first, replies(("s", "b", 1, [1, 1])))


def test_sites_are_compared_on_the_tensors_that_are_named():
    start = replace(START, weights={**START.weights, "head/bias": np.zeros(1, np.float32)})

    def told():
        pairs = []
        for n, (site, noise, bias) in enumerate(
            [("a", 50, 1), ("b", -50, 1), ("c", 50, -1), ("d", -50, -1)]
        ):
            weights = {"w": np.array([noise, 0], np.float32), "head/bias": np.float32([bias])}
            update = Update(
                robot=f"r{n}", base_version=3, weights=weights, num_examples=1, num_steps=1
            )
            pairs.append((Contribution(robot=f"r{n}", site=site, examples=1), update))
        return UpdatesInMemory(pairs)

    by_all = SiteRule(FedAvg(), sites()).fold(start, told())
    by_head = SiteRule(FedAvg(), sites(on="head/*")).fold(start, told())

    assert clusters_of(by_all) == {"a": 0, "b": 1, "c": 0, "d": 1}
    assert clusters_of(by_head) == {"a": 0, "b": 0, "c": 1, "d": 1}
    with pytest.raises(RoundError, match=r"sites.on is 'lora/\*', which names none of the trained"):
        SiteRule(FedAvg(), sites(on="lora/*")).fold(start, told())


def test_a_site_that_is_silent_for_long_begins_anew(monkeypatch, caplog):
    monkeypatch.setattr(site_rule, "FORGET_AFTER", 1)
    rule = SiteRule(FedAvg(), sites())
    made = rule.fold(START, replies(("r1", "a", 1, [2, 0]), ("r2", "b", 1, [4, 0])))

    with caplog.at_level(logging.INFO):
        for _ in range(2):
            made = rule.fold(made, replies(("r1", "a", 1, [1, 0])))

    assert set(weights_of(made)) == {"a"}
    assert site_models(made).found.forgotten == ("b",)
    assert "forgotten after 1 versions without a reply: b" in caplog.text


def test_other_state_of_the_server_stays_and_that_of_other_tensors_begins_anew():
    state = {"checks/norms": np.ones(2)}
    made = SiteRule(FedAvg(), sites()).fold(
        replace(START, server_state=state), replies(("r1", "a", 1, [2, 0]))
    )

    assert without_sites(made) == state
    other = replace(made, weights={"w": np.zeros(3, np.float32)})
    assert site_models(other).entries == ()


def test_damaged_state_is_named():
    state = {f"{PREFIX}about": np.frombuffer(b"{]", np.uint8)}

    with pytest.raises(CheckpointError, match="checkpoint 3: what it knows of sites cannot be"):
        site_models(replace(START, server_state=state))


@pytest.mark.parametrize(("rule", "takes"), [("fedavg", True), ("median", False)])
def test_a_relay_may_answer_for_a_building_where_the_rule_takes_means(rule, takes):
    assert has(SiteRule(build_aggregator(rule, {}), sites()), "takes_means") is takes
