"""The gate before publishing: which numbers hold a model back, by value and by property."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.runs.gate import Evidence, Measured, judge
from cloud_server.state.settings import GateSettings
from fleet_model.measures import loss

CLASSES = {"accuracy": "higher", "loss": "lower"}
RULES = GateSettings()


def robot(name, before, after, *, alone=None, examples=100, site="hall", measure="accuracy"):
    return Measured(
        robot=name, site=site, examples=examples, before={measure: before},
        after={measure: after}, alone={} if alone is None else {measure: alone},
    )  # fmt: skip


def verdict(*robots, untrained=False, measures=CLASSES, at_release=None, labels=()):
    evidence = Evidence(
        robots=robots, measures=measures, labels=labels, untrained=untrained,
        at_release=at_release or {},
    )  # fmt: skip
    return judge(evidence, RULES)


def kinds(told):
    return [reason.kind for reason in told.reasons]


def test_a_better_model_passes_and_its_means_weigh_robots_by_examples():
    told = verdict(robot("r1", 0.8, 0.9, examples=300), robot("r2", 0.6, 0.6))
    assert told.passed
    assert told.words == ""
    assert told.examples == 400
    assert (told.before, told.after) == ({"accuracy": 0.75}, {"accuracy": 0.825})


@pytest.mark.parametrize(("after", "held"), [(0.881, []), (0.879, ["fall"])])
def test_a_fall_of_more_than_the_bound_is_held_back(after, held):
    assert kinds(verdict(robot("r1", 0.9, after))) == held


def test_why_says_the_measure_both_values_and_the_setting():
    words = verdict(robot("r1", 0.9, 0.85)).words
    assert words == "held-out accuracy 0.900 -> 0.850 is worse by more than 0.02 (gate.max_fall)"


def test_the_workload_says_which_way_is_better_and_a_loss_falls_in_parts_of_itself():
    errors = {"meters": "lower"}
    worse = robot("r1", 10.0, 10.3, measure="meters")
    assert kinds(verdict(worse, measures=errors)) == ["fall"]
    assert verdict(replace(worse, after={"meters": 9.0}), measures=errors).passed
    assert verdict(replace(worse, after={"meters": 10.1}), measures=errors).passed


def test_the_first_measure_decides_whatever_the_others_do():
    both = Measured(
        robot="r1", site="hall", examples=200, alone={},
        before={"accuracy": 0.9, "loss": 0.3}, after={"accuracy": 0.92, "loss": 0.5},
    )  # fmt: skip
    assert verdict(both).passed
    assert verdict(both, measures={"loss": "lower"}).reasons[0].kind == "fall"


def test_too_few_examples_hold_a_model_back_but_not_the_first_one_which_is_warned_of():
    few = robot("r1", 0.25, 0.6, examples=9)
    assert kinds(verdict(few)) == ["few_examples"]
    first = verdict(few, untrained=True)
    assert first.passed
    assert [warning.kind for warning in first.warnings] == ["few_examples"]
    assert "9 held-out examples that count, of 1 robot; expected at least 100" in (
        first.warnings[0].words
    )


def test_nothing_measured_says_so_also_of_the_first_model():
    assert kinds(verdict(untrained=True)) == ["unmeasured"]
    other = Measured(robot="r1", site="", examples=5, before={}, after={"x": 1.0}, alone={})
    assert kinds(verdict(other)) == ["unmeasured"]


def test_what_one_site_loses_others_cannot_make_good():
    told = verdict(
        *(robot(f"a{n}", 0.7, 0.95, site="hall") for n in range(20)),
        robot("b1", 0.9, 0.6, site="dock"),
    )
    assert kinds(told) == ["site_loses"]
    assert "worse on dock (accuracy 0.900 -> 0.600) (gate.max_loss is 0.1)" in told.words


def test_half_of_the_robots_lose_what_the_others_gain():
    """A mistyped label set on half of the robots of one site, in a trained fleet."""
    told = verdict(*(robot(f"r{n}", *pair) for n in (1, 2) for pair in ((0.95, 0.5), (0.05, 0.5))))
    assert kinds(told) == ["robots_lose"]
    assert "worse on 2 of 4 robots" in told.words


def test_one_robot_of_many_holds_nothing_back_and_one_of_few_does():
    liar = robot("liar", 1.0, 0.0, examples=20)
    assert verdict(liar, *(robot(f"r{n}", 0.8, 0.85) for n in range(10))).passed
    assert kinds(verdict(liar, *(robot(f"r{n}", 0.8, 0.85) for n in range(5)))) == ["robots_lose"]


def test_what_a_robot_loses_by_chance_is_no_loss():
    """Of 20 examples three more are wrong; of 200 the same share is no chance."""
    others = [robot(f"r{n}", 0.8, 0.9) for n in range(3)]
    assert verdict(robot("small", 0.9, 0.75, examples=20), *others).passed
    assert kinds(verdict(robot("large", 0.9, 0.75, examples=200), *others)) == ["robots_lose"]


def test_a_model_below_what_the_released_one_had_is_held_back_though_it_gains():
    """Labels half a second late on every robot: what they run measures badly on them, too."""
    told = verdict(robot("r1", 0.55, 0.6), at_release={"accuracy": 0.95})
    assert kinds(told) == ["below_release"]
    assert "accuracy is 0.600, and what robots run had 0.950" in told.words
    assert verdict(robot("r1", 0.55, 0.86), at_release={"accuracy": 0.95}).passed


def test_examples_of_one_label_show_nothing():
    perfect = robot("r1", 0.0, 1.0)
    assert kinds(verdict(perfect, labels=[1, 1], untrained=True)) == ["one_label"]
    assert verdict(perfect, labels=[1, 2], untrained=True).passed
    assert verdict(perfect, labels=[None], untrained=True).passed  # an old agent does not tell


def test_a_first_model_must_have_learned_something():
    assert kinds(verdict(robot("r1", 0.5, 0.51), untrained=True)) == ["no_gain"]
    assert verdict(robot("r1", 0.5, 0.53), untrained=True).passed
    assert verdict(robot("r1", 0.5, 0.51)).passed  # a trained one stays what it is


def test_a_first_model_may_have_learned_by_any_measure():
    slow = Measured(
        robot="r1", site="", examples=30, alone={"accuracy": 0.25, "loss": 1.2},
        before={"accuracy": 0.25, "loss": 1.386}, after={"accuracy": 0.25, "loss": 1.25},
    )  # fmt: skip
    assert verdict(slow, untrained=True).passed


def test_robots_that_contradict_each_other_are_told_so():
    """A mistyped label set on half of the robots, from the start: each learns, all do not."""
    told = verdict(*(robot(f"r{n}", 0.5, 0.56, alone=0.95) for n in range(4)), untrained=True)
    assert kinds(told) == ["contradiction"]
    assert "accuracy 0.500 -> 0.560, while each robot by itself has 0.950" in told.words
    assert "do labels of some robots contradict those of others?" in told.words


def test_that_two_of_four_labels_never_occur_is_learned_also_where_the_others_contradict():
    """Measured: two robots, four labels, the two that occur swapped on one of them."""
    robots = [
        Measured(
            robot=name, site="", examples=16, alone={"accuracy": 1.0, "loss": 0.159},
            before={"accuracy": 0.281, "loss": 1.38}, after={"accuracy": 0.5, "loss": 0.706},
        )
        for name in ("right", "mistyped")
    ]  # fmt: skip
    told = verdict(*robots, untrained=True)
    assert kinds(told) == ["contradiction"]
    assert "accuracy 0.281 -> 0.500, while each robot by itself has 1.000" in told.words


def test_what_few_examples_say_of_a_first_model_is_a_warning_also_if_it_is_no_better():
    """Measured: a newcomer's two robots after one epoch; one example of 20 more is wrong."""
    robots = [
        Measured(
            robot=name, site="", examples=10, alone={"accuracy": 0.465, "loss": 1.658},
            before={"accuracy": 0.365, "loss": 1.382}, after={"accuracy": 0.315, "loss": 1.561},
        )
        for name in ("r1", "r2")
    ]  # fmt: skip
    told = verdict(*robots, untrained=True)
    assert told.passed
    assert [warning.kind for warning in told.warnings] == ["few_examples", "no_gain"]
    many = [replace(one, examples=500) for one in robots]
    assert kinds(verdict(*many, untrained=True)) == ["fall", "contradiction", "no_gain"]


