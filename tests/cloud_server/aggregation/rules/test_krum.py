import numpy as np
import pytest

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.krum import Krum, MultiKrum, krum_scores
from fleet_model.errors import RoundError, SettingsError
from fleet_model.types import Checkpoint, Update

pytestmark = pytest.mark.base


def test_scores_are_sums_of_the_nearest():
    """Points 0, 1, 3, 6, 100 with f = 1: the two nearest others, squared.

    0: 1 + 9; 1: 1 + 4; 3: 4 + 9; 6: 9 + 25; 100: 94^2 + 97^2.
    """
    points = np.array([0.0, 1, 3, 6, 100])

    scores = krum_scores((points[:, None] - points) ** 2, hostile=1)

    np.testing.assert_array_equal(scores, [10, 5, 13, 34, 94**2 + 97**2])


def test_krum_takes_one_update_as_it_is(fold):
    """The scores above: the robot with 1 is chosen."""
    result = fold(Krum(), [(0, 0), (1, 0), (3, 0), (6, 0), (100, 0)])

    np.testing.assert_array_equal(result.weights["w"], [[11, 1]])


def test_multi_krum_averages_those_with_the_lowest_scores(fold):
    """1, 0 and 3 have them: 4 / 3; what a robot says of its examples does not weigh."""
    result = fold(
        MultiKrum(keep=3), [(0, 0), (1, 0), (3, 0), (6, 0), (100, 0)], examples=[9, 1, 1, 1, 1]
    )

    assert result.weights["w"][0, 0] == pytest.approx(10 + 4 / 3)


def test_it_keeps_as_many_as_the_paper_proves_something_for(fold):
    """Of 9 with f = 1: 4. Equal scores are taken by the names of robots."""
    changes = [(float(n), 0) for n in (5, 5, 5, 5, 6, 6, 6, 6, 99)]

    assert fold(MultiKrum(), changes).weights["w"][0, 0] == 15


def test_nearly_equal_updates_on_large_weights_are_told_apart():
    """Distances of weights in float32 would be rounding here: flwr's choose the faulty robot."""
    rng = np.random.default_rng(3)
    start = Checkpoint(version=0, weights={"w": np.full(5000, 100, np.float32)})
    updates = rng.normal(0, 1e-5, (10, 5000)).astype(np.float32)
    updates[7] *= 3  # the faulty one
    pairs = [
        (
            Contribution(robot=f"r{n}", site="", examples=1),
            Update(robot="", base_version=0, weights={"w": one}, num_examples=1, num_steps=1),
        )
        for n, one in enumerate(updates)
    ]
    wide = updates.astype(np.float64)
    distances = ((wide[:, None] - wide[None]) ** 2).sum(axis=2)
    rule = MultiKrum(hostile=2, memory_mb=0.01)

    measured = rule._distances(UpdatesInMemory(pairs), [one for one, _ in pairs], start.weights)

    np.testing.assert_allclose(measured, distances, rtol=1e-12)
    scores = [np.sort(np.delete(distances[i], i))[:6].sum() for i in range(10)]
    best = np.argsort(scores)[:3]
    assert 7 not in best
    np.testing.assert_array_equal(
        rule.fold(start, UpdatesInMemory(pairs)).weights["w"],
        start.weights["w"] + wide[best].mean(axis=0).astype(np.float32),
    )


def test_too_few_robots_are_refused(fold):
    words = "4 robots answered, and against 1 hostile ones Krum takes at least 5: set rounds.quorum"
    with pytest.raises(RoundError, match=words):
        fold(Krum(), [(1, 0)] * 4)


def test_options_out_of_range_are_refused():
    with pytest.raises(SettingsError, match="hostile is -1, expected 0 or more"):
        Krum(hostile=-1)
