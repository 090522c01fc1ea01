"""Power cuts while a robot keeps what its coded updates leave out."""

from pathlib import Path

import numpy as np
from power_cuts import Scenario
from recorder import mark

from edge_agent.training.residual import Residual
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint, TrainConfig, Update

MODEL = {"kernel": np.zeros((30, 4), np.float32)}


def _asked(version: int) -> RobotRequest:
    return RobotRequest(
        run="run", round=version + 1, checkpoint=Checkpoint(version=version, weights=MODEL),
        config=TrainConfig(), trainer="ab" * 32, trainer_bytes=1, deadline_s=60.0,
        reply_codec="int8",
    )  # fmt: skip


def _answer(root: Path, version: int) -> None:
    residual, asked = Residual(root, lambda: ("run", version)), _asked(version)
    kernel = np.random.default_rng(version).normal(size=(30, 4)).astype(np.float32)
    update = Update(
        robot="", base_version=version, weights={"kernel": kernel}, num_examples=1, num_steps=1
    )
    residual.send(asked, residual.before(asked), update)
    mark()


def _owed(root: Path) -> list[list[float]]:
    """Return what is owed if the last update has counted, and if it has not."""
    answers = ("run", 2), ("", 0)
    owed = [Residual(root, lambda said=said: said).before(_asked(2)) for said in answers]
    return [tensors["kernel"].ravel().tolist() for tensors in owed]


RESIDUAL = Scenario(
    prepare=lambda root: _answer(root, 0),
    act=lambda root: _answer(root, 1),
    observe=_owed,
    resume=lambda root: _answer(root, 1),  # the server has no reply, and asks again
)
