"""k-means: k-means++ starts (Arthur and Vassilvitskii 2007), Lloyd's iterations, several restarts.

By hand in NumPy: sixty lines against the 150 MB of scikit-learn and SciPy, whose bits change with
the number of threads. Everything follows from the points, their order and the seed.
"""

from dataclasses import dataclass

import numpy as np

from fleet_model.types import Tensor

RESTARTS, OF_MANY = 10, 3  # OF_MANY: of more than 2,000 points; 10,000 take 6 s
# Points that one product takes: with 256 axes and 6 means OpenBLAS then computes it in one thread.
# The bits do not depend on the number of threads, and on a busy machine, where threads wait for
# each other, 1,000 sites take 0.5 s of CPU in place of 5.6.
_ROWS = 128
_TRIED = 3
_ITERATIONS = 100  # of Lloyd: points as few and as clear as sites need fewer than ten


@dataclass(frozen=True, eq=False, slots=True)
class Partition:
    """Points in at most k groups."""

    labels: Tensor  # (n,) int64: group of each point, numbered in the order of their first points
    inertia: float  # sum of squared distances to the means of the groups


def k_means(points: Tensor, k: int, seed: int) -> Partition:
    """Return the best partition of several starts; the first one of equals.

    Args:
        points: (n, d) float64, finite.
        k: 1..n. Fewer distinct points than k give fewer groups.
        seed: of the starts.
    """
    if not 1 <= k <= len(points):
        raise ValueError(f"k is {k}, expected 1 to {len(points)} (the number of points)")
    if not np.isfinite(points).all():
        raise ValueError("the points have numbers that are not finite")
    centered = points - points.mean(axis=0)  # small numbers: squares cancel less
    squares = np.einsum("nd,nd->n", centered, centered)  # (n,)
    best: Partition | None = None
    restarts = OF_MANY if len(points) > 2000 else RESTARTS
    for restart in range(restarts if k > 1 else 1):
        rng = np.random.default_rng([seed, k, restart])
        found = _lloyd(centered, squares, _start(centered, squares, k, rng))
        if best is None or found.inertia < best.inertia * (1 - 1e-9):
            best = found
    assert best is not None
    return best


def in_order(labels: Tensor) -> Tensor:
    """Number groups 0, 1, ... in the order of their first points: (n,) int64."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    ranks: Tensor = np.argsort(np.argsort(first))[inverse.reshape(-1)]
    return ranks


def _start(points: Tensor, squares: Tensor, k: int, rng: np.random.Generator) -> Tensor:
    """Draw k points, each with a chance that grows with its squared distance to those drawn.

    Of _TRIED points the one is taken that leaves the least distances, as scikit-learn does.
    """
    chosen = [int(rng.integers(len(points)))]
    nearest = _squared(points, squares, points[chosen])[:, 0]
    while len(chosen) < k:
        total = np.cumsum(nearest)
        if total[-1] <= 0:  # only copies of what is drawn are left
            break
        drawn = np.searchsorted(total, rng.random(_TRIED) * total[-1], side="right")
        drawn = np.minimum(drawn, len(points) - 1)
        left = np.minimum(nearest[:, None], _squared(points, squares, points[drawn]))  # (n, tried)
        best = int(np.argmin(left.sum(axis=0)))
        chosen.append(int(drawn[best]))
        nearest = left[:, best]
    means: Tensor = points[chosen]
    return means


def _lloyd(points: Tensor, squares: Tensor, means: Tensor) -> Partition:
    labels = np.full(len(points), -1)
    for _ in range(_ITERATIONS):
        nearest = np.argmin(_squared(points, squares, means), axis=1)  # of equals the first
        if np.array_equal(nearest, labels):
            break
        labels = nearest
        member = np.arange(len(means))[:, None] == labels  # (k, n)
        counts = member.sum(axis=1)
        full = counts > 0  # a group that has lost its points keeps its mean, and may win others
        sums = _sums(member.astype(np.float64), points)
        means = np.where(full[:, None], sums / np.maximum(counts, 1)[:, None], means)
    apart = points - means[labels]
    return Partition(in_order(labels), float(np.einsum("nd,nd->", apart, apart)))


def _squared(points: Tensor, squares: Tensor, means: Tensor) -> Tensor:
    """Return squared distances (n, k); rounding must not make them negative."""
    turned = np.ascontiguousarray(means.T)
    products = np.concatenate(
        [points[at : at + _ROWS] @ turned for at in range(0, len(points), _ROWS)]
    )
    of_means = np.einsum("kd,kd->k", means, means)
    distances: Tensor = np.maximum(squares[:, None] - 2 * products + of_means, 0.0)
    return distances


def _sums(member: Tensor, points: Tensor) -> Tensor:
    """Return the sum of the points of each group: (k, n) of 0 and 1, (n, d) -> (k, d)."""
    sums = np.zeros((len(member), points.shape[1]))
    for at in range(0, len(points), _ROWS):
        sums += member[:, at : at + _ROWS] @ points[at : at + _ROWS]
    return sums
