"""Buffered rounds (FedBuff), with robots whose hours pass in microseconds (timed_robots.py)."""

import math
from dataclasses import replace

import numpy as np
import pytest
from timed_robots import BUFFERED, CHECKS, REQUEST, Robots, changed, of, outcomes, update

from cloud_server.rounds.round_journal import MemoryJournal
from cloud_server.rounds.round_loop import QuorumError, RoundSettings
from fleet_model.errors import RoundError


def plus_one(request):
    return update(1.0, base_version=request.checkpoint.version)


def test_a_round_closes_as_soon_as_the_quorum_is_kept_and_the_others_go_on_working():
    robots = Robots({"a": {"after": 5}, "b": {"after": 7}, "slow": {"after": 50}})

    checkpoint, record = robots.round(BUFFERED)

    assert checkpoint.version == 8
    assert 7 <= record.seconds < 9
    assert outcomes(record) == {"a": "accepted", "b": "accepted"}
    assert (record.mode, record.asked, record.late) == ("buffered", 3, 0)


def test_an_old_update_counts_less_by_the_weight_of_the_paper():
    """Round 3 starts from version 9; slow was sent version 7: 1 / sqrt(1 + 2) of it counts."""
    robots = Robots(
        {
            "a": {"after": 10, "answer": plus_one},
            "b": {"after": 10, "answer": plus_one},
            "slow": {"after": 25, "answer": plus_one},
        }
    )

    checkpoint, records = robots.rounds(3, changed(BUFFERED, quorum=2))

    assert [r.version for r in records] == [8, 9, 10]
    assert of(records[2], "slow").staleness == 2
    others = [r.staleness for r in records[2].robots if r.name != "slow"]
    mean = (1 / math.sqrt(3) + len(others)) / (1 + len(others))
    np.testing.assert_allclose(checkpoint.weights["w"], np.full(3, 2 + mean), rtol=1e-6)


def test_a_robot_at_work_is_not_asked_again_and_an_idle_one_is_sent_the_newest_checkpoint():
    robots = Robots(
        {
            "a": {"after": 10, "answer": plus_one},
            "b": {"after": 10, "answer": plus_one},
            "slow": {"after": 35, "answer": plus_one},
        }
    )

    robots.rounds(3, BUFFERED)

    asked = [(names, request.checkpoint.version) for request, names, _ in robots.sent]
    assert asked == [(["a", "b", "slow"], 7), (["a", "b"], 8), (["a", "b"], 9)]


def test_an_update_that_is_too_old_is_dropped_and_the_robot_is_asked_anew():
    robots = Robots(
        {
            "a": {"after": 10, "answer": plus_one},
            "b": {"after": 10, "answer": plus_one},
            "slow": {"after": 31, "answer": plus_one},
        }
    )

    _, records = robots.rounds(4, changed(BUFFERED, max_staleness=2))

    outcome = of(records[3], "slow").outcome.text
    assert outcome.startswith("late: its update is 3 versions old, expected at most 2")
    assert [record.late for record in records] == [0, 0, 0, 1]
    assert robots.sent[-1][1] == ["slow"]
    assert robots.sent[-1][0].checkpoint.version == 10


def test_an_old_update_is_no_offense_but_a_lie_about_its_base_is_one():
    lies = {"older": -1, "newer": 1, "newest": 3}
    robots = Robots(
        {
            "a": {"after": 10, "answer": plus_one},
            "b": {"after": 10, "answer": plus_one},
            "slow": {"after": 31, "answer": plus_one},
            **{
                name: {"after": 31, "answer": update(base_version=7 + by)}
                for name, by in lies.items()
            },
        }
    )

    _, records = robots.rounds(4, changed(BUFFERED, max_staleness=2))

    assert not of(records[3], "slow").refused
    for name, by in lies.items():
        assert of(records[3], name).refused
        assert f"based on version {7 + by}, expected 7" in of(records[3], name).outcome.words
    assert records[3].late == 1


