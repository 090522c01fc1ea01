"""What `edge-agent status` tells of texts: which columns are read, how many, what is left out."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_agent.examples.left_out import tell
from fleet_model.durable import write_durably

FILE = "texts.json"  # in the state directory
log = logging.getLogger(__name__)


def write_told(
    file: Path,
    tables: Sequence[Mapping[str, str]],
    counts: Mapping[str, int],
    left_out: Mapping[str, int],
) -> None:
    """Keep what a listing has found, if it is news; a full disk is no reason to stop.

    Args:
        file: where.
        tables: name and columns of each, in words.
        counts: of examples to learn from ("training") and to measure with ("held_out").
        left_out: reason -> rows.
    """
    told = {"tables": [*tables], **counts, "left_out": dict(left_out)}
    if read_told(file) == told:
        return
    try:
        write_durably(file, json.dumps(told))
    except OSError as error:
        log.warning("what was read of texts cannot be kept: %s", error.strerror)


def read_told(file: Path) -> Mapping[str, Any]:
    """Return what was kept; empty without it, and if it is damaged."""
    try:
        told = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def told_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield it in lines for people; none where there is nothing."""
    for table in told.get("tables", ()):
        yield f"texts    {table['name']}: {table['columns']}"
    if told:
        words = f"texts    {told['training']} to learn from, {told['held_out']} held out"
        yield f"{words}; left out: {tell(told['left_out'])}" if told["left_out"] else words
