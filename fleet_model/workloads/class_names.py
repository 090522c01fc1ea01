"""The names of what a workload tells apart, as an operator gives them."""

from collections.abc import Sequence

from fleet_model.errors import SettingsError


def checked_names(labels: Sequence[str], least: int) -> tuple[str, ...]:
    """Return the names.

    Args:
        labels: names, in the order of a model's outputs.
        least: how many there must be.

    Raises:
        SettingsError: they are no names, too few, or one stands twice.
    """
    names = isinstance(labels, (list, tuple)) and all(isinstance(n, str) and n for n in labels)
    if not names:
        raise SettingsError(f"labels are {labels!r}, expected a list of names")
    if len(labels) < least:
        count = {1: "one", 2: "two"}.get(least, least)
        raise SettingsError(
            f"labels are {list(labels)}, expected at least {count}, e.g. --labels clear,blocked"
        )
    if len(set(labels)) < len(labels):
        raise SettingsError(f"labels are {list(labels)}, expected no name twice")
    return tuple(labels)
