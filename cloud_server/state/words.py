"""Parts of messages: names of many robots in one line, commands that can be copied."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

NAMED = 12  # robots that a message names; 10,000 of them would be megabytes in every status
_COMMAND = re.compile(r"(\bcloud-server(?: [a-z][a-z-]*)+) DIR\b")


def few(parts: Sequence[str]) -> list[str]:
    """Return the first of them, and how many more there are."""
    more = len(parts) - NAMED
    return [*parts[:NAMED], *([f"and {more} more"] if more > 0 else [])]


def names(of: Iterable[str]) -> str:
    """Return names in order, such that thousands of robots fit into one line."""
    return ", ".join(few(sorted(of))) or "none"


def clusters_in_words(clusters: Mapping[str, int]) -> str:
    """Return which sites are together, "" of none: "2 clusters: hall-1, hall-2 | hall-3"."""
    groups: dict[int, list[str]] = {}
    for site, cluster in clusters.items():
        groups.setdefault(cluster, []).append(site)
    told = " | ".join(names(groups[cluster]) for cluster in sorted(groups))
    return f"{len(groups)} cluster{'s' * (len(groups) != 1)}: {told}" if groups else ""


def privacy_in_words(told: Mapping[str, float | str]) -> str:
    """Return what a round's record says of privacy, "" of none."""
    if not told:
        return ""
    return (
        f"private ({told['mode']}): epsilon {told['epsilon']:.4g} in this run, "
        f"{told['epsilon_of_all_runs']:.4g} in all runs, at delta {told['delta']:g}; the measures "
        "and counts that robots report have no noise"
    )


def with_directory(text: str, directory: Path) -> str:
    """Return a text in which every `cloud-server ... DIR` names the directory.

    Messages say DIR where they are made, because robots read some of them, and a robot need not
    know where the server's files lie.
    """
    if " DIR" not in text:
        return text
    return _COMMAND.sub(lambda found: f"{found[1]} {shlex.quote(str(directory))}", text)
