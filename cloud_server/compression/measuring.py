"""Measure models side by side: size, accuracy, macro F1, latency; no framework, no disk.

A model is whatever answers one input with its logits, so the table of text and of pictures is one.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fleet_model.confusion.counts import count_confusion
from fleet_model.errors import TrainingError
from fleet_model.types import Tensor

Raw = TypeVar("Raw")
_MB = 1e6


class Scores(NamedTuple):
    """How right a model is."""

    accuracy: float  # 0..1
    macro_f1: float  # 0..1


class Latency(NamedTuple):
    """How long it takes to answer one input."""

    p50_ms: float
    p95_ms: float


class Row(NamedTuple):
    """A model in the table."""

    name: str
    size_bytes: int
    parameters: int
    scores: Scores
    latency: Latency
    memory_bytes: int | None = None  # None: not measured


def scores(
    ask: Callable[[Raw], Tensor], inputs: Sequence[Raw], truth: Sequence[str], known: Sequence[str]
) -> Scores:
    """Return how right a model is.

    Args:
        ask: input -> (labels,) logits.
        inputs: one at least.
        truth: the label of each.
        known: labels, in the order of the logits.

    Raises:
        TrainingError: it answers what is no number: the largest of those would be none.
    """
    pairs = []
    for one, label in zip(inputs, truth, strict=True):
        logits = ask(one)
        if not np.isfinite(logits).all():
            raise TrainingError(f"the model answers {logits.tolist()} to an input of {label!r}")
        pairs.append((label, known[int(logits.argmax())]))
    found = count_confusion(pairs, known)
    assert found.accuracy is not None
    assert found.macro_f1 is not None
    return Scores(found.accuracy, found.macro_f1)


def latencies(
    asks: Mapping[str, Callable[[Raw], Any]], inputs: Sequence[Raw], warm: int = 5
) -> dict[str, Latency]:
    """Return median and 95th percentile of each model, over the inputs, one at a time.

    They are asked in turn, and in the other order every second time: what disturbs the machine for
    a moment disturbs all.

    Args:
        asks: by name.
        inputs: more than `warm`.
        warm: of the first inputs, which are not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in asks}
    names = list(asks)
    for number, one in enumerate(inputs):
        for name in names if number % 2 else names[::-1]:
            before = time.perf_counter()
            asks[name](one)
            if number >= warm:
                found[name].append(1e3 * (time.perf_counter() - before))
    return {
        name: Latency(*(float(np.percentile(values, share)) for share in (50, 95)))
        for name, values in found.items()
    }


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table of models; the first one is what the others are compared with."""
    first = rows[0]
    names = ["", "size", "parameters", "accuracy", "macro F1", "p50", "p95"]
    with_memory = any(row.memory_bytes is not None for row in rows)
    names += ["memory"] * with_memory
    lines = [_line(names), _line(["---"] * len(names))]
    for row in rows:
        size, speed = sized(row.size_bytes), f"{row.latency.p50_ms:.2f} ms"
        if row is not first:
            size += f" (-{1 - row.size_bytes / first.size_bytes:.0%})"
            speed += f" ({first.latency.p50_ms / row.latency.p50_ms:.1f}x)"
        cells = [
            row.name, size, f"{row.parameters / _MB:.2f} M", f"{row.scores.accuracy:.3f}",
            f"{row.scores.macro_f1:.3f}", speed, f"{row.latency.p95_ms:.2f} ms",
        ]  # fmt: skip
        if with_memory:
            cells.append("-" if row.memory_bytes is None else f"{row.memory_bytes / _MB:.1f} MB")
        lines.append(_line(cells))
    return "\n".join(lines)


def sized(count: int) -> str:
    """Return a size in bytes as people read it."""
    return f"{count / _MB:.1f} MB" if count >= _MB else f"{count / 1e3:.0f} kB"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")
