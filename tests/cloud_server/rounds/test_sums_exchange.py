"""What of a reply with sums is refused, and what a round makes of those that are kept."""

from dataclasses import replace

import numpy as np
import pytest

from cloud_server.rounds.reply_kinds import RoundEnd
from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.round_journal import MemoryJournal
from cloud_server.rounds.shares import Share
from cloud_server.rounds.sums_exchange import SumsExchange, head_of
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.round_record import RobotRecord, RoundRecord
from cloud_server.state.sums.sums_store import SumsSpace, SumsStore
from fleet_model.errors import RoundError, UpdateError
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.sums.class_sums import class_sums
from fleet_model.sums.dense_head import DenseHead
from fleet_model.sums.packing import GROUP, pack_sums
from fleet_model.types import SUMS, Checkpoint, Update

WIDTH, LABELS, CHECKS = 20, ("a", "b", "c"), CheckSettings()
HEAD = DenseHead("k", "b", WIDTH, LABELS)
SPACE = SumsSpace("trunk", LABELS, WIDTH, {})
START = Checkpoint(
    version=7,
    weights={"k": np.zeros((WIDTH, 3), np.float32), "b": np.zeros(3, np.float32)},
    server_state={"momentum": np.ones(2, np.float32)},
)
MIDDLES = np.random.default_rng(3).normal(0, 1.5, (3, WIDTH))


def update(robot, count=60, turned=False, **changes):
    rng = np.random.default_rng(int(robot[1:]))
    classes = np.arange(count) % 3
    features = MIDDLES[classes] + rng.normal(0, 1, (count, WIDTH))
    tensors = pack_sums(class_sums(features, 2 - classes if turned else classes, 3, 4))
    made = Update(
        kind=SUMS, robot=robot, base_version=7, weights={}, groups={GROUP: tensors},
        num_examples=count, num_steps=0, label_counts=(count, count, count),
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture
def exchange(tmp_path):
    return SumsExchange(SumsStore(tmp_path / "sums"), HEAD, SPACE, "ridge", CHECKS)


def close(exchange, *updates):
    journal, accepted = MemoryJournal(), []
    for one in updates:
        kept = Kept(
            ticket=one.robot, robot=one.robot, site="hall", round=1, verdict=ACCEPTED, kind=SUMS,
            num_examples=one.num_examples,
        )  # fmt: skip
        journal.keep([(kept, one)])
        accepted.append(Share(kept=kept, weight=one.num_examples, norm=0.0))
    return exchange.kind.use(
        RoundEnd(checkpoint=START, accepted=accepted, journal=journal, rule=None)
    )


WRONG = {
    "based on version 6": {"base_version": 6},
    "sums are the group 'sums'": {"weights": {"k": np.zeros(2, np.float32)}},
    "and 0 groups": {"groups": {}},
    "of 60 frames, and it counts 50": {"num_examples": 50},
    "of 20 frames of a label of which it has 3": {"label_counts": (3, 60, 60)},
    "expected counts, directions": {"groups": {GROUP: {"x": np.zeros(3, np.float32)}}},
}


@pytest.mark.parametrize("words", WRONG)
def test_a_reply_that_holds_no_sums_of_features_is_refused(exchange, words):
    with pytest.raises(UpdateError, match=words):
        exchange.kind.check(update("r1", **WRONG[words]), START, 7, CHECKS)


def test_a_good_one_passes(exchange):
    exchange.kind.check(update("r1"), START, 7, CHECKS)


def test_sums_of_earlier_rounds_and_of_this_one_make_one_head(exchange, tmp_path):
    close(exchange, update("r1"), update("r2"))
    later = SumsExchange(exchange.store, HEAD, SPACE, "ridge", CHECKS)
    made = close(later, update("r3"))
    together = SumsExchange(SumsStore(tmp_path / "other"), HEAD, SPACE, "ridge", CHECKS)
    once = close(together, update("r3"), update("r2"), update("r1"))
    assert made.version == 8
    assert made.server_state == {}
    for name, tensor in made.weights.items():
        assert tensor.dtype == np.float32
        assert np.array_equal(tensor, once.weights[name])
    assert exchange.store.head().robots == ("r1", "r2", "r3")


def test_a_robot_that_reverses_labels_is_refused_and_named(exchange):
    robots = [update(f"r{n}", turned=n == 2) for n in range(1, 5)]
    close(exchange, *robots)
    record = RoundRecord(
        run="a", round=1, version=8, seconds=1.0, metrics={},
        robots=tuple(
            RobotRecord(name=one.robot, site="hall", outcome=ACCEPTED, weight=60) for one in robots
        ),
    )  # fmt: skip
    told = exchange.told(record)
    assert [robot.name for robot in told.robots if robot.refused] == ["r2"]
    assert "contradict those of the other robots" in told.robots[1].outcome.text
    assert told.metrics["sums_robots"] == 3
    assert told.metrics["sums_left_out"] == 1
    assert list(exchange.store.head().left_out) == ["r2"]


def test_no_robot_counts_more_than_the_median(exchange):
    robots = {f"r{n}": update(f"r{n}", 600 if n == 1 else 60) for n in range(1, 5)}
    close(exchange, *robots.values())
    sums = exchange.store.of(SPACE)
    made = head_of(sums, "ridge", CHECKS, "test")
    assert made.frames.sum() == pytest.approx(240)
    free = head_of(sums, "ridge", CheckSettings(max_examples_ratio=0), "test")
    assert free.frames.sum() == 780


def test_without_sums_there_is_no_head():
    with pytest.raises(RoundError, match="r9: there are no sums"):
        head_of({}, "ridge", CHECKS, "r9")
