"""Try a new model beside the running one, in the child process of trial_process.py."""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_agent.examples.source import SourceSpec
from edge_agent.models.trial_process import TrialJob
from edge_agent.models.verdict import Findings
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError, FleetError, FrameError
from fleet_model.types import Encoded, Example, Prediction, Tensor, Tensors
from fleet_model.workload import Sample, Workload

EMPTY_RUNS = 20  # on zeros, where there are no examples
SHUFFLES = 9999  # of the test against chance: a probability of 0.01 is known to 0.001
RUNNING, CANDIDATE, EXAMPLES = "running", "candidate", "examples"  # whose turn it is
log = logging.getLogger(__name__)


class Answered(NamedTuple):
    """What one engine makes of one example."""

    predictions: Sequence[Prediction]
    milliseconds: float  # without reading and encoding the input
    outputs: Tensors
    target: Tensors | None  # None: the truth is not known to this engine


def try_model(
    job: TrialJob, turn: Callable[[str], None]
) -> tuple[Findings, TFLiteEngine, Sequence[Example]]:
    """Return what a trial shows, the new model, and what it was tried on.

    `turn` is told whose turn it is, for this process may die.

    Raises:
        FleetError: the new model cannot be loaded.
        Exception: whatever a plug-in raises.
    """
    turn(RUNNING)
    running = _open_running(job)
    turn(CANDIDATE)
    candidate = TFLiteEngine(Path(job.candidate), job.precision)
    candidate.warm_up()
    turn(EXAMPLES)
    examples, labelled = examples_for(candidate.workload, job.source, job.examples)
    pairs: list[tuple[Answered, Answered | None]] = []
    for example in examples:
        turn(CANDIDATE)
        after = _answer(candidate, example)
        turn(RUNNING)
        before = _answer(running, example) if running and after else None
        if after:
            pairs.append((after, before))
    turn(CANDIDATE)
    found = _compared(candidate, running, pairs, labelled=labelled)
    if not pairs and running:
        found |= _empty_times(candidate, running)
    labels = {example.label for example in examples} if labelled else set()
    if running and len(labels) == 1 and len(candidate.workload.task.learned) > 1:
        turn(EXAMPLES)
        found |= _kept(candidate, running, labels.pop(), turn)
    version = running.manifest.version if running else None
    return Findings(running=version, **found), candidate, examples


def _open_running(job: TrialJob) -> TFLiteEngine | None:
    """Return the running model; one that is damaged is nothing to compare with."""
    if not job.running:
        return None
    try:
        running = TFLiteEngine(Path(job.running), job.precision)
        running.warm_up()
    except FleetError as error:
        log.warning("the running model is not compared with: %s", error)
        return None
    return running


def examples_for(
    workload: Workload, spec: Mapping[str, Any] | None, most: int
) -> tuple[list[Example], bool]:
    """Return held-out examples with a truth and True; else any frames, and False.

    Args:
        workload: whose truth.
        spec: fields of SourceSpec; None: no examples.
        most: so many, drawn with a fixed seed.
    """
    if spec is None or not most:
        return [], False
    task = workload.task
    source, labels = SourceSpec(**spec).renamed(task.former), task.learned
    try:
        found = list(source.examples(labels))
        if not found and labels:
            found = list(source.examples())
    except FleetError as error:  # it is not the model's fault
        log.warning("the new model is tried without this robot's examples: %s", error)
        return [], False
    except Exception:
        log.exception("the new model is tried without this robot's examples")
        return [], False
    truths = [one for one in found if one.held_out and _target(workload, one) is not None]
    chosen = truths or found
    if len(chosen) > most:
        some = random.Random(0).sample(range(len(chosen)), most)  # noqa: S311
        chosen = [chosen[index] for index in sorted(some)]
    return chosen, bool(truths)


def _target(workload: Workload, example: Example) -> Tensors | None:
    try:
        return workload.target(example).tensors
    except FrameError:
        return None


def _answer(engine: TFLiteEngine, example: Example) -> Answered | None:
    """Return the answer to an example; None for one that cannot be read."""
    try:
        encoded: Encoded = engine.workload.encode(example.raw)
    except FrameError:
        return None
    begin = time.perf_counter()
    outputs = engine.run(encoded.inputs)
    if any(np.isnan(output).any() for output in outputs.values()):
        raise BundleError(f"version {engine.manifest.version} answers what is no number")
    predictions = engine.workload.decode(outputs, encoded.context)
    milliseconds = (time.perf_counter() - begin) * 1e3
    return Answered(predictions, milliseconds, outputs, _target(engine.workload, example))


