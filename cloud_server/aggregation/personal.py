"""Tensors that stay on the robots, whatever the rule: it sees the others alone.

FedPer (arXiv:1912.00818) keeps the last layers on each client; FedSA-LoRA (arXiv:2410.01463) shares
the A matrices of adapters and keeps B and the classifier. Here it is a list of patterns on names.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from fleet_model.errors import SettingsError
from fleet_model.types import Checkpoint


def personal_tensors(patterns: Sequence[str], names: Collection[str]) -> tuple[str, ...]:
    """Return the names that a pattern matches, in the order of `names`.

    Args:
        patterns: of aggregation.personal: "*" is any text, also with a slash, "?" one character.
        names: of all trained tensors.

    Raises:
        SettingsError: a pattern matches nothing, or nothing would be left to share.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SettingsError(
                f"aggregation.personal: {pattern!r} is the name of no trained tensor; there are "
                f"{', '.join(names)}"
            )
    found = tuple(name for name in names if any(fnmatchcase(name, one) for one in patterns))
    if found and len(found) == len(names):
        raise SettingsError(
            f"aggregation.personal: {', '.join(patterns)} keeps every trained tensor on the robots "
            f"({', '.join(names)}): nothing would be shared"
        )
    return found


def shared_part(checkpoint: Checkpoint, personal: Collection[str]) -> Checkpoint:
    """Return a checkpoint without the tensors that stay on the robots."""
    if not personal:
        return checkpoint
    shared = {name: w for name, w in checkpoint.weights.items() if name not in personal}
    return replace(checkpoint, weights=shared)


def with_personal(folded: Checkpoint, before: Checkpoint, personal: Collection[str]) -> Checkpoint:
    """Return what a round has made, with the last state of the tensors that it did not share.

    Robots without any of their own start from these, and run them.
    """
    if not personal:
        return folded
    weights = {name: folded.weights.get(name, w) for name, w in before.weights.items()}
    return replace(folded, weights=weights)
