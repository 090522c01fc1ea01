import pytest

from cloud_server.robots.twins import TOLD_S, WORDS, Twins


@pytest.fixture
def twins():
    class Clock:
        now_s = 1000.0

    clock = Clock()
    found = Twins(lambda: clock.now_s)
    found.clock = clock
    return found


def look(twins, *agents):
    for agent in agents:
        twins.saw("r1", agent)
    return twins.words("r1")


def test_two_agents_that_take_turns_are_noticed(twins):
    assert look(twins, "a", "a", "b") == ""
    assert look(twins, "a") == WORDS
    assert twins.words("r2") == ""


def test_restarts_are_no_second_agent(twins):
    assert look(twins, *"abcdefgh") == ""


def test_an_agent_without_a_number_says_nothing(twins):
    assert look(twins, "", "a", "", "a") == ""


def test_it_is_told_until_only_one_was_heard_for_ten_minutes(twins):
    look(twins, "a", "b", "a", "b")
    twins.clock.now_s += TOLD_S - 1
    assert look(twins, "b", "b") == WORDS
    twins.clock.now_s += 1
    assert look(twins, "b") == ""


def test_a_clock_that_was_set_back_tells_nothing_wrong(twins):
    look(twins, "a", "b", "a")
    twins.clock.now_s -= 5000
    assert look(twins, "a") == ""


def test_three_machines_are_noticed_as_well(twins):
    assert look(twins, "a", "b", "c", "a", "b", "c", "b") == WORDS
