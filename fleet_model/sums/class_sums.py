"""Counts, class means and the scatter within classes: all that a head in closed form needs.

The sums of a fleet are those of its robots together, however the frames are divided: ridge
regression and linear discriminant analysis on frozen features give the head that one machine with
all frames would have (Fed3R, Fanì et al. 2024, arXiv:2402.11178; AFL, arXiv:2405.16240).

The scatter is that WITHIN classes, around each class's own mean, and not the raw second moment: it
stays positive semidefinite when only its leading directions travel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fleet_model.types import Tensor


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ClassSums:
    """What one robot, or several together, know of the features of each class; all float64."""

    counts: Tensor  # (classes,) frames; parts of frames where some count for less
    means: Tensor  # (classes, width); zeros for a class without frames
    directions: Tensor  # (rank, width): the scatter within classes is about directions' directions
    # The whole scatter, (width, width), where it is known; `directions` is then empty.
    within: Tensor | None = field(default=None, repr=False)
    robots: int = 1  # whose frames these are: more than 1 of a site relay

    @property
    def width(self) -> int:
        """Return the length of a feature vector."""
        return int(self.means.shape[1])

    @property
    def frames(self) -> float:
        """Return how many frames there are."""
        return float(self.counts.sum())

    def scatter(self) -> Tensor:
        """Return the scatter within classes, (width, width)."""
        return self.directions.T @ self.directions if self.within is None else self.within


_CHUNK = 256  # frames in float64 at once: a robot has little memory


def class_sums(
    features: Sequence[Tensor] | Tensor, classes: Tensor, num_classes: int, rank: int
) -> ClassSums:
    """Return the sums of one robot.

    Args:
        features: of each frame, (width,), any float dtype; at least one.
        classes: (frames,) index of each frame's class.
        num_classes: of the fleet.
        rank: how many leading directions of the scatter are kept; 0: all of it.
    """
    width = np.asarray(features[0]).size
    counts = np.bincount(classes, minlength=num_classes).astype(np.float64)
    means = np.zeros((num_classes, width))
    for start, rows in _chunks(features):
        np.add.at(means, classes[start : start + len(rows)], rows)
    means /= np.maximum(counts, 1)[:, None]
    centered = (
        rows - means[classes[start : start + len(rows)]] for start, rows in _chunks(features)
    )
    if rank and len(features) <= width:
        directions = leading(np.concatenate(list(centered)), rank)
        return ClassSums(counts=counts, means=means, directions=directions)
    within = np.zeros((width, width))
    for rows in centered:
        within += rows.T @ rows
    if rank:
        return ClassSums(counts=counts, means=means, directions=_of_scatter(within, rank))
    nothing = np.zeros((0, width))
    return ClassSums(counts=counts, means=means, directions=nothing, within=within)


def leading(rows: Tensor, rank: int) -> Tensor:
    """Return R, (at most rank, width), with R'R the best approximation of rows'rows of that rank.

    They are the first singular vectors, each as long as its singular value. There are not more rows
    than numbers in each: the small eigenproblem has the same answer.
    """
    values, vectors = np.linalg.eigh(rows @ rows.T)
    return _tidied(vectors[:, np.argsort(values)[::-1][:rank]].T @ rows)


def _of_scatter(scatter: Tensor, rank: int) -> Tensor:
    """Return what `leading` does of rows whose scatter this is."""
    values, vectors = np.linalg.eigh(scatter)
    order = np.argsort(values)[::-1][:rank]
    return _tidied(vectors[:, order].T * np.sqrt(np.maximum(values[order], 0))[:, None])


def _tidied(found: Tensor) -> Tensor:
    """Drop directions that are rounding; fix signs: the largest number of each is positive."""
    lengths = np.linalg.norm(found, axis=1)
    found = found[lengths > lengths.max(initial=0.0) * 1e-9]
    signs = np.sign(found[np.arange(len(found)), np.abs(found).argmax(axis=1)])
    tidied: Tensor = found * signs[:, None]
    return tidied


def _chunks(features: Sequence[Tensor] | Tensor) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(features), _CHUNK):
        yield start, np.asarray(features[start : start + _CHUNK], np.float64)
