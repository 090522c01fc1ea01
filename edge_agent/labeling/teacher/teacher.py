"""A model that labels frames for a fleet: in its words, and only where it is surely right."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.examples.taught import OTHER, UNREADABLE, UNSURE, Said
from edge_agent.labeling.teacher.wanted import Wanted
from edge_agent.training.pseudo_labels.calibration import least_scores
from edge_agent.training.pseudo_labels.own_truths import can_teach_itself
from edge_agent.training.rows import stacked
from fleet_model.bundle import MANIFEST, sha256_of_file
from fleet_model.engine import TFLiteEngine, open_engine
from fleet_model.errors import BundleError, FrameError, SettingsError
from fleet_model.types import Box, Example, Prediction, Tensor, Tensors
from fleet_model.workload import Workload, build_workload, sure, with_classes

log = logging.getLogger(__name__)


class Teacher:
    """A bundle that answers in the words of a fleet. One thread at a time."""

    def __init__(self, engine: TFLiteEngine, workload: Workload, wanted: Wanted) -> None:
        """See `open_teacher`.

        Args:
            engine: what answers.
            workload: the engine's own with the fleet's names, and those of the fleet behind them
                that it lacks: so whatever a person has said of a frame can be compared.
            wanted: what the fleet learns.
        """
        self._engine, self._workload = engine, workload
        self._learned = frozenset(wanted.classes)
        self.classes = workload.task.classes

    def least(
        self, held_out: Iterable[Example], precision: float, seen: Callable[[], None]
    ) -> dict[str, float]:
        """Return class of the fleet -> the score from which on the teacher is right often enough.

        A class without such a score is missing.

        Args:
            held_out: what people have labelled, and nobody learns from.
            precision: share of so sure answers that must be right.
            seen: is called after each frame.

        Raises:
            SettingsError: none of them can be read or compared.
        """
        outputs, targets, refusal = list[Tensors](), list[Tensors](), ""
        for example in held_out:
            try:
                target = self._workload.target(example).tensors
                outputs.append(self._outputs(example.raw)[0])
                targets.append(target)
            except FrameError as error:
                log.info("%s", error)
                refusal = refusal or str(error)
            seen()
        if not outputs:
            raise SettingsError(
                "nothing tells when the teacher is right here: no frame that a person has "
                "labelled is held out"
                + (f" and can be read ({refusal})" if refusal else "")
                + "; label frames first, with `edge-agent label`: at least ten of each class are "
                "to be held out, a fifth of all"
            )
        count = len(outputs)
        certainty = self._workload.certainty(  # type: ignore[attr-defined]
            stacked(outputs, count), stacked(targets, count)
        )
        scores = least_scores(certainty, len(self.classes), precision)
        named = zip(self.classes, scores.tolist(), strict=True)
        return {n: score for n, score in named if n in self._learned and np.isfinite(score)}

    def say(self, raw: Any, least: dict[str, float]) -> Said:
        """Return the label of a frame, if the teacher is sure of all that is in it, or why not.

        Args:
            raw: a frame.
            least: as `least` returns it.
        """
        try:
            outputs, found = self._outputs(raw)
        except FrameError as error:
            log.info("%s", error)
            return Said(refused=UNREADABLE)
        scores: Tensor = np.array([least.get(name, np.inf) for name in self.classes])
        truth = self._workload.own_truth(outputs, scores)  # type: ignore[attr-defined]
        answers = found[: len(truth.classes)] if truth else ()
        # Boxes outside of the frame are not found; what then follows may be too unsure to answer.
        if not answers or any(one.score < least.get(one.label, np.inf) for one in answers):
            other = self._other(found)
            return Said(refused=OTHER, other=other) if other else Said(refused=UNSURE)
        score = round(min(one.score for one in answers), 4)
        if answers[0].box is None:
            return Said(label=answers[0].label, score=score)
        return Said(boxes=tuple(map(_box, answers)), score=score)

    def _outputs(self, raw: Any) -> tuple[Tensors, Sequence[Prediction]]:
        encoded = self._workload.encode(raw)
        outputs = self._engine.run(encoded.inputs)
        return outputs, self._workload.decode(outputs, encoded.context)

    def _other(self, found: Sequence[Prediction]) -> str:
        """Return a class that it sees and the fleet does not learn; "" without one."""
        answers = sure(self._workload, found)
        if answers and answers[0].box is None:
            answers = answers[:1]  # the others are alternatives
        return next((one.label for one in answers if one.label not in self._learned), "")


def open_teacher(bundle: Path, precision: str) -> tuple[TFLiteEngine, str]:
    """Return the engine of a teacher, and the sha256 of its manifest.

    Raises:
        BundleError: it is no bundle, is damaged, or lacks the precision.
        SettingsError: its workload cannot tell when it is sure.
    """
    if bundle.is_file():
        raise BundleError(
            f"{bundle.name} is a file, expected the folder of a bundle; of another tool's .tflite "
            f"or .onnx, `cloud-server import-engine DIR {bundle.name} --out FOLDER` makes one"
        )
    engine = open_engine(bundle, precision)
    if not can_teach_itself(engine.workload):
        raise SettingsError(
            f"{bundle.name}: the workload {engine.manifest.workload.name!r} cannot tell when it is "
            "sure, so its model cannot label frames"
        )
    return engine, sha256_of_file(bundle / MANIFEST)


def taught_by(engine: TFLiteEngine, wanted: Wanted) -> tuple[Teacher, list[str]]:
    """Return the teacher of a fleet, and the classes of the fleet that it does not know.

    Raises:
        SettingsError: it answers something else, knows no class of the fleet, or not all of them
            where a frame may show several: what it does not know would be taught as nothing.
    """
    task = engine.workload.task
    if task.answer != wanted.answer:
        raise SettingsError(
            f"the teacher answers {task.answer}, and this robot learns {wanted.answer}; a teacher "
            "answers the same"
        )
    names = [wanted.former.get(name, name) for name in task.classes]
    can_say = [wanted.former.get(name, name) for name in finds(engine.workload)]
    missing = [name for name in wanted.classes if name not in can_say]
    if len(missing) == len(wanted.classes) or (missing and wanted.answer == "boxes"):
        reason = "" if wanted.answer == "class" else ": they would be taught as nothing"
        raise SettingsError(
            f"the teacher knows {', '.join(can_say)}, and none of {', '.join(missing)}, which this "
            f"fleet learns{reason}; where words differ, examples.aliases in agent.toml says which "
            "is which"
        )
    absent = [name for name in wanted.classes if name not in names]
    if names == list(task.classes) and not absent:
        return Teacher(engine, engine.workload, wanted), missing
    spec = with_classes(engine.manifest.workload, [*names, *absent])
    return Teacher(engine, build_workload(spec), wanted), missing


def finds(workload: Workload) -> Sequence[str]:
    """Return the classes that a model can answer: all, unless its workload says otherwise."""
    return getattr(workload, "finds", workload.task.classes)


def _box(one: Prediction) -> Box:
    assert one.box is not None
    x0, y0, x1, y1 = one.box
    return Box(label=one.label, x0=x0, y0=y0, x1=x1, y1=y1)
