"""Try a new model beside the running one, in the child process of trial_process.py."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.models.answers import Answered, answer_of, examples_for
from edge_agent.models.personal.candidates import (
    answer_with,
    answers_of,
    chosen_with,
    labels_of,
    with_own_tensors,
)
from edge_agent.models.personal.measuring import Asked, Uses
from edge_agent.models.trial_process import TrialJob
from edge_agent.models.verdict import Findings
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import FleetError
from fleet_model.personal.choice import personal_for
from fleet_model.types import Example, Prediction, Tensor, Tensors
from fleet_model.workload import Sample

EMPTY_RUNS = 20  # on zeros, where there are no examples
SHUFFLES = 9999  # of the test against chance: a probability of 0.01 is known to 0.001
RUNNING, CANDIDATE, EXAMPLES = "running", "candidate", "examples"  # whose turn it is
log = logging.getLogger(__name__)


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
    asked = None if job.personal is None else Asked(*job.personal)
    engines, asked = _open_candidate(job, asked)
    candidate = engines[()]
    turn(EXAMPLES)
    own = labels_of(candidate, job.source) if asked else None
    examples, labelled = examples_for(candidate.workload, job.source, job.examples)
    answers: list[tuple[Mapping[Uses, Answered], Answered | None]] = []
    for example in examples:
        turn(CANDIDATE)
        after = answers_of(engines, example)
        turn(RUNNING)
        before = answer_of(running, example) if running and after else None
        if after:
            answers.append((after, before))
    turn(CANDIDATE)
    found: dict[str, Any] = {}
    uses: Uses = ()
    shift: Mapping[str, Tensor] = {}
    if asked and own:
        choice, shift = chosen_with(engines, asked, own, [after for after, _ in answers])
        uses, found = choice.uses, {"personal": choice.model_dump()}
    pairs = [(answer_with(candidate, after, uses, shift), before) for after, before in answers]
    found |= _compared(candidate, running, pairs, labelled=labelled)
    if not pairs and running:
        found |= _empty_times(candidate, running)
    labels = {example.label for example in examples} if labelled else set()
    if running and len(labels) == 1 and len(candidate.workload.task.learned) > 1:
        turn(EXAMPLES)
        found |= _kept(candidate, running, labels.pop(), turn)
    version = running.manifest.version if running else None
    return Findings(running=version, **found), candidate, examples


def _open_candidate(
    job: TrialJob, asked: Asked | None
) -> tuple[Mapping[Uses, TFLiteEngine], Asked | None]:
    """Return the new model under (), and with own tensors where they are tried and can run."""
    bundle = Path(job.candidate)
    personal = personal_for(bundle, job.precision) if asked is None else None
    candidate = TFLiteEngine(bundle, job.precision, personal=personal)
    candidate.warm_up()
    return with_own_tensors(candidate, bundle, asked) if asked else ({(): candidate}, None)


def _open_running(job: TrialJob) -> TFLiteEngine | None:
    """Return the running model; one that is damaged is nothing to compare with."""
    if not job.running:
        return None
    bundle = Path(job.running)
    try:
        personal = personal_for(bundle, job.precision)
        running = TFLiteEngine(bundle, job.precision, personal=personal)
        running.warm_up()
    except FleetError as error:
        log.warning("the running model is not compared with: %s", error)
        return None
    return running


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
        after = _measured_each(candidate, name, [a for a, _ in judged])
        before = _measured_each(running, name, [b for _, b in judged])
        found["chance"] = chance_of(np.subtract(after, before) * (1 if better == "higher" else -1))
        found["before"] = _measured(running, name, *(b for _, b in judged))
    measured = [a for a, _ in (judged if "before" in found else pairs)]
    value = _measured(candidate, name, *measured)
    return found | {"after": value, "examples": len(measured)}


def _measured(engine: TFLiteEngine, name: str, *answers: Answered) -> float:
    """Return one measure over a batch of answers whose truth is known."""
    return float(engine.workload.measure(*_stacked(answers)).get(name, np.nan))


def _measured_each(engine: TFLiteEngine, name: str, answers: Sequence[Answered]) -> Tensor:
    """Return (answers,) how good each is by itself: by the measure, or by what stands for it."""
    by_row: Callable[[Tensors, Tensors], Tensor] | None
    by_row = getattr(engine.workload, "measure_each", None)
    if by_row:
        return np.asarray(by_row(*_stacked(answers)), np.float64)
    return np.array([_measured(engine, name, one) for one in answers])


def _stacked(answers: Sequence[Answered]) -> tuple[Tensors, Tensors]:
    outputs, targets = (
        {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        for rows in zip(*((one.outputs, one.target or {}) for one in answers), strict=True)
    )
    return outputs, targets


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
