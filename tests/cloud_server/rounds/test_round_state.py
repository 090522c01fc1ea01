"""Whom a round asks: the draw follows from the checkpoint, and differs from one to the next."""

import numpy as np
import pytest

from cloud_server.rounds.fleet import Participant
from cloud_server.rounds.round_state import RoundState
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.settings import RoundSettings
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint, TrainConfig

ROBOTS = [
    Participant(node_id=n, name=f"r{n:02d}", site="hall", labels=(), report=None) for n in range(30)
]
RULES = RoundSettings(
    mode="sync",
    quorum=1,
    target=10,
    deadline_s=60.0,
    wait_s=0.0,
    max_staleness=0,
)


def drawn(*, version=7, seed=0, run="run", round=1, attempt=0):
    """Return the names of the robots that a round would ask."""
    request = RobotRequest(
        run=run,
        round=round,
        checkpoint=Checkpoint(version=version, seed=seed, weights={"w": np.ones(2, np.float32)}),
        config=TrainConfig(),
        trainer="ab" * 32,
        trainer_bytes=1,
        deadline_s=60.0,
    )
    checks = CheckSettings(max_examples_per_robot=100, max_update_mb=1.0, max_norm_ratio=10.0)
    state = RoundState(request, RULES, checks, attempt=attempt)
    state.plan(ROBOTS)
    return sorted(state.robots)


def test_the_same_round_draws_the_same_robots():
    assert drawn() == drawn()
    assert len(drawn()) == 10


@pytest.mark.parametrize(
    "changed", [{"version": 8}, {"seed": 1}, {"run": "other"}, {"round": 2}, {"attempt": 1}]
)
def test_whatever_tells_two_rounds_apart_draws_other_robots(changed):
    assert drawn(**changed) != drawn()
