"""The Gaussian mechanism on updates: clip, then add noise, on a robot or on the server.

A clipped update has a length (L2, all tensors taken as one vector) of at most `clip`. Noise is
drawn from N(0, (noise_multiplier * clip)^2) for each number.
"""

import secrets
from collections.abc import Mapping

import numpy as np

from fleet_model.types import Tensor, Weights


def fresh_generator() -> np.random.Generator:
    """Return a generator that nobody can repeat: the noise of a known seed can be taken off."""
    return np.random.default_rng(secrets.randbits(256))


def clip_factor(weights: Weights, clip: float) -> float:
    """Return by what an update is to be multiplied so that it is no longer than `clip`: <= 1."""
    squares = (float(np.sum(np.square(w, dtype=np.float64))) for w in weights.values())
    length = float(np.sqrt(sum(squares)))
    return clip / length if length > clip else 1.0


def with_noise(
    sums: Mapping[str, Tensor], deviation: float, random: np.random.Generator
) -> dict[str, Tensor]:
    """Return tensors with noise, float64, in the order of their names."""
    return {
        name: sums[name] + random.normal(0.0, deviation, np.shape(sums[name]))
        for name in sorted(sums)
    }


def privately(weights: Weights, clip: float, noise: float, random: np.random.Generator) -> Weights:
    """Return an update as it may be seen: clipped, with noise of `noise * clip`, float32."""
    factor = clip_factor(weights, clip)
    clipped = {name: np.asarray(w, np.float64) * factor for name, w in weights.items()}
    noisy = with_noise(clipped, noise * clip, random)
    return {name: tensor.astype(np.float32) for name, tensor in noisy.items()}
