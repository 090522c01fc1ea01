"""Tensors that this robot keeps from one request to the next, and texts that say what they are of.

Such a file of its state is replaced in one step, so after any end of the agent it is that of one
whole request. What does not fit a request, or is damaged, is for its owner to drop or to refuse.
"""

from collections.abc import Mapping
from pathlib import Path

from fleet_model.durable import remove_asides
from fleet_model.types import Weights
from fleet_model.weights import read_metadata, read_weights, write_weights


def read_kept(file: Path) -> tuple[Mapping[str, str], Weights] | None:
    """Return texts and tensors; None if there is no file. Raises CheckpointError: it is damaged."""
    if not file.exists():
        return None
    return read_metadata(file), read_weights(file)


def keep(file: Path, tensors: Weights, texts: Mapping[str, str] | None = None) -> None:
    """Replace a file, and remove what killed processes have left beside it; raises OSError."""
    remove_asides(file.parent)
    write_weights(file, tensors, texts)
