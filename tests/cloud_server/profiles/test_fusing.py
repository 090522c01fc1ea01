"""One profile of many, by value."""

import numpy as np
import pytest

from cloud_server.profiles.fusing import compare, fuse, similarity
from cloud_server.state.learning_settings import CheckSettings
from fleet_model.profiles.profile import Group, SourceProfile

CHECKS = CheckSettings(max_examples_ratio=0)


def group(records, *mean):
    return Group(records=records, mean=np.float32(mean))


def source(records, *mean, **parts):
    return SourceProfile(whole=group(records, *mean), **parts)


ROBOTS = {
    "a": {"board": source(40, 1, 0, terms={"arms": 30, "legs": 20}, labels={"pick": 20})},
    "b": {
        "board": source(
            120, 0, 1, terms={"arms": 60}, topics={"grip": group(30, 4, 0)}, labels={"pick": 100}
        ),
        "field": source(40, 2, 2, topics={"grip": group(20, 0, 1), "walk": group(20, 1, 1)}),
    },
}


def test_counts_add_up_and_means_weigh_as_many_as_they_are_of():
    fused = fuse(ROBOTS, CHECKS)
    board = fused.sources["board"]
    assert list(fused.sources) == ["board", "field"]
    assert board.whole.records == 160
    assert board.whole.mean.tolist() == [0.25, 0.75]
    assert (board.terms, board.labels) == ({"arms": 90, "legs": 20}, {"pick": 120})
    assert fused.robots == {"board": ["a", "b"], "field": ["b"]}
    general = fused.general
    assert general.whole.records == 200
    np.testing.assert_allclose(general.whole.mean, [0.6, 1.0], rtol=1e-6)
    assert {t: g.records for t, g in general.topics.items()} == {"grip": 50, "walk": 20}
    np.testing.assert_allclose(general.topics["grip"].mean, [2.4, 0.4], rtol=1e-6)


def test_a_claim_gives_no_robot_more_than_its_share():
    loud = {"board": source(10_000, 9, 9, terms={"spam": 10_000})}
    told = {**{f"r{n}": {"board": source(100, 1, 1)} for n in range(3)}, "loud": loud}
    fused = fuse(told, CheckSettings(max_examples_ratio=2))
    assert fused.general.whole.records == 10_300
    np.testing.assert_allclose(fused.general.whole.mean, [4.2, 4.2], rtol=1e-6)
    assert fused.general.terms == {"spam": 10_000}


def test_means_of_another_width_are_left_out():
    told = {**ROBOTS, "odd": {"board": source(400, 1, 2, 3)}, "c": ROBOTS["a"]}
    fused = fuse(told, CHECKS)
    assert fused.left_out == ["odd"]
    assert fused.general.whole.records == 240


def test_two_sources_are_compared():
    one = source(100, 1, 1, terms={"arms": 50, "legs": 30}, topics={"grip": group(20, 1, 0)})
    other = source(50, 1, -1, terms={"legs": 40, "arms": 25}, topics={"grip": group(20, -2, 0)})
    found = compare(one, other)
    assert found.similarity == pytest.approx(0)
    assert found.topics == {"grip": pytest.approx(-1)}
    assert (found.first, found.second) == ({}, {"legs": pytest.approx(0.5)})
    assert compare(other, one).first == {"legs": pytest.approx(0.5)}
    assert similarity(group(20, 3, 4), group(20, 6, 8)) == pytest.approx(1)
    assert similarity(group(20, 0, 0), group(20, 6, 8)) == 0