def test_questions_of_the_round_before_are_spoken_of_again_after_a_restart():
    class Withdrawing(Robots):
        """Its first question withdraws what the new process has not named, as Flower's does."""

        unknown = frozenset()

        def still_open(self, tickets):
            self.unknown = self.unknown - set(tickets)
            return super().still_open(tickets)

        def send(self, *arguments):
            for ticket in self.unknown:
                self.tickets[ticket] = (math.inf, math.inf, None)
            return super().send(*arguments)

    robots, journal = Withdrawing({"a": {}, "b": {}, "slow": {"after": 50}}), MemoryJournal()
    checkpoint, _ = robots.round(BUFFERED, journal=journal)
    journal.close(1)
    robots.unknown = frozenset(robots.tickets)  # the server starts again
    robots.robots["a"]["after"] = 60

    request = replace(REQUEST, round=2, checkpoint=checkpoint)
    _, record = robots.round(BUFFERED, request=request, journal=journal)

    assert outcomes(record) == {"b": "accepted", "slow": "accepted"}


def test_no_more_than_the_target_work_at_a_time_and_a_place_that_gets_free_is_filled():
    robots = Robots({f"r{i}": {"after": 10} for i in range(6)})

    _, record = robots.round(changed(BUFFERED, quorum=3, target=2))

    assert [len(names) for _, names, _ in robots.sent] == [2, 2]
    assert len({name for _, names, _ in robots.sent for name in names}) == 4
    assert len(record.robots) >= 3


def test_a_refused_update_is_not_counted_for_the_quorum():
    robots = Robots(
        {
            "a": {"after": 1},
            "bad": {"after": 2, "answer": update(math.nan)},
            "c": {"after": 30},
        }
    )

    _, record = robots.round(BUFFERED)

    assert record.seconds >= 30
    assert outcomes(record)["bad"].startswith("refused: ")
    assert len(robots.sent) == 1  # a robot that is refused waits for the next round


def test_an_update_that_is_far_too_long_counts_for_the_quorum_and_is_cut():
    robots = Robots({"a": {"after": 1}, "huge": {"after": 2, "answer": update(1e6)}})

    checkpoint, record = robots.round(BUFFERED, checks=changed(CHECKS, max_norm_ratio=10.0))

    assert of(record, "huge").accepted
    np.testing.assert_allclose(checkpoint.weights["w"], [5.5] * 3, rtol=1e-6)


def test_a_question_that_was_lost_does_not_keep_its_robot_busy_for_ever():
    robots = Robots({"a": {"after": 5}, "b": {"after": 5}, "deaf": {"after": math.inf}})

    _, records = robots.rounds(30, BUFFERED)

    asked = [request.round for request, names, _ in robots.sent if "deaf" in names]
    assert len(asked) == 2  # again when the first question has expired, after 100 s
    assert sum("deaf" in outcomes(r) for r in records) == 1


def test_too_few_good_updates_by_the_deadline_fail_the_round_and_name_who_is_at_work():
    robots = Robots({"a": {}, "slow": {"after": 1000}})

    with pytest.raises(QuorumError, match="a: accepted; slow: no reply by the deadline"):
        robots.round(BUFFERED)


def test_robots_at_work_count_as_online():
    robots = Robots({"a": {"after": 5}, "b": {"after": 5}, "slow": {"after": 20, "until": 3}})

    _, records = robots.rounds(2, changed(BUFFERED, quorum=2))

    assert len(records) == 2


def test_too_few_robots_end_the_wait_with_their_names():
    with pytest.raises(RoundError, match=r"1 robot online \(a\), expected at least 2"):
        Robots({"a": {}}).round(BUFFERED)


def test_a_target_below_the_quorum_is_fine_where_places_are_refilled():
    assert isinstance(changed(BUFFERED, target=1, quorum=5), RoundSettings)
