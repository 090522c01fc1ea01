"""Coded updates: a round sees what they mean, the history tells what they weighed."""

from dataclasses import replace

import numpy as np
import pytest
from timed_robots import CHECKS, REQUEST, RULES, Robots, changed, of, outcomes, update

from cloud_server.rounds import round_loop
from cloud_server.rounds.fleet import Participant, Reply
from cloud_server.rounds.round_journal import DiskJournal, MemoryJournal
from cloud_server.rounds.round_state import RoundState
from fleet_model.adapters.spec import RESIDUAL
from fleet_model.compression.codec import CODED, FP16, INT8, TOPK, Codec
from fleet_model.compression.coding import encode
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.types import Checkpoint

KERNEL = {"w": np.zeros((6, 2), np.float32)}
ASKED = replace(REQUEST, checkpoint=Checkpoint(version=7, weights=KERNEL), reply_codec="int8")
SENT = {"w": np.array([[1.0, 0.5]] * 6, np.float32)}


def coded(codec, weights=SENT, **changes):
    return update(weights={CODED: encode(weights, codec)}, codec=str(codec), **changes)


@pytest.mark.parametrize("codec", [Codec(FP16), Codec(INT8), Codec(TOPK, 1.0)])
def test_a_checkpoint_is_the_mean_of_what_coded_updates_mean(tmp_path, codec):
    robots = Robots({"a": {"answer": coded(codec)}, "b": {"answer": update(weights=SENT)}})
    checkpoint, record = robots.round(request=ASKED, journal=DiskJournal(tmp_path))

    np.testing.assert_allclose(checkpoint.weights["w"], SENT["w"], rtol=1e-6)
    assert outcomes(record) == {"a": "accepted", "b": "accepted"}


def test_the_history_says_in_what_form_and_how_many_bytes_travelled():
    robots = Robots({"a": {"answer": coded(Codec(INT8))}, "b": {"answer": update(weights=SENT)}})
    _, record = robots.round(request=ASKED)

    assert (of(record, "a").codec, of(record, "a").update_bytes) == ("int8", 12 + 2 * 4)
    assert (of(record, "b").codec, of(record, "b").update_bytes) == ("float32", 48)
    assert record.request_bytes == 48
    assert of(record, "a").norm == pytest.approx(of(record, "b").norm)


BAD = np.frombuffer(encode(SENT, Codec(INT8)).tobytes()[:-1], np.uint8)


def test_a_coded_update_of_another_model_is_refused_with_the_reason():
    bad = update(weights={CODED: BAD}, codec="int8")
    robots = Robots({"a": {"answer": bad}, "b": {"answer": update(weights=SENT)}})
    _, record = robots.round(changed(RULES, quorum=1), request=ASKED)

    reason = "refused: the update has 19 bytes of int8, expected 20 for this model"
    assert outcomes(record) == {"a": reason, "b": "accepted"}


def test_the_length_of_what_was_meant_is_bounded():
    checks = changed(CHECKS, max_update_mb=47e-6)
    robots = Robots({"a": {"answer": coded(Codec(INT8))}, "b": {"answer": coded(Codec(INT8))}})
    with pytest.raises(round_loop.QuorumError, match=r"expected at most 4.7e-05"):
        robots.round(request=ASKED, checks=checks)


def test_few_updates_are_in_memory_at_once(monkeypatch):
    monkeypatch.setattr(round_loop, "MAX_READ_BYTES", 2 * 48)
    kept = []

    class Journal(MemoryJournal):
        def keep(self, replies):
            kept.append(len(replies))
            super().keep(replies)

    robots = Robots({name: {"answer": coded(Codec(INT8))} for name in "abcde"})
    robots.round(request=ASKED, journal=Journal())
    assert kept == [2, 2, 1]


def test_a_coded_update_lacks_what_a_rule_keeps_beside_an_adapter():
    corrected = {**KERNEL, "w" + RESIDUAL: np.ones((2, 2), np.float32)}
    asked = replace(ASKED, checkpoint=replace(ASKED.checkpoint, weights=corrected))
    state = RoundState(asked, RULES, CHECKS)
    robot = Participant(node_id=1, name="a", site="hall")
    state.robots["a"] = robot
    state.sent({"t": robot})
    ((kept, update),) = state.take([Reply(ticket="t", update=coded(Codec(INT8)))])

    assert kept.verdict == ACCEPTED
    np.testing.assert_allclose(update.weights["w"], SENT["w"], rtol=1e-6)
