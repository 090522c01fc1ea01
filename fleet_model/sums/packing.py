"""Sums as named tensors, both directions side by side.

    name               shape                 dtype
    counts             (classes,)            float32   whole numbers
    counts_low         (classes,)            float32   exact, of a relay only: parts of frames
    means              (seen, width)         float16, in parts of the row's scale; exact: float32
    means_scale        (seen,)               float32   largest number of each row
    means_low          (seen, width)         float32   exact only: what float32 could not hold
    directions         (rank, width)         float16
    directions_scale   (rank,)               float32
    within, within_low (width * (width+1)/2) float32   exact only: the upper triangle, row by row

Rows of means are those of the classes with frames, in the order of the classes. Two float32 hold 48
bits of a float64, so that exact sums are exact to 1e-14.
"""

import numpy as np

from fleet_model.errors import UpdateError
from fleet_model.sums.class_sums import ClassSums
from fleet_model.types import Tensor, Weights

GROUP = "sums"  # of tensors in a reply
MAX_RANK = 64
MAX_FRAMES = 2.0**24  # float32 counts no further
MAX_NUMBER = 1e6  # of a mean: features of a network are a few units long
_FEW = {"counts", "means", "means_scale", "directions", "directions_scale"}
_EXACT = {"counts", "means", "means_low", "within", "within_low"}
_PARTS = "counts_low"  # where a frame of one robot counts for less than one of another


def pack_sums(sums: ClassSums) -> Weights:
    """Return the tensors of one robot's sums, or of several together.

    Raises:
        ValueError: they count parts of frames, and are not exact.
    """
    seen = sums.counts > 0
    counts, counts_low = _split(sums.counts)
    if sums.within is None:
        if counts_low.any():
            raise ValueError("only exact sums count parts of frames")
        means, means_scale = _halved(sums.means[seen])
        directions, directions_scale = _halved(sums.directions)
        return {
            "counts": counts,
            "means": means,
            "means_scale": means_scale,
            "directions": directions,
            "directions_scale": directions_scale,
        }
    means, means_low = _split(sums.means[seen])
    within, within_low = _split(sums.within[np.triu_indices(sums.width)])
    return {
        "counts": counts,
        "means": means,
        "means_low": means_low,
        "within": within,
        "within_low": within_low,
        **({_PARTS: counts_low} if counts_low.any() else {}),
    }


def unpack_sums(tensors: Weights, classes: int, width: int) -> ClassSums:
    """Return the sums that a stranger's tensors hold.

    Args:
        tensors: as `pack_sums` makes them.
        classes: of the fleet.
        width: of a feature vector.

    Raises:
        UpdateError: they are not whole, not finite, or cannot be sums of features; says why.
    """
    exact = "within" in tensors
    parts = exact and _PARTS in tensors
    _require_names(tensors, (_EXACT | {_PARTS} if parts else _EXACT) if exact else _FEW)
    if parts:
        counts = _joined(tensors, "counts", (classes,))
    else:
        counts = _taken(tensors, "counts", (classes,), np.float32).astype(np.float64)
    broken = not parts and (counts != np.round(counts)).any()
    if (counts < 0).any() or broken or counts.max() > MAX_FRAMES:
        raise UpdateError("the sums count frames in numbers that are not whole, or too large")
    seen = counts > 0
    if not seen.any():
        raise UpdateError("the sums are of no frames")
    rows = int(seen.sum())
    means = np.zeros((classes, width))
    if not exact:
        means[seen] = _whole(tensors, "means", rows, width)
        rank = min(len(tensors["directions"].reshape(-1)) // width, MAX_RANK + 1)
        if rank > MAX_RANK:
            raise UpdateError(f"the sums have more than {MAX_RANK} directions")
        sums = ClassSums(
            counts=counts, means=means, directions=_whole(tensors, "directions", rank, width)
        )
    else:
        means[seen] = _joined(tensors, "means", (rows, width))
        sums = ClassSums(
            counts=counts,
            means=means,
            directions=np.zeros((0, width)),
            within=_square(_joined(tensors, "within", (width * (width + 1) // 2,)), width),
        )
    if np.abs(sums.means).max() > MAX_NUMBER:
        raise UpdateError(f"the sums have a mean above {MAX_NUMBER:g}: no features are so large")
    return sums


def require_scatter(sums: ClassSums) -> None:
    """Raise UpdateError unless the scatter within classes can be one of features."""
    spread = np.sqrt(max(np.trace(sums.scatter()), 0.0) / sums.frames)
    if not spread <= MAX_NUMBER * np.sqrt(sums.width):
        raise UpdateError(f"the sums have frames {spread:.3g} away from their means")
    if sums.within is None:
        return  # D'D is positive semidefinite whatever D is
    load = 1e-7 * np.trace(sums.within) / sums.width + 1e-12  # rounding may leave a little less
    try:
        np.linalg.cholesky(sums.within + load * np.eye(sums.width))
    except np.linalg.LinAlgError:
        raise UpdateError(
            "the scatter of the sums is not positive semidefinite: no features have it"
        ) from None


def _halved(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows in float16 between -1 and 1, and the scale of each."""
    scale = np.abs(rows).max(axis=1, initial=0.0).astype(np.float32)
    safe = np.where(scale > 0, scale, np.float32(1))
    return np.clip(rows / safe[:, None], -1, 1).astype(np.float16), scale


def _split(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return float64 numbers as the sum of two float32."""
    high = numbers.astype(np.float32)
    return high, (numbers - high).astype(np.float32)


def _whole(tensors: Weights, name: str, rows: int, width: int) -> Tensor:
    values = _taken(tensors, name, (rows, width), np.float16).astype(np.float64)
    scale = _taken(tensors, f"{name}_scale", (rows,), np.float32).astype(np.float64)
    if np.abs(values).max(initial=0.0) > 1 or (scale < 0).any():
        raise UpdateError(f"the sums: {name} is not in parts of its scale")
    return values * scale[:, None]


def _joined(tensors: Weights, name: str, shape: tuple[int, ...]) -> Tensor:
    high = _taken(tensors, name, shape, np.float32).astype(np.float64)
    return high + _taken(tensors, f"{name}_low", shape, np.float32)


def _square(triangle: Tensor, width: int) -> Tensor:
    square = np.zeros((width, width))
    square[np.triu_indices(width)] = triangle
    return square + np.triu(square, 1).T


def _taken(tensors: Weights, name: str, shape: tuple[int, ...], dtype: type) -> Tensor:
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        raise UpdateError(
            f"the sums: {name} is {tensor.dtype} of shape {tensor.shape}, expected "
            f"{np.dtype(dtype)} of shape {shape}"
        )
    if not np.isfinite(tensor).all():
        raise UpdateError(f"the sums: {name} holds NaN or infinity, expected finite numbers")
    return tensor


def _require_names(tensors: Weights, expected: set[str]) -> None:
    if strange := sorted(tensors.keys() ^ expected):
        raise UpdateError(
            f"the sums have {', '.join(sorted(tensors))[:200]!a}, expected "
            f"{', '.join(sorted(expected))}; they differ in {strange[0][:60]!a}"
        )
