"""Who the virtual robots are: shares and spreads as promised, and the same for the same seed."""

import numpy as np
import pytest

from cloud_server.simulation.population import SPELL_S, Population, Traits

LABELS = 5


def population(**traits):
    return Population(Traits(**{"robots": 2000, **traits}), LABELS)


def test_the_same_seed_gives_the_same_robots_and_another_seed_others():
    first, again, other = population(seed=1), population(seed=1), population(seed=2)
    np.testing.assert_array_equal(first.examples, again.examples)
    np.testing.assert_array_equal(first.online(5000.0), again.online(5000.0))
    assert not np.array_equal(first.examples, other.examples)
    assert not np.array_equal(first.online(5000.0), other.online(5000.0))


def test_medians_are_those_that_were_asked_for():
    robots = population(examples=300, examples_per_s=50.0, mbit_per_s=8.0)
    assert np.median(robots.examples) == pytest.approx(300, rel=0.1)
    assert np.median(robots.examples_per_s) == pytest.approx(50, rel=0.1)
    assert np.median(robots.bytes_per_s) == pytest.approx(1e6, rel=0.1)


@pytest.mark.parametrize("off", [0.0, 0.2, 1.0])
def test_so_many_are_switched_off_at_any_time(off):
    robots = population(off=off)
    for now_s in (0.0, 100.0, 86_400.0):
        assert len(robots.online(now_s)) / 2000 == pytest.approx(1 - off, abs=0.03)


def test_robots_stay_as_they_are_for_a_while_and_not_for_ever():
    robots = population(off=0.5)
    before, soon, later = (set(robots.online(t).tolist()) for t in (0.0, 60.0, 10 * SPELL_S))
    assert len(before ^ soon) / 2000 < 0.1
    assert len(before ^ later) / 2000 > 0.3


def test_so_many_go_away_somewhere_on_their_way():
    robots, questions = np.arange(2000), np.arange(2000, dtype=np.uint64)
    shares = population(drop=0.1).gone(robots, questions)
    gone = shares[~np.isnan(shares)]
    assert len(gone) / 2000 == pytest.approx(0.1, abs=0.03)
    assert 0 <= gone.min() < 0.2 < 0.8 < gone.max() < 1
    assert np.isnan(population(drop=0.0).gone(robots, questions)).all()


def test_another_question_to_the_same_robot_is_another_chance():
    robots, half = np.arange(2000), population(drop=0.5)
    first = np.isnan(half.gone(robots, np.arange(2000, dtype=np.uint64)))
    second = np.isnan(half.gone(robots, np.arange(2000, 4000, dtype=np.uint64)))
    assert (first != second).mean() == pytest.approx(0.5, abs=0.1)


def test_skew_makes_robots_see_few_labels():
    few, all_alike = population(skew=0.1), population(skew=100.0)
    assert np.median(few.mix.max(axis=1)) > 0.7
    assert np.median(all_alike.mix.max(axis=1)) < 0.3


def test_a_skew_that_underflows_still_gives_every_robot_a_mix():
    mix = population(skew=0.01).mix
    np.testing.assert_allclose(mix.sum(axis=1), 1.0)


def test_time_follows_from_examples_speed_and_bandwidth():
    robots = population(robots=3)
    assert robots.work_s(1, epochs=4) == pytest.approx(
        4 * robots.examples[1] / robots.examples_per_s[1]
    )
    assert robots.transfer_s(2, 1e6) == pytest.approx(1e6 / robots.bytes_per_s[2])
