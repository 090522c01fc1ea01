"""The next step of a rollout, by value."""

import pytest

from cloud_server.rollout.decide import Member, decide, silent


def robots(group=0, alive=True, **outcomes):
    """Return so many robots of each outcome."""
    return [
        Member(
            f"{outcome}-{group}-{alive}-{n}", group, alive,
            outcome in ("trying", "confirmed"), outcome, "worse" if outcome == "failed" else "",
        )
        for outcome, count in outcomes.items()
        for n in range(count)
    ]  # fmt: skip


def step(members, groups=3, opened=1, threshold=0.2, waited=True, forgiven=()):
    found = decide(
        members, groups=groups, open_groups=opened, threshold=threshold, waited_enough=waited,
        forgiven=forgiven,
    )  # fmt: skip
    return None if found is None else (found.state, found.open)


def test_the_next_group_is_opened_when_all_have_confirmed():
    assert step(robots(confirmed=10)) == ("advancing", 2)
    assert step(robots(confirmed=8, failed=2)) == ("advancing", 2)


def test_one_of_ten_need_not_have_decided():
    assert step(robots(confirmed=9, waiting=1)) == ("advancing", 2)
    assert step(robots(confirmed=8, waiting=2)) is None
    assert step(robots(confirmed=8, trying=2)) is None


def test_robots_that_are_away_are_not_waited_for_but_for_a_whole_group_that_is():
    assert step(robots(confirmed=3) + robots(alive=False, waiting=7)) == ("advancing", 2)
    assert step(robots(alive=False, waiting=7)) is None
    earlier = robots(confirmed=3)
    assert step(earlier + robots(1, alive=False, waiting=7), opened=2) is None
    assert step(earlier + robots(1, alive=False, confirmed=7), opened=2) == ("advancing", 3)


def test_a_group_that_no_robot_is_in_is_passed_over():
    assert step(robots(1, waiting=5)) == ("advancing", 2)
    assert step([]) == ("advancing", 2)


def test_a_group_stays_open_for_as_long_as_the_plan_wants():
    assert step(robots(confirmed=10), waited=False) is None
    assert step(robots(failed=10), waited=False) == ("halted", 1)


def test_the_last_group_completes_it():
    assert step(robots(confirmed=5), groups=1) == ("complete", 1)
    assert step(robots(confirmed=5) + robots(2, confirmed=5), opened=3) == ("complete", 3)
    assert step(robots(confirmed=5) + robots(2, waiting=5), opened=3) is None


def test_it_is_halted_when_more_than_the_threshold_failed():
    assert step(robots(confirmed=7, failed=3)) == ("halted", 1)
    assert step(robots(confirmed=1, failed=3, waiting=6)) == ("halted", 1)


def test_failures_that_the_others_can_outweigh_are_waited_with():
    assert step(robots(confirmed=1, failed=1, waiting=8)) is None
    assert step(robots(failed=2, waiting=8)) is None


def test_so_many_failures_at_once_are_no_chance():
    assert step(robots(failed=3, waiting=97)) == ("halted", 1)
    assert step(robots(failed=3, confirmed=7, waiting=90)) is None
    assert step(robots(failed=2, waiting=98)) is None


def test_with_a_threshold_of_zero_one_failure_halts_it():
    assert step(robots(confirmed=99, failed=1), threshold=0.0) == ("halted", 1)


def test_the_reason_names_robots_and_reasons():
    found = decide(
        robots(confirmed=1, failed=1), groups=2, open_groups=1, threshold=0.2, waited_enough=True
    )
    assert found.why == (
        "1 of 2 robots that have decided failed, at most 20% may: failed-0-True-0 (worse)"
    )
    assert found.failed == ("failed-0-True-0",)


def test_robots_for_which_a_person_let_it_go_on_do_not_count():
    members = robots(confirmed=4, failed=4)
    assert step(members) == ("halted", 1)
    assert step(members, forgiven=[one.name for one in members[4:]]) == ("advancing", 2)


def test_robots_of_groups_that_are_not_open_do_not_count():
    assert step(robots(confirmed=2) + robots(1, failed=9)) == ("advancing", 2)


@pytest.mark.parametrize(("others_away", "halts"), [(0, True), (3, True), (5, False)])
def test_silence_counts_as_far_as_the_robots_without_it_are_not_silent(others_away, halts):
    quiet = robots(alive=False, confirmed=6) + robots(confirmed=4)
    others = robots(2, waiting=10 - others_away) + robots(2, alive=False, waiting=others_away)
    assert (step(quiet + others) == ("halted", 1)) is halts


def test_silence_alone_tells_nothing_where_all_robots_have_it():
    quiet = robots(alive=False, confirmed=6) + robots(confirmed=4)
    assert silent(quiet) == []
    assert step(quiet) == ("advancing", 2)
