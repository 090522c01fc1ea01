"""What leaves a robot that adds the noise itself."""

import numpy as np
import pytest

from edge_agent.training.protection import protected, require_protectable
from fleet_model.errors import TrainingError
from fleet_model.types import TrainConfig, Update

CONFIG = TrainConfig(private_clip=0.5, private_noise=2.0)


def update(**changes):
    weights = {"w": np.full(10_000, 3, np.float32)}
    about = {"weights": weights, "num_examples": 7, "num_steps": 2, "metrics": {"loss": 0.5}}
    return Update(robot="", base_version=4, **{**about, **changes})


def test_the_update_is_clipped_and_has_noise_and_what_it_measures_stays():
    sent = protected(update(), CONFIG, lambda: np.random.default_rng(3))
    assert sent.weights["w"].std() == pytest.approx(1.0, rel=0.05)
    assert np.abs(sent.weights["w"].mean()) < 0.05
    assert sent.metrics == {"loss": 0.5, "private_noise": 1.0}
    assert (sent.num_examples, sent.num_steps) == (7, 2)


def test_tensors_that_get_no_noise_do_not_leave_the_robot():
    with pytest.raises(TrainingError, match="'control', which gets no noise: nothing is sent"):
        protected(update(groups={"control": {}}), CONFIG)
    with pytest.raises(TrainingError, match="control variates, which would have none"):
        require_protectable(TrainConfig(private_clip=1, private_noise=1, control_variates=1))
    with pytest.raises(TrainingError, match="with noise, and for none of it"):
        require_protectable(TrainConfig(private_clip=1.0))
    require_protectable(TrainConfig())
    require_protectable(CONFIG)