def _compared(
    candidate: TFLiteEngine,
    running: TFLiteEngine | None,
    pairs: Sequence[tuple[Answered, Answered | None]],
    *,
    labelled: bool,
) -> dict[str, Any]:
    """Return the fields of Findings that these answers show."""
    found: dict[str, Any] = {"examples": len(pairs)}
    both = [(after, before) for after, before in pairs if before is not None]
    if both:
        found |= _times([(a.milliseconds, b.milliseconds) for a, b in both])
    if not labelled or not pairs:
        if both:
            found |= {
                "examples": len(both),
                "agreeing": sum(best_of(a.predictions) == best_of(b.predictions) for a, b in both),
            }
        return found
    name, better = next(iter(candidate.workload.task.measures.items()))
    found |= {"measure": name, "better": better}
    judged = [(a, b) for a, b in both if a.target is not None and b.target is not None]
    if running and judged and running.workload.task.measures.get(name) == better:
        after = [_measured(candidate, name, a) for a, _ in judged]
        before = [_measured(running, name, b) for _, b in judged]
        found["chance"] = chance_of(np.subtract(after, before) * (1 if better == "higher" else -1))
        found["before"] = _measured(running, name, *(b for _, b in judged))
    measured = [a for a, _ in (judged if "before" in found else pairs)]
    value = _measured(candidate, name, *measured)
    return found | {"after": value, "examples": len(measured)}


def _measured(engine: TFLiteEngine, name: str, *answers: Answered) -> float:
    """Return one measure over a batch of answers whose truth is known."""
    outputs, targets = (
        {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        for rows in zip(*((one.outputs, one.target or {}) for one in answers), strict=True)
    )
    return float(engine.workload.measure(outputs, targets).get(name, np.nan))


def chance_of(gains: Tensor) -> float:
    """Return how often chance alone makes a sum of differences so small: a sign-flip test.

    Args:
        gains: (examples,) by how much the new model is better on each; those that are no number
            tell nothing.

    Returns:
        The probability, with signs drawn at random, of a sum that is as low or lower; at least 1 of
        SHUFFLES + 1. Seven examples that are all worse have 1 of 128.
    """
    gains = np.asarray(gains, np.float64)
    gains = gains[np.isfinite(gains) & (gains != 0)]
    if not len(gains):
        return 1.0
    signs = np.random.default_rng(0).integers(0, 2, (SHUFFLES, len(gains)), np.int8) * 2.0 - 1.0
    slack = 1e-9 * np.abs(gains).sum()  # sums of equal numbers differ by their order
    return float((1 + np.sum(signs @ gains <= gains.sum() + slack)) / (SHUFFLES + 1))


def _kept(
    candidate: TFLiteEngine,
    running: TFLiteEngine,
    label: str | None,
    turn: Callable[[str], None],
) -> dict[str, int]:
    """Count inputs that come with the workload and that the running model gives another label.

    With examples of one label, a model that gives this label to everything looks perfect.
    """
    try:
        samples = [list(engine.workload.samples(None)) for engine in (running, candidate)]
    except FleetError as error:
        log.warning("all examples are of one label, and nothing else shows others: %s", error)
        return {}
    turn(RUNNING)
    others = [i for i, one in enumerate(samples[0]) if _label(running, one) != label]
    turn(CANDIDATE)
    kept = sum(_label(candidate, samples[1][i]) != label for i in others)
    return {"samples": len(others), "kept": kept}


def _label(engine: TFLiteEngine, sample: Sample) -> str:
    outputs = engine.run(sample.encoded.inputs)
    found = engine.workload.decode(outputs, sample.encoded.context)
    return found[0].label if found else ""


def best_of(predictions: Sequence[Prediction]) -> tuple[str, str] | None:
    """Return what an answer says first; None for nothing."""
    return next(((one.label, one.text) for one in predictions), None)


def _empty_times(candidate: TFLiteEngine, running: TFLiteEngine) -> dict[str, float]:
    """Return the times of both on zeros, in turns."""

    def milliseconds(engine: TFLiteEngine) -> float:
        begin = time.perf_counter()
        engine.warm_up()
        return (time.perf_counter() - begin) * 1e3

    return _times([(milliseconds(candidate), milliseconds(running)) for _ in range(EMPTY_RUNS)])


def _times(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return the fields of Findings about time; `pairs` are milliseconds (after, before)."""
    return {
        # The shortest: on a busy robot most answers wait for other processes, of either model.
        "after_ms": min(after for after, _ in pairs),
        "before_ms": min(before for _, before in pairs),
        "timed": len(pairs),
        "longer": sum(after > before for after, before in pairs),
    }
