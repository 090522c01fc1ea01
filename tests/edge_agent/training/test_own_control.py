"""A robot's own control variate: which one counts, after whatever has become of its replies."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.robot.kept_tensors import keep
from edge_agent.training import own_control
from edge_agent.training.own_control import FILE, begin_control
from fleet_model.errors import TrainingError
from fleet_model.protocol.control import BEGAN, CONTROL, FOLDED, MADE, TAGS
from fleet_model.protocol.wire import RobotRequest, pack_request, unpack_request
from fleet_model.types import EVALUATE, Checkpoint, TrainConfig, Update

WEIGHTS = {"w": np.zeros(2, np.float32), "b": np.zeros((), np.float32)}
CONFIG = TrainConfig(learning_rate=0.5, momentum=0.0, control_variates=1)


def asked(mean=(0, 0), tags=(), trainer="one", **changes):
    """Return a request as it arrives, through the wire."""
    groups = {
        CONTROL: {"w": np.array(mean, np.float32), "b": np.zeros((), np.float32)},
        TAGS: {FOLDED: np.array(tags, np.float32).reshape(-1, 2)},
    }
    request = RobotRequest(
        run="run",
        round=1,
        checkpoint=Checkpoint(version=4, weights=WEIGHTS),
        config=CONFIG,
        trainer=trainer,
        trainer_bytes=1,
        deadline_s=1.0,
        groups=groups,
    )
    return unpack_request(pack_request(replace(request, **changes)))


def trained(state, request, change=(1, 2), steps=2):
    """Answer a request by a training that moved w by `change`."""
    control = begin_control(state, request)
    weights = {"w": np.array(change, np.float32), "b": np.zeros((), np.float32)}
    update = Update(
        robot="", base_version=4, weights=weights, num_examples=3, num_steps=steps,
        metrics={"loss": 1.0},
    )  # fmt: skip
    return control, control.finish(update)


def tag(update, name=MADE):
    return update.groups[TAGS][name].tolist()


def delta(update):
    return update.groups[CONTROL]["w"].tolist()


def test_the_first_training_is_not_corrected_and_sends_its_mean_gradient(tmp_path):
    """-(1, 2) / (.5 * 2 steps)."""
    control, reply = trained(tmp_path, asked(mean=(5, 5)))
    assert control.correction is None
    assert delta(reply) == [-1, -2]
    assert tag(reply, BEGAN) == [0, 0]
    assert tag(reply) != [0, 0]
    assert reply.metrics == {"loss": 1.0, "control_corrected": 0.0}


def test_the_next_one_is_corrected_and_sends_the_change_of_its_own(tmp_path):
    """c - c_i = (3, 0) - (-1, -2) = (4, 2); c_i <- -(4, 2) - (-6, -2) / (.5 * 2) = (2, 0)."""
    _, first = trained(tmp_path, asked())
    control, reply = trained(tmp_path, asked(mean=(3, 0), tags=[tag(first)]), change=(-6, -2))
    assert control.correction["w"].tolist() == [4, 2]
    assert delta(reply) == [3, 2]
    assert tag(reply, BEGAN) == tag(first)
    assert reply.metrics["control_corrected"] == 1


def test_a_reply_that_did_not_count_is_forgotten(tmp_path, caplog):
    """Killed, late, refused or lost: the server names the one before, and that is gone on from."""
    _, first = trained(tmp_path, asked())
    _, lost = trained(tmp_path, asked(tags=[tag(first)]), change=(9, 9))
    _, lost_too = trained(tmp_path, asked(tags=[tag(first)]), change=(8, 8))
    with caplog.at_level(logging.INFO):
        control = begin_control(tmp_path, asked(tags=[[1, 2], tag(first)]))
    assert control.correction["w"].tolist() == [1, 2]  # 0 - (-1, -2)
    assert tag(lost) != tag(lost_too)
    assert caplog.messages == ["the server did not count what this robot trained last"]


def test_a_robot_that_was_away_goes_on_from_what_the_server_still_has(tmp_path):
    _, first = trained(tmp_path, asked())
    later = asked(mean=(7, 7), tags=[[3, 4], [5, 6], tag(first)])
    assert begin_control(tmp_path, later).correction["w"].tolist() == [8, 9]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"tags": [[1, 2]]}, "the server goes on from no control variate of this robot: it begins"),
        (
            {"trainer": "other"},
            "the control variates of this robot are dropped: they are of anothe",
        ),
        (
            {"checkpoint": Checkpoint(version=5, weights={**WEIGHTS, "v": np.zeros(1, "f4")})},
            "the control variates of this robot are dropped: after: lacks v",
        ),
    ],
    ids=["not counted", "another model", "another shape"],
)
def test_what_does_not_fit_is_dropped_with_a_word(change, word, tmp_path, caplog):
    _, first = trained(tmp_path, asked())
    request = asked(**{"tags": [tag(first)], **change})
    if "checkpoint" in change:
        mean = {**request.groups[CONTROL], "v": np.zeros(1, np.float32)}
        request = replace(request, groups={**request.groups, CONTROL: mean})
    assert begin_control(tmp_path, request).correction is None
    assert caplog.messages[0].startswith(word)


def test_a_damaged_file_is_dropped_with_a_word(tmp_path, caplog):
    _, first = trained(tmp_path, asked())
    (tmp_path / FILE).write_bytes(b"\xff" * 40)
    assert begin_control(tmp_path, asked(tags=[tag(first)])).correction is None
    assert "dropped: control.safetensors: not a readable safetensors file" in caplog.text
    keep(tmp_path / FILE, {"else/w": WEIGHTS["w"]}, {"trainer": "one", "after": "1"})
    assert begin_control(tmp_path, asked(tags=[tag(first)])).correction is None
    assert "dropped: their file is damaged" in caplog.text


def test_a_robot_that_cannot_write_keeps_what_it_had_and_says_so(tmp_path, monkeypatch, caplog):
    _, first = trained(tmp_path, asked())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(own_control, "keep", full)
    _, reply = trained(tmp_path, asked(tags=[tag(first)]), change=(9, 9))
    assert (tag(reply, BEGAN), tag(reply), delta(reply)) == (tag(first), tag(first), [0, 0])
    assert "No space left on device): this robot keeps the control variate" in caplog.text
    assert begin_control(tmp_path, asked(tags=[tag(reply)])).own.tag.tolist() == tag(first)


def test_requests_without_control_variates_are_none_of_it(tmp_path):
    assert begin_control(tmp_path, asked(config=TrainConfig())) is None
    assert begin_control(tmp_path, asked(kind=EVALUATE)) is None


def test_a_server_that_sends_none_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="asks for control variates, and sends none"):
        begin_control(tmp_path, asked(groups={}))


def test_a_gradient_that_is_no_number_is_not_sent(tmp_path):
    request = asked(config=replace(CONFIG, learning_rate=1e-38))
    with pytest.raises(TrainingError, match="control variate of this robot after training: w hol"):
        trained(tmp_path, request, change=(1e30, 0))
    assert not (tmp_path / FILE).exists()
