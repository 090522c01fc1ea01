"""How many clusters sites fall into, and which: k-means with the elbow or the silhouette.

The number is the k in 2..min(5, n - 1) with the sharpest bend of the inertia, that is the largest
I(k-1) - 2 I(k) + I(k+1), or the one with the largest silhouette (Rousseeuw 1987). Where even the
best silhouette is below ONE_CLUSTER, points lie in one cloud: one cluster.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cloud_server.sites.kmeans import Partition, k_means
from fleet_model.types import Tensor

Choice = Literal["elbow", "silhouette"]
MOST_CLUSTERS = 5
ONE_CLUSTER = 0.25  # Kaufman and Rousseeuw 1990: below it, no substantial structure
# Longer vectors of many sites are projected at random onto so many axes: squared distances keep
# their size within 9 % (Johnson and Lindenstrauss), noise and structure alike.
AXES = 256
SAMPLE = 1000  # points whose silhouettes are averaged where there are more


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Clusters:
    """What was found among n points."""

    labels: Tensor  # (n,) int64, from 0 in the order of the points
    inertia: Mapping[int, float]  # k -> I(k), k = 1..min(6, n)
    silhouette: Mapping[int, float]  # k -> mean over points, k = 2..min(5, n - 1)

    @property
    def count(self) -> int:
        """Return the number of clusters."""
        return int(self.labels.max()) + 1


def find_clusters(
    points: Tensor, choose: Choice = "elbow", seed: int = 0, most: int = MOST_CLUSTERS
) -> Clusters:
    """Return the clusters of points.

    Args:
        points: (n, d), n >= 1; any float type, finite.
        choose: what decides how many.
        seed: of starts, projection and sample.
        most: 1 to MOST_CLUSTERS: how many there may be.

    Raises:
        ValueError: a number is not finite, or there is no point.
    """
    if points.ndim != 2 or not len(points):
        raise ValueError(f"the points have the shape {points.shape}, expected (n, d), n >= 1")
    if not np.isfinite(points).all():
        raise ValueError("the points have numbers that are not finite")
    fewer = _with_fewer_axes(points, seed)
    found = {k: k_means(fewer, k, seed) for k in range(1, min(most + 1, len(points)) + 1)}
    several = range(2, min(most, len(points) - 1) + 1)
    inertia = {k: partition.inertia for k, partition in found.items()}
    silhouette = _silhouettes(fewer, {k: found[k] for k in several}, seed)
    k = _number(inertia, silhouette, choose)
    return Clusters(labels=found[k].labels, inertia=inertia, silhouette=silhouette)


def elbow(inertia: Mapping[int, float]) -> int:
    """Return the k of the sharpest bend, the smallest of equals; `inertia` has k = 1..K, K >= 3."""
    inner = [k for k in sorted(inertia) if k - 1 in inertia and k + 1 in inertia]
    return max(inner, key=lambda k: (inertia[k - 1] - 2 * inertia[k] + inertia[k + 1], -k))


def silhouette(points: Tensor, labels: Tensor, among: Tensor | None = None) -> float:
    """Return the mean of (b - a) / max(a, b) over points, in -1..1; 0 for a point by itself.

    a is a point's mean distance to the others of its cluster, b the least mean distance to the
    points of another one.

    Args:
        points: (n, d) float64.
        labels: (n,) from 0.
        among: indices of the points whose mean it is; None: all.
    """
    rows = np.arange(len(points)) if among is None else among
    squares = np.einsum("nd,nd->n", points, points)
    products = points[rows] @ points.T  # (rows, n)
    apart = np.sqrt(np.maximum(squares[rows, None] - 2 * products + squares, 0.0))
    apart[np.arange(len(rows)), rows] = 0.0  # rounding leaves something
    member = np.eye(int(labels.max()) + 1)[labels]  # (n, k)
    sums, counts, own = apart @ member, member.sum(axis=0), labels[rows]
    if len(counts) < 2:
        return 0.0
    at = np.arange(len(rows))
    inside = sums[at, own] / np.maximum(counts[own] - 1, 1)
    means = sums / counts
    means[at, own] = np.inf
    outside = means.min(axis=1)
    longest = np.maximum(inside, outside)
    values = np.where(longest > 0, (outside - inside) / np.where(longest > 0, longest, 1), 0.0)
    return float(np.where(counts[own] > 1, values, 0.0).mean())


def similarity(points: Tensor) -> Tensor:
    """Return the cosines between points as seen from their mean: (n, n), 0 for one in it."""
    products = _products(points)
    lengths = np.sqrt(np.maximum(np.diag(products), 0.0))
    # Of equal points rounding leaves a length that means nothing.
    tiny = 1e-12 * max(float(np.abs(points).max(initial=0.0)), 1e-300)
    inverse = np.where(lengths > tiny, 1 / np.maximum(lengths, tiny), 0.0)
    cosines: Tensor = np.clip(products * inverse[:, None] * inverse, -1.0, 1.0)
    return cosines


def nearest_ways(ways: Tensor, old: Tensor, labels: Tensor) -> Tensor:
    """Return the cluster of each new point: the largest cosine between its way and the cluster's.

    Args:
        ways: (n, d): from what all start from to where each is.
        old: (n,) bool: which have been clustered.
        labels: of those, from 0.

    Returns:
        (new points,) int64, in their order.
    """
    wide = ways.astype(np.float64)
    means = np.stack([wide[old][labels == k].mean(axis=0) for k in range(int(labels.max()) + 1)])
    lengths = np.linalg.norm(means, axis=1)
    nearest: Tensor = np.argmax(wide[~old] @ means.T / np.maximum(lengths, 1e-300), axis=1)
    return nearest


def adjusted_rand(first: Tensor, second: Tensor) -> float:
    """Return how far two partitions agree beyond chance (Hubert and Arabie 1985): 1 the same."""
    table = np.zeros((int(first.max()) + 1, int(second.max()) + 1))
    np.add.at(table, (first, second), 1)
    pairs, total = _pairs(table).sum(), _pairs(np.array(len(first)))
    rows, columns = _pairs(table.sum(axis=1)).sum(), _pairs(table.sum(axis=0)).sum()
    chance, most = rows * columns / max(total, 1.0), (rows + columns) / 2
    return 1.0 if most == chance else float((pairs - chance) / (most - chance))


def _pairs(counts: Tensor) -> Tensor:
    pairs: Tensor = counts * (counts - 1) / 2
    return pairs


def _number(inertia: Mapping[int, float], silhouettes: Mapping[int, float], choose: Choice) -> int:
    if not silhouettes or max(silhouettes.values()) < ONE_CLUSTER:
        return 1
    if choose == "elbow":
        return elbow(inertia)
    return max(silhouettes, key=lambda k: (silhouettes[k], -k))


def _silhouettes(
    points: Tensor, partitions: Mapping[int, Partition], seed: int
) -> dict[int, float]:
    among = None
    if len(points) > SAMPLE:
        rng = np.random.default_rng([seed, 0, 1])
        among = np.sort(rng.choice(len(points), SAMPLE, replace=False))
    return {k: silhouette(points, one.labels, among) for k, one in partitions.items()}


def _with_fewer_axes(points: Tensor, seed: int) -> Tensor:
    """Return points (n, at most AXES or n) as float64, with the same distances or nearly so."""
    n, d = points.shape
    if d <= AXES:
        wide = points.astype(np.float64)
        return np.asarray(wide - wide.mean(axis=0))
    if n <= AXES:  # exact: n points span at most n axes
        values, vectors = np.linalg.eigh(_products(points))
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
    rng = np.random.default_rng([seed, 0, 2])
    total = np.zeros((n, AXES))
    for part in _pieces(points, 1024):
        axes = rng.standard_normal((part.shape[1], AXES), dtype=np.float32)
        total += part.astype(np.float32) @ axes
    total /= np.sqrt(AXES)
    return total


def _products(points: Tensor) -> Tensor:
    """Return the dot products of points as seen from their mean: (n, n) float64."""
    total = np.zeros((len(points), len(points)))
    for part in _pieces(points, 1 << 16):
        total += part @ part.T
    return total


def _pieces(points: Tensor, size: int) -> Iterator[Tensor]:
    """Yield columns of points as seen from their mean, float64: models may be large."""
    for begin in range(0, points.shape[1], size):
        part = points[:, begin : begin + size].astype(np.float64)
        yield part - part.mean(axis=0)
