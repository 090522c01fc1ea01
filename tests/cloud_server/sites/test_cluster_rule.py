"""Clusters of robots inside a site, by hand: tensors of two numbers, robots that pull apart."""

from dataclasses import replace

import numpy as np
import pytest

from cloud_server.aggregation.aggregator import build_aggregator, next_checkpoint
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.sites import cluster_rule
from cloud_server.sites.robot_clusters import PREFIX, robot_clusters
from cloud_server.sites.site_models import site_models
from cloud_server.sites.site_rule import SiteRule
from cloud_server.state.learning_settings import SiteSettings
from fleet_model.errors import CheckpointError, RoundError
from fleet_model.types import Checkpoint, Update

pytestmark = pytest.mark.base
START = Checkpoint(version=3, weights={"w": np.array([1.0, 0.0], np.float32)}, seed=5)
FIRST = {"r1": [10, 0], "r2": [12, 0], "r3": [0, 10], "r4": [0, 12]}


def rule(of=None, most=2, mixing=0.0, fleet=0.0):
    settings = SiteSettings(
        enabled=True, num_clusters=most, cluster_mixing=mixing, global_mix=fleet
    )
    return SiteRule(of or FedAvg(), settings)


def replies(changes, site="hall", examples=1):
    """Return contributions of one site: robot -> change of w."""
    pairs = []
    for robot, change in changes.items():
        weights = {"w": np.array(change, np.float32)}
        norm = float(np.linalg.norm(change))
        one = Contribution(robot=robot, site=site, examples=examples, norm=norm)
        update = Update(
            robot=robot, base_version=3, weights=weights, num_examples=examples, num_steps=1
        )
        pairs.append((one, update))
    return UpdatesInMemory(pairs)


def clusters(checkpoint, site="hall"):
    return site_models(checkpoint).clusters_of_robots()[site]


def starts(checkpoint, site="hall"):
    """Return the site's model, and what each cluster's robots start from."""
    own = site_models(checkpoint).starts()[site]
    return own["w"].tolist(), [one["w"].tolist() for one in clusters(checkpoint).starts(own)]


def robots(checkpoint):
    return [sorted(one.robots) for one in clusters(checkpoint).clusters]


def test_robots_that_pull_apart_get_models_of_their_own_and_the_site_their_mean():
    made = rule(mixing=0.5).fold(START, replies(FIRST))

    assert robots(made) == [["r1", "r2"], ["r3", "r4"]]
    # by themselves (12, 0) and (1, 11), the site between them; each moves half of the way to it
    assert starts(made) == ([6.5, 5.5], [[9.25, 2.75], [3.75, 8.25]])
    assert made.weights["w"].tolist() == [6.5, 5.5]


def test_clusters_count_by_their_examples_and_move_with_their_site_towards_the_fleet():
    one = replies({"r1": [10, 0], "r2": [12, 0]}, examples=3)
    other = replies({"r3": [0, 10], "r4": [0, 12]})
    far = replies({"x1": [-7, 0]}, "yard", examples=8)
    all_of = UpdatesInMemory([(c, some.update(c)) for some in (one, other, far) for c in some])

    made = rule(fleet=0.25).fold(START, all_of)

    # hall: 3/4 of (12, 0) and 1/4 of (1, 11) = (9.25, 2.75); yard (-6, 0); the fleet in between
    assert made.weights["w"].tolist() == [1.625, 1.375]
    site = [0.75 * 9.25 + 0.25 * 1.625, 0.75 * 2.75 + 0.25 * 1.375]
    apart = [[0.75 * 2.75, 0.75 * -2.75], [0.75 * -8.25, 0.75 * 8.25]]
    assert starts(made) == (site, [[site[0] + x, site[1] + y] for x, y in apart])


def test_a_robot_that_is_led_elsewhere_changes_its_cluster_and_counts_where_it_got_to():
    first = rule().fold(START, replies(FIRST))
    assert starts(first)[1] == [[12, 0], [1, 11]]

    second = rule().fold(
        first, replies({"r1": [1, 0], "r2": [-11, 11], "r3": [0, 2], "r4": [0, 0]})
    )

    assert robots(second) == [["r1"], ["r2", "r3", "r4"]]
    np.testing.assert_allclose(starts(second)[1], [[13, 0], [1, 35 / 3]], rtol=1e-6)
    np.testing.assert_allclose(starts(second)[0], [4, 8.75], rtol=1e-6)


class Told:
    """A rule that says what it was given."""

    def __init__(self):
        self.seen = {}

    def fold(self, checkpoint, contributions):
        for one in contributions:
            whole = contributions.update(one).weights["w"]
            assert contributions.tensor(one, "w").tolist() == whole.tolist()
            assert contributions.numbers(one, "w", 1, 2).tolist() == whole[1:].tolist()
            self.seen[one.robot] = (checkpoint.weights["w"].tolist(), whole.tolist(), one.norm)
        return next_checkpoint(checkpoint, {"w": np.zeros(2, np.float32)})


def test_the_rule_sees_such_a_robot_s_update_from_where_its_new_cluster_starts():
    first = rule().fold(START, replies(FIRST))
    told = Told()

    rule(told).fold(first, replies({"r1": [1, 0], "r2": [-11, 14], "r3": [0, 2], "r4": [0, 0]}))

    # from (12, 0) by (-11, 14) is (1, 14), which is (0, 3) from the other cluster's start
    assert told.seen == {
        "r1": ([12, 0], [1, 0], 1.0),
        "r2": ([1, 11], [0, 3], 3.0),
        "r3": ([1, 11], [0, 2], 2.0),
        "r4": ([1, 11], [0, 0], 0.0),
    }


