"""Names of robots in a sentence, such that thousands of them fit into one line."""

from collections.abc import Iterable, Sequence

NAMED = 12  # robots that a message names; 10,000 of them would be megabytes in every status


def few(parts: Sequence[str]) -> list[str]:
    """Return the first of them, and how many more there are."""
    more = len(parts) - NAMED
    return [*parts[:NAMED], *([f"and {more} more"] if more > 0 else [])]


def names(of: Iterable[str]) -> str:
    """Return names in order, such that thousands of robots fit into one line."""
    return ", ".join(few(sorted(of))) or "none"
