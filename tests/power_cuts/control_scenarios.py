"""Power cuts while a robot keeps its control variates: those of before or of now, never neither."""

from itertools import count
from pathlib import Path
from unittest import mock

import numpy as np
from power_cuts import Scenario
from recorder import mark

from edge_agent.training.own_control import FILE, begin_control
from fleet_model.protocol.control import CONTROL, FOLDED, TAGS, tag_of
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint, TrainConfig, Update
from fleet_model.weights import read_metadata, read_weights

WEIGHTS = {"w": np.zeros(3, np.float32)}


def _request(folded: int) -> RobotRequest:
    return RobotRequest(
        run="run",
        round=1,
        checkpoint=Checkpoint(version=0, weights=WEIGHTS),
        config=TrainConfig(momentum=0.0, control_variates=1),
        trainer="one",
        trainer_bytes=1,
        deadline_s=1.0,
        groups={CONTROL: WEIGHTS, TAGS: {FOLDED: tag_of(folded)[None]}},
    )


def _three_rounds(root: Path) -> None:
    """Each goes on from the one before: its tag is the number of the round."""
    numbers = count()
    with mock.patch("secrets.randbelow", side_effect=numbers):
        for number in range(3):
            control = begin_control(root, _request(folded=number))
            assert control is not None
            control.finish(_trained(number))
            mark()


def _trained(number: int) -> Update:
    weights = {"w": np.full(3, number + 1, np.float32)}
    return Update(robot="", base_version=0, weights=weights, num_examples=1, num_steps=1)


def _kept(root: Path) -> dict[str, object]:
    """Return what can be gone on from: the number of its round, and its tensor."""
    if not (root / FILE).exists():
        return {}
    numbers, tensors = read_metadata(root / FILE), read_weights(root / FILE)
    return {n: (numbers[n.partition("/")[0]], t.tolist()) for n, t in tensors.items()}


CONTROL_VARIATES = Scenario(
    prepare=lambda root: None, act=_three_rounds, observe=_kept, resume=_three_rounds
)
