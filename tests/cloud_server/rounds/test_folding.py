"""The end of a round: what of each update is folded in, and what a rule is given."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from timed_robots import changed

from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.aggregation.rules.median import Median
from cloud_server.rounds.folding import KeptContributions, fold, judge, robot_records
from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.round_journal import DiskJournal, MemoryJournal, OpenRound
from cloud_server.rounds.shares import NORMS, Share
from cloud_server.state.learning_settings import CheckSettings
from fleet_model.errors import RoundError
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.types import Checkpoint, Update

CHECKS = CheckSettings(max_examples_per_robot=100, max_update_mb=1.0, max_norm_ratio=10.0)


def kept(robot, norm):
    return Kept(ticket=f"t-{robot}", robot=robot, site="hall", round=1, verdict=ACCEPTED, norm=norm)


def judged(*norms, before=()):
    """Judge a round of robots r0, r1, ... with these lengths."""
    start = Checkpoint(
        version=1,
        weights={"w": np.ones(2, np.float32)},
        server_state={NORMS: np.array(before, np.float64)},
    )
    return judge([kept(f"r{n}", norm) for n, norm in enumerate(norms)], start, CHECKS)


@pytest.mark.parametrize(("length", "counts"), [(19.8, 19.8), (20.2, 20.0), (1e30, 20.0)])
def test_a_length_counts_up_to_ten_times_the_median_and_nobody_is_refused(length, counts):
    round_ = judged(2.0, 2.0, length)

    assert [(one.kept.robot, one.norm) for one in round_.accepted] == [
        ("r0", 2.0), ("r1", 2.0), ("r2", counts),
    ]  # fmt: skip
    assert round_.others == ()


def test_whoever_is_too_long_or_claims_far_too_much_is_named_with_how_much_counts():
    greedy = replace(kept("r2", 20.2), num_examples=10_000)
    honest = [replace(kept(name, 2.0), num_examples=examples) for name, examples in FEW.items()]
    start = Checkpoint(version=1, weights={"w": np.ones(2, np.float32)})

    few, many, record = robot_records(judge([*honest, greedy], start, CHECKS), {}, 1)

    assert record.outcome.text == (
        "accepted, but 10000 examples count as 40: at most as many as the median robot of the "
        "round, so that no robot decides alone (checks.max_examples_ratio); and its length (L2) "
        "20.2 is cut to 20: at most 10 times the median of recent updates (checks.max_norm_ratio)"
    )
    assert (record.weight, record.capped, record.norm, record.cut_to) == (40, True, 20.2, 20.0)
    assert (few.outcome.text, few.weight, few.capped, few.cut_to) == ("accepted", 30, False, 0.0)
    assert (many.outcome.text, many.weight, many.capped) == ("accepted", 40, False)


FEW = {"r0": 30, "r1": 40}


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        (
            {"max_examples_ratio": 0.0},
            "100: at most 100 of a robot (checks.max_examples_per_robot)",
        ),
        (
            {"max_examples_ratio": 2.0, "max_norm_of_model": 5.0},
            "80: at most 2 times as many as the median robot of the round, so that no robot "
            "decides alone (checks.max_examples_ratio); and its length (L2) 20.2 is cut to 7.071: "
            "at most 5 times the length of the model (checks.max_norm_of_model)",
        ),
    ],
)
def test_the_words_name_the_setting_that_bounds(checks, words):
    greedy = replace(kept("r2", 20.2), num_examples=10_000)
    honest = [replace(kept(name, 0.2), num_examples=examples) for name, examples in FEW.items()]
    start = Checkpoint(version=1, weights={"w": np.ones(2, np.float32)})

    *_, record = robot_records(judge([*honest, greedy], start, changed(CHECKS, **checks)), {}, 1)

    assert record.outcome.words.startswith(f", but 10000 examples count as {words}")


def test_lengths_of_rounds_before_count_for_the_median():
    cut = judged(19.8, 20.2, before=(2.0,) * 4).accepted

    assert [one.norm for one in cut] == [19.8, 20.0]


NUMBERS = 500_000  # of the wide tensor: 2 MB
WIDE = Checkpoint(
    version=9,
    weights={"w": np.zeros((2, 3), np.float32), "wide": np.zeros(NUMBERS, np.float32)},
    server_state={"rule/own": np.ones(1)},
)


def answered(journal, robots, order=1):
    """Keep one update of each robot: robot n sends n + 1 everywhere."""
    journal.write(OpenRound(run="r", round=1, base_version=9, mode="sync"))
    accepted = []
    for number in range(robots):
        one = Kept(
            ticket=f"t{number}", robot=f"r{number:02}", site=f"s{number % 2}", round=1,
            verdict=ACCEPTED, base_version=9 - number % 2, num_examples=60 + 60 * number,
            norm=float(2 * number),
        )  # fmt: skip
        weights = {name: np.full_like(w, number + 1) for name, w in WIDE.weights.items()}
        update = Update(robot="", base_version=9, weights=weights, num_examples=7, num_steps=1)
        journal.keep([(one, update)])
        accepted.append(Share(kept=one, weight=min(60 + 60 * number, 100), norm=float(number)))
    return accepted


@pytest.fixture(params=["memory", "disk"])
def journal(request, tmp_path):
    return MemoryJournal() if request.param == "memory" else DiskJournal(tmp_path / "run")


def test_a_rule_is_given_who_contributes_and_each_update_as_it_counts(journal):
    given = KeptContributions(journal, answered(journal, 2), WIDE)

    for _ in range(2):
        first, second = given
    assert len(given) == 2
    assert (first.robot, first.site, first.examples, first.norm) == ("r00", "s0", 60, 0.0)
    assert (second.robot, second.site, second.norm) == ("r01", "s1", 1.0)
    assert (second.examples, second.staleness) == (100, 1)  # capped, and not scaled:
    assert given.update(second).num_examples == 100
    # It is twice as long as what counts: 2 everywhere counts as 1.
    np.testing.assert_array_equal(given.update(second).weights["w"], np.ones((2, 3)))
    np.testing.assert_array_equal(given.tensor(second, "w"), np.ones((2, 3)))
    np.testing.assert_array_equal(given.numbers(first, "w", 4, 99), [1, 1])
    with pytest.raises(KeyError):
        given.numbers(first, "no such tensor", 0, 1)


def test_of_a_residual_that_robots_do_not_send_every_update_is_zero(journal):
    """Whatever the rule: the mean, and one that reads pieces."""
    residual = np.ones((2, 3), np.float32)
    with_residual = replace(WIDE, weights={**WIDE.weights, "w.lora_residual": residual})
    accepted = answered(journal, 2)
    given = KeptContributions(journal, accepted, with_residual)

    first, _ = given
    assert not given.update(first).weights["w.lora_residual"].any()
    assert given.tensor(first, "w.lora_residual").shape == (2, 3)
    assert given.numbers(first, "w.lora_residual", 4, 99).tolist() == [0, 0]
    for rule in (FedAvg(), Median()):
        made = fold(rule, journal, accepted, with_residual)
        np.testing.assert_array_equal(made.weights["w.lora_residual"], residual)


def test_a_rule_may_begin_a_residual_of_the_right_shape_and_no_other_tensor(journal):
    class Rule:
        def __init__(self, added):
            self.added = added

        def fold(self, checkpoint, contributions):
            return replace(checkpoint, weights={**checkpoint.weights, **self.added})

    a, b = np.zeros((4, 1), np.float32), np.zeros((1, 2), np.float32)
    start = replace(WIDE, weights={"w.lora_a": a, "w.lora_b": b})
    right = Rule({"w.lora_residual": np.ones((4, 2), np.float32)})
    assert "w.lora_residual" in fold(right, journal, [], start).weights
    for added in ({"w.lora_residual": np.ones((2, 4), np.float32)}, {"v.lora_residual": a}):
        with pytest.raises(RoundError, match="lora_residual"):
            fold(Rule(added), journal, [], start)


def test_the_next_checkpoint_has_what_the_rule_keeps_and_the_lengths(journal):
    class Rule:
        def fold(self, checkpoint, contributions):
            return Checkpoint(version=10, weights=checkpoint.weights, server_state={"mine": ONE})

    accepted = answered(journal, 3)
    result = fold(Rule(), journal, accepted, WIDE)

    assert set(result.server_state) == {"mine", NORMS}
    np.testing.assert_array_equal(result.server_state[NORMS], [0, 1, 2])


ONE = np.ones(1)


@pytest.mark.parametrize("rule", [FedAvg(), Median(memory_mb=0.5)], ids=["fedavg", "median"])
def test_memory_does_not_grow_with_robots(rule, tmp_path):
    peaks = []
    for robots in (3, 24):
        journal = DiskJournal(tmp_path / str(robots))
        accepted = answered(journal, robots)
        tracemalloc.start()
        try:
            fold(rule, journal, accepted, WIDE)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    one_update = 4 * NUMBERS
    assert peaks[0] < 6 * one_update  # it holds some models
    assert peaks[1] - peaks[0] < one_update / 4


def test_groups_that_a_rule_has_asked_for_count_also_where_examples_or_length_are_cut():
    """The last bits of a relay do not: they belong to its examples."""
    start = Checkpoint(version=1, weights={"w": np.ones(2, np.float32)})
    one = replace(kept("r0", 8.0), num_examples=9, groups=("control", "low"))
    groups = {name: {"w": np.full(2, 3, np.float32)} for name in one.groups}
    update = Update(
        robot="r0", base_version=1, weights=start.weights, num_examples=9, num_steps=1,
        groups=groups,
    )  # fmt: skip
    journal = MemoryJournal()
    journal.keep([(one, update)])
    read = KeptContributions(journal, [Share(kept=one, weight=5, norm=4.0)], start)
    (who,) = read
    assert read.update(who).groups == {"control": groups["control"]}
    assert read.update(who).weights["w"].tolist() == [0.5, 0.5]