def test_one_label_on_each_robot_is_an_honest_fleet():
    assert verdict(*(robot(f"r{n}", 0.5, 0.7, alone=1.0) for n in range(4)), untrained=True).passed


shares = st.floats(0, 1).map(lambda value: round(value, 3))
measured = st.builds(
    robot, st.uuids().map(str), shares, shares, alone=st.none() | shares,
    examples=st.integers(1, 1000), site=st.sampled_from(["hall", "dock", ""]),
)  # fmt: skip
fleets = st.lists(measured, min_size=1, max_size=12)


@given(fleets, st.booleans(), st.randoms())
def test_the_order_of_robots_does_not_matter(robots, untrained, random):
    mixed = random.sample(robots, len(robots))
    assert verdict(*robots, untrained=untrained) == verdict(*mixed, untrained=untrained)


@given(fleets, st.booleans(), st.data())
def test_a_robot_that_does_better_never_holds_a_model_back(robots, untrained, data):
    before = verdict(*robots, untrained=untrained, at_release={"accuracy": 0.6})
    chosen = data.draw(st.integers(0, len(robots) - 1))
    better = data.draw(st.floats(robots[chosen].after["accuracy"], 1))
    changed = [*robots]
    changed[chosen] = replace(changed[chosen], after={"accuracy": better})
    after = verdict(*changed, untrained=untrained, at_release={"accuracy": 0.6})
    assert after.passed or not before.passed


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=1, max_size=9),
       st.floats(1e-3, 1e3))  # fmt: skip
def test_the_unit_of_a_measure_does_not_matter(pairs, unit):
    for before, after in pairs:
        other = loss("lower", before * unit, after * unit, share=False)
        assert loss("lower", before, after, share=False) == pytest.approx(other)


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.booleans())
def test_no_number_of_a_robot_counts_for_more_than_one(before, after, is_share):
    lost = loss("lower", before, after, share=is_share)
    assert -1 <= lost <= 1
    if abs(lost) < 1:
        assert loss("higher", before, after, share=is_share) == -lost
