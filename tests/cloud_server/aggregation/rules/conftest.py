"""Rounds in memory: a model of two tensors, w of shape (1, 2) and b of shape (), and updates."""

import numpy as np
import pytest

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from fleet_model.types import Checkpoint, Update


@pytest.fixture
def start():
    """Return w = (10, 1), b = 0.5."""
    weights = {"w": np.array([[10, 1]], np.float32), "b": np.array(0.5, np.float32)}
    return Checkpoint(version=4, weights=weights, server_state={"s": np.ones(1)}, seed=11)


@pytest.fixture
def fold(start):
    """Return a function that lets a rule fold the updates (w0, w1) or (w0, w1, b) of robots."""

    def folded(rule, changes, checkpoint=start, **about):
        """`about` has a list for each field of Contribution, one value for each robot."""
        pairs = []
        for n, change in enumerate(changes):
            numbers = np.zeros(3, np.float32)
            numbers[: len(change)] = change
            one = {"examples": 1, "norm": float(np.linalg.norm(numbers.astype(np.float64)))}
            one |= {name: values[n] for name, values in about.items()}
            weights = {"w": numbers[None, :2], "b": numbers[2].reshape(())}
            update = Update(robot="", base_version=4, weights=weights, num_examples=1, num_steps=1)
            pairs.append((Contribution(robot=f"r{n:03}", site="", **one), update))
        return rule.fold(checkpoint, UpdatesInMemory(pairs))

    return folded
