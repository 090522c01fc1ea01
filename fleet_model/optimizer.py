"""Turn gradients into new weights: momentum or Adam, FedProx, clipping, for every framework alike.

Pure functions on named float32 tensors: nothing is changed in place. Numbers become float32 first,
because NumPy 1 (ROS 2 Humble) turns tensor * 1e39 into float64. One step of a robot is

    g = gradient + mu * (w - w_global)      FedProx, the gradient of arXiv:1812.06127, equation 2
    g = g * min(1, clip_norm / |g|)         over all tensors taken as one vector
    g = g + c - c_i                         SCAFFOLD's correction, where the server asks for it
    v = momentum * v - learning_rate * g    heavy ball
    w = w + v

or, where the server asks for `adaptive`, in place of the last two, Adam (arXiv:1412.6980,
algorithm 1) with beta1 = momentum, beta2 = adaptive, from moments of zero in every round.
"""

from typing import NamedTuple, TypeAlias

import numpy as np

from fleet_model.types import Tensor, TrainConfig, Weights
from fleet_model.weights import l2_norm

# Added to each count of a class (Krichevsky and Trofimov 1981): one without examples has a share,
# too. A robot that sees a single class would have nothing to learn otherwise.
UNSEEN = 0.5
EPSILON = np.float32(1e-8)  # of Adam, as in the paper


class Moments(NamedTuple):
    """What Adam knows of the gradients of a round."""

    mean: Weights
    square: Weights
    steps: int


Velocity: TypeAlias = Weights | Moments  # what one step passes to the next


def log_shares(counts: Tensor, tau: float) -> Tensor:
    """Return tau * log(share) of each class, by which training adjusts logits.

    Args:
        counts: examples of each class, shape (classes,).
        tau: 1: as in arXiv:2007.07314, equation 10.

    Returns:
        Shape (classes,) float32.
    """
    shares = (counts + UNSEEN) / (counts.sum() + UNSEEN * len(counts))
    adjustment: Tensor = (tau * np.log(shares)).astype(np.float32)
    return adjustment


def still(weights: Weights) -> Velocity:
    """Return the velocity at the start of a round: zeros."""
    return _zeros(weights)


def add_proximal(gradients: Weights, weights: Weights, origin: Weights, mu: float) -> Weights:
    """Add the gradient of mu/2 * |weights - origin|^2 (arXiv:1812.06127, equation 2)."""
    if mu == 0:
        return gradients
    pull = np.float32(mu)
    return {name: g + pull * (weights[name] - origin[name]) for name, g in gradients.items()}


def clip_by_global_norm(gradients: Weights, limit: float) -> Weights:
    """Scale all tensors by one factor so that their joint L2 norm is at most `limit`; 0 = off."""
    norm = l2_norm(gradients) if limit > 0 else 0.0
    if norm <= limit:
        return gradients
    scale = np.float32(limit / norm)
    return {name: g * scale for name, g in gradients.items()}


def momentum_step(
    weights: Weights, velocity: Weights, gradients: Weights, learning_rate: float, momentum: float
) -> tuple[Weights, Weights]:
    """Return (weights, velocity) after one step, as keras.optimizers.SGD(momentum) does it."""
    keep, rate = np.float32(momentum), np.float32(learning_rate)
    velocity = {name: keep * velocity[name] - rate * g for name, g in gradients.items()}
    return {name: weights[name] + v for name, v in velocity.items()}, velocity


def adam_step(
    weights: Weights,
    moments: Moments,
    gradients: Weights,
    learning_rate: float,
    betas: tuple[float, float],
) -> tuple[Weights, Moments]:
    """Return (weights, moments) after one step, as torch.optim.Adam does it."""
    (one, two), count = betas, moments.steps + 1
    rate = np.float32(learning_rate / (1 - one**count))
    length = np.float32((1 - two**count) ** 0.5)
    mean, square, after = {}, {}, {}
    for name, g in gradients.items():
        mean[name] = np.float32(one) * moments.mean[name] + np.float32(1 - one) * g
        square[name] = np.float32(two) * moments.square[name] + np.float32(1 - two) * g * g
        root = np.sqrt(square[name]) / length + EPSILON
        after[name] = weights[name] - rate * mean[name] / root
    return after, Moments(mean, square, count)


def step(
    weights: Weights,
    velocity: Velocity,
    gradients: Weights,
    origin: Weights,
    config: TrainConfig,
    correction: Weights | None = None,
) -> tuple[Weights, Velocity]:
    """Return (weights, velocity) after one whole step of a robot; it begins with `still`.

    Clipping comes after the proximal term: what is bounded is the gradient of everything the robot
    minimizes. Without momentum a step moves the weights by learning_rate * clip_norm at most.

    A correction (SCAFFOLD's c - c_i) comes last: what is left without it is then the robot's own
    step, which c_i is the mean of, and the corrections of all robots add up to nothing.
    """
    own = add_proximal(gradients, weights, origin, config.proximal_mu)
    own = clip_by_global_norm(own, config.clip_norm)
    if correction is not None:
        own = {name: g + correction[name] for name, g in own.items()}
    if config.adaptive > 0:
        if not isinstance(velocity, Moments):
            velocity = Moments(velocity, _zeros(weights), 0)
        betas = config.momentum, config.adaptive
        return adam_step(weights, velocity, own, config.learning_rate, betas)
    assert not isinstance(velocity, Moments)
    return momentum_step(weights, velocity, own, config.learning_rate, config.momentum)


def _zeros(weights: Weights) -> Weights:
    return {name: np.zeros_like(tensor) for name, tensor in weights.items()}
