"""The model as it is shared, and with what this robot has of its own, on the same examples."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_agent.models.answers import Answered, answer_of, examples_for
from edge_agent.models.personal.measuring import Asked, Own, Truth, Uses, choose, own_labels
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError
from fleet_model.personal.choice import OWN_SHARES, OWN_TENSORS, PersonalChoice
from fleet_model.personal.shares import share_shift, shifted
from fleet_model.types import Example, Tensor

log = logging.getLogger(__name__)


def chosen_personal(job: Mapping[str, Any]) -> PersonalChoice | None:
    """Measure an installed version with what this robot has of its own.

    Args:
        job: as PersonalChooser.review sends it.

    Returns:
        What is to run; None if the examples are those of the last time.

    Raises:
        FleetError: the model cannot be loaded.
    """
    bundle, asked = Path(job["bundle"]), Asked(*job["asked"])
    shared = TFLiteEngine(bundle, job["precision"])
    own = labels_of(shared, job["source"])
    if own.digest and own.digest == job["digest"]:
        return None
    engines, asked = with_own_tensors(shared, bundle, asked)
    examples, labelled = examples_for(shared.workload, job["source"], job["examples"])
    found = [answers_of(engines, example) for example in examples] if labelled else []
    choice, _ = chosen_with(engines, asked, own, [one for one in found if one])
    return choice


def with_own_tensors(
    shared: TFLiteEngine, bundle: Path, asked: Asked
) -> tuple[Mapping[Uses, TFLiteEngine], Asked]:
    """Return the shared model under (), and with own tensors; what is asked says why it cannot."""
    engines: dict[Uses, TFLiteEngine] = {(): shared}
    if not asked.tensors:
        return engines, asked
    try:
        own = TFLiteEngine(bundle, shared.precision, personal=asked.with_tensors(shared.precision))
        own.warm_up()
    except (BundleError, RuntimeError) as error:
        log.warning("own tensors cannot run: %s", error)
        return engines, asked._replace(tensors="", no_tensors=f"own tensors cannot run: {error}")
    return {**engines, (OWN_TENSORS,): own}, asked


def answers_of(
    engines: Mapping[Uses, TFLiteEngine], example: Example
) -> Mapping[Uses, Answered] | None:
    """Return the answer of each to an example; None for one that cannot be read."""
    found = {uses: answer_of(engine, example) for uses, engine in engines.items()}
    known = {uses: one for uses, one in found.items() if one is not None}
    return known if len(known) == len(engines) else None


def labels_of(engine: TFLiteEngine, source: Mapping[str, Any] | None) -> Own:
    """Return the labels of this robot's examples, as a model calls them; see `own_labels`."""
    return own_labels(engine.workload, source, engine.manifest.described_task)


def chosen_with(
    engines: Mapping[Uses, TFLiteEngine],
    asked: Asked,
    own: Own,
    answers: Sequence[Mapping[Uses, Answered]],
) -> tuple[PersonalChoice, Mapping[str, Tensor]]:
    """Return what is to run with a model, and what it adds to the outputs."""
    truths: Mapping[Uses, list[Truth]] = {
        uses: [Truth(a[uses].outputs, a[uses].target or {}) for a in answers if a[()].target]
        for uses in engines
    }
    shared = engines[()]
    choice = choose(shared.workload, shared.precision, asked, own, truths)
    if OWN_SHARES not in choice.uses:
        return choice, {}
    return choice, share_shift(shared.workload, choice.counts)


def answer_with(
    engine: TFLiteEngine, answers: Mapping[Uses, Answered], uses: Uses, shift: Mapping[str, Tensor]
) -> Answered:
    """Return the answer of what is to run."""
    one = answers[tuple(part for part in uses if part != OWN_SHARES)]
    if not shift:
        return one
    outputs = shifted(one.outputs, shift)
    return one._replace(outputs=outputs, predictions=engine.workload.decode(outputs, one.context))
