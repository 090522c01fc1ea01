from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.rounds.choosing import FOLDS, choose
from cloud_server.rounds.fleet import Participant
from cloud_server.state.settings import RoundSettings
from fleet_model.errors import SettingsError
from fleet_model.protocol.report import RobotReport

ANY = RoundSettings()


def robot(name, site="hall", labels=(), **report):
    told = RobotReport(**report) if report else None
    return Participant(node_id=0, name=name, site=site, labels=labels, report=told)


def relay(name, robots):
    return Participant(node_id=0, name=name, site="hall", speaks_for=robots)


def names(robots):
    return [robot.name for robot in robots]


def test_without_a_selection_all_are_chosen_in_name_order():
    chosen, left_out = choose([robot("c"), robot("a"), robot("b")], ANY, 0, (0, 7))

    assert names(chosen) == ["a", "b", "c"]
    assert left_out == {}


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        (RoundSettings(robots=("good",)), "not among rounds.robots"),
        (RoundSettings(sites=("hall",)), "site yard is not among rounds.sites"),
        (RoundSettings(labels=("gpu", "indoor")), "lacks the label indoor (rounds.labels)"),
        (
            RoundSettings(query="battery >= 30"),
            "rounds.query does not hold (battery = 20.0)",
        ),
        (
            RoundSettings(query="docked"),
            "rounds.query does not hold (nothing is known, it does not report docked)",
        ),
    ],
)
def test_whoever_does_not_fit_is_left_out_with_the_reason(selection, reason):
    good = robot("good", "hall", ("gpu", "indoor"), battery=80, facts={"docked": True})
    other = robot("other", "yard", ("gpu",), battery=20)

    chosen, left_out = choose([other, good], selection, 0, (0, 7))

    assert names(chosen) == ["good"]
    assert left_out == {"other": reason}


def test_a_busy_robot_is_never_chosen():
    chosen, left_out = choose([robot("a", busy="driving")], RoundSettings(robots=("a",)), 1, (0, 0))

    assert chosen == []
    assert left_out == {"a": "busy: driving"}


def test_a_robot_that_has_told_nothing_is_chosen_where_nothing_is_asked():
    assert names(choose([robot("a")], ANY, 0, ())[0]) == ["a"]


def test_a_wrong_query_is_a_settings_error():
    with pytest.raises(SettingsError, match=r"rounds\.query"):
        choose([robot("a")], RoundSettings(query="battery >"), 0, ())


def test_who_is_not_drawn_is_told_so():
    chosen, left_out = choose([robot(n) for n in "abcd"], ANY, 3, (0, 7))

    (left,) = set("abcd") - set(names(chosen))
    assert left_out == {left: "not drawn this time (rounds.target)"}


@given(order=st.permutations("abcdefgh"), target=st.integers(0, 9), seed=st.integers(0, 99))
def test_the_draw_depends_on_who_is_there_and_not_on_who_came_first(order, target, seed):
    chosen, left_out = choose([robot(n) for n in order], ANY, target, (seed, 7))
    again, _ = choose([robot(n) for n in "abcdefgh"], ANY, target, (seed, 7))

    assert names(chosen) == names(again) == sorted(names(chosen))
    assert len(chosen) == (min(target, 8) or 8)
    assert set(names(chosen)) | left_out.keys() == set("abcdefgh")


def test_each_has_the_same_chance():
    robots = [robot(n) for n in "abcde"]

    drawn = Counter(
        name for version in range(1000) for name in names(choose(robots, ANY, 2, (0, version))[0])
    )

    assert sum(drawn.values()) == 2000
    assert all(340 < drawn[name] < 460 for name in "abcde")  # 400 expected, sigma 15.5


def test_a_rule_that_must_see_single_robots_gets_no_mean_of_a_relay():
    online = [robot("a"), relay("b", 12)]

    assert names(choose(online, ANY, 0, ())[0]) == ["a", "b"]
    chosen, left_out = choose(online, ANY, 0, (), single=FOLDS)
    assert names(chosen) == ["a"]
    assert "site relay" in left_out["b"]
