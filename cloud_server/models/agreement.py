"""How well a written file agrees with what it was written from; the same for every framework."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleet_model.errors import ExportError
from fleet_model.signatures import OUTPUTS
from fleet_model.types import Tensor, Tensors
from fleet_model.workload import Sample, Workload


def require_all(expected: Tensors, actual: Tensors, name: str, tolerance: float) -> float:
    """Return the worst relative difference (L2) of the outputs of one file.

    Raises:
        ExportError: it is above `tolerance`, or a shape is another one.
    """
    return max(
        require_near(values, actual[key], f"{name}: {titled(key, expected)}", tolerance)
        for key, values in expected.items()
    )


def require_near(expected: Any, actual: Any, what: str, tolerance: float) -> float:
    """Return the relative difference (L2) of two arrays; raises as `require_all`."""
    if np.shape(expected) != np.shape(actual):
        raise ExportError(
            f"{what} have shape {np.shape(actual)}, expected {np.shape(expected)}; the file is not "
            "used"
        )
    difference = np.subtract(actual, expected, dtype=np.float64)  # garbage overflows float32
    error = float(np.linalg.norm(difference)) / max(float(np.linalg.norm(expected)), 1e-6)
    if not error <= tolerance:  # NaN is refused too
        raise ExportError(
            f"{what} are off by {error:.1e} (relative), at most {tolerance:.0e} is allowed; "
            "the file is not used"
        )
    return error


def titled(name: str, outputs: Tensors) -> str:
    """Return what one of several outputs is called in a sentence."""
    return OUTPUTS if len(outputs) == 1 else f"outputs {name!r}"


def label_agreement(
    workload: Workload, one: Mapping[str, Tensor], other: Tensors, samples: Sequence[Sample]
) -> float:
    """Return the share of samples with the same best label; outputs are (samples, *shape)."""
    pairs = zip(*(_best(workload, outputs, samples) for outputs in (one, other)), strict=True)
    return float(np.mean([ours == theirs for ours, theirs in pairs]))


def _best(workload: Workload, outputs: Tensors, samples: Sequence[Sample]) -> Sequence[str]:
    """Return the label of the best prediction for every sample; "" where there is none."""
    found = (
        workload.decode({n: rows[i] for n, rows in outputs.items()}, s.encoded.context)
        for i, s in enumerate(samples)
    )
    return [predictions[0].label if predictions else "" for predictions in found]