def test_where_few_reply_clusters_stay_and_a_new_robot_joins_the_one_it_points_to():
    first = rule().fold(START, replies(FIRST))

    second = rule().fold(first, replies({"r1": [1, 0], "new": [-1, 2]}))

    assert robots(second) == [["r1", "r2"], ["new", "r3", "r4"]]
    # new: from the site (6.5, 5.5) to (5.5, 7.5), seen from (1, 11)
    assert starts(second)[1] == [[13, 0], [5.5, 7.5]]
    assert clusters(second).found.too_few


def test_a_cluster_whose_robots_are_all_silent_keeps_its_model():
    first = rule().fold(START, replies(FIRST))

    told = {"r1": [1, 0], "r2": [2, 0], "r5": [7, -5.5], "r6": [8, -5.5]}
    second = rule().fold(first, replies(told))

    assert robots(second) == [["r1", "r2", "r5", "r6"], ["r3", "r4"]]
    assert starts(second)[1] == [[13.75, 0], [1, 11]]
    # the site's mean goes by the examples of each cluster's newest round: 4 and 2
    np.testing.assert_allclose(starts(second)[0], [9.5, 11 / 3], rtol=1e-6)


def test_too_few_robots_are_one_cluster_to_the_last_bit_and_it_is_told():
    three = {name: FIRST[name] for name in ("r1", "r2", "r3")}
    plain, mine = START, START
    for _ in range(2):
        plain = rule(build_aggregator("fedadam", {}), most=1).fold(plain, replies(three))
        mine = rule(build_aggregator("fedadam", {})).fold(mine, replies(three))

    assert mine.weights["w"].tobytes() == plain.weights["w"].tobytes()
    assert robots(mine) == []
    assert (clusters(mine).found.too_few, clusters(mine).found.replied) == (True, 3)


def test_robots_that_learn_alike_are_one_cluster():
    wide = replace(START, weights={"w": np.zeros(64, np.float32)})  # in the plane chance has groups
    rng = np.random.default_rng(1)

    made = rule(most=5).fold(wide, replies({f"r{n}": rng.normal(size=64) for n in range(12)}))

    assert robots(made) == []
    assert not clusters(made).found.too_few
    assert set(clusters(made).found.silhouette) == {2, 3, 4, 5}


def three_pairs():
    corners = [(0, 0), (60, 0), (30, 52)]
    return {f"r{n}": [corners[n // 2][0] + n % 2, corners[n // 2][1]] for n in range(6)}


def test_there_are_no_more_clusters_than_two_robots_each_make_nor_than_are_asked_for():
    six = three_pairs()
    assert len(robots(rule(most=5).fold(START, replies(six)))) == 3
    assert len(robots(rule(most=2).fold(START, replies(six)))) == 2
    five = {name: six[name] for name in list(six)[:5]}
    assert len(robots(rule(most=5).fold(START, replies(five)))) == 2


def test_what_the_rule_remembers_is_each_cluster_s_own():
    momentum = build_aggregator("fedavgm", {"momentum": 0.5, "learning_rate": 1.0})
    first = rule(momentum).fold(START, replies(FIRST))

    still = rule(momentum).fold(first, replies({robot: [0, 0] for robot in FIRST}))

    # half of what each has moved before: (11, 0) and (0, 11)
    assert starts(first)[1] == [[12, 0], [1, 11]]
    assert starts(still)[1] == [[17.5, 0], [1, 16.5]]


def test_a_cluster_too_small_for_the_rule_keeps_its_model_and_is_told():
    trimmed = build_aggregator("trimmed_mean", {})
    many = {f"a{n}": [10, 0] for n in range(5)} | {"b1": [0, 10], "b2": [0, 12]}

    made = rule(trimmed).fold(START, replies(many))

    assert starts(made)[1] == [[11, 0], [1, 0]]
    assert "2 robots answered, and of them a trimmed mean" in clusters(made).clusters[1].left_out
    few = {"a1": [10, 0], "a2": [10, 0], "b1": [0, 10], "b2": [0, 12]}
    with pytest.raises(
        RoundError, match=r"no site's replies give a model \(site hall: 2 robots answered"
    ):
        rule(trimmed).fold(START, replies(few))


def test_with_one_cluster_or_fewer_than_there_are_the_robots_begin_anew():
    six = three_pairs()
    first = rule(most=3).fold(START, replies(six))

    off = rule(most=1).fold(first, replies(six))
    fewer = rule(most=2).fold(first, replies({"r0": [1, 0]}))

    assert not any(PREFIX in name for name in off.server_state)
    assert robots(fewer) == []
    # from the site's model, as every robot without a cluster
    assert starts(fewer)[0] == (site_models(first).starts()["hall"]["w"] + [1, 0]).tolist()


def test_a_robot_that_is_silent_for_long_begins_anew(monkeypatch):
    monkeypatch.setattr(cluster_rule, "FORGET_AFTER", 1)
    made = rule().fold(START, replies(FIRST))

    for _ in range(3):
        made = rule().fold(made, replies({"r1": [0, 0], "r2": [0, 0], "r3": [0, 0]}))

    assert robots(made) == [["r1", "r2"], ["r3"]]


def test_damaged_state_is_named_and_that_of_other_tensors_begins_anew():
    made = rule().fold(START, replies(FIRST))
    state = site_models(made).rule_states["hall"]
    damaged = {**state, f"{PREFIX}about": np.frombuffer(b"{]", np.uint8)}

    with pytest.raises(CheckpointError, match="clusters of robots cannot be read"):
        robot_clusters(damaged, START.weights)
    assert robot_clusters(state, {"w": np.zeros(3, np.float32)}).clusters == ()
    assert site_models(replace(made, weights={"v": START.weights["w"]})).entries == ()
