"""Ask every model the same, and time it; of the process that computes."""

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from cloud_server.console.compare.computing.agreeing import agreement
from cloud_server.console.compare.computing.laid_out import bundle_of
from cloud_server.console.compare.contenders import PICTURE, TEXT, Contender
from fleet_model.confusion.picture import encoded as encoded_file
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError, SettingsError
from fleet_model.pictures.image_file import image_frame
from fleet_model.types import Frame, Prediction, Tensors
from fleet_model.workload import Workload, sure

THREADS = 1  # of each model: what is compared is the model, not the machine
MOST_TOLD = 50  # predictions of one model
_READ_AS = "the picture"


class Answering:
    """Models that take the same input. One thread."""

    def __init__(self, contenders: Sequence[Contender]) -> None:
        """Open them.

        Raises:
            BundleError: a file is missing or damaged.
            SettingsError: they do not take and answer the same, or what cannot be shown here.
        """
        self._engines = [_opened(one) for one in contenders]
        self._kind = _same_kind(contenders, [engine.workload for engine in self._engines])
        self._warm, self._turn = False, 0
        self.models = [
            _about(one, engine, self._kind)
            for one, engine in zip(contenders, self._engines, strict=True)
        ]

    def answer(self, content: bytes, repeats: int) -> dict[str, Any]:
        """Return what the models say, and the milliseconds of each: the median of `repeats` runs.

        Not of what comes before, which is the same for all of them: reading and scaling a picture.

        Raises:
            FrameError: it cannot be read, or a model can make nothing of it.
        """
        raw = self._raw(content)
        inputs = [engine.workload.encode(raw) for engine in self._engines]
        outputs: list[Tensors] = [{} for _ in inputs]
        times: list[list[float]] = [[] for _ in inputs]
        for _ in range(repeats if self._warm else repeats + 1):
            self._turn += 1  # what disturbs the machine for a moment disturbs all
            for number in list(range(len(inputs)))[:: -1 if self._turn % 2 else 1]:
                before = time.perf_counter()
                outputs[number] = self._engines[number].run(inputs[number].inputs)
                times[number].append(1e3 * (time.perf_counter() - before))
        if not self._warm:  # the first run of a model is slower than all others
            times, self._warm = [one[1:] for one in times], True
        found = [
            sure(engine.workload, engine.workload.decode(one, given.context))[:MOST_TOLD]
            for engine, one, given in zip(self._engines, outputs, inputs, strict=True)
        ]
        return {
            "answers": [
                {"found": [_told(one) for one in said], "ms": median(ms)}
                for said, ms in zip(found, times, strict=True)
            ],
            "agree": [agreement(found[0], said) for said in found],
            "size": [raw.width, raw.height] if isinstance(raw, Frame) else None,
        }

    def preview(self, content: bytes, side: int) -> bytes:
        """Return a picture as a JPEG whose longer side is at most `side`; raises FrameError."""
        import cv2

        picture = _frame(content).decode()
        height, width = picture.shape[:2]
        share = min(1.0, side / max(height, width))
        size = max(1, round(width * share)), max(1, round(height * share))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        return encoded_file(small.astype(np.uint8), ".jpg")

    def _raw(self, content: bytes) -> Any:
        if self._kind == PICTURE:
            return _frame(content)
        workload: Any = self._engines[0].workload
        return workload.from_bytes(content)


def _opened(one: Contender) -> TFLiteEngine:
    try:
        with bundle_of(one) as folder:
            return TFLiteEngine(folder, one.precision, THREADS)
    except BundleError as error:
        raise BundleError(f"{one.name}: {error}") from None


def _frame(content: bytes) -> Frame:
    # Upright, as `edge-agent predict` shows photos.
    return image_frame(content, "", "", 0, _READ_AS, upright=True)


def _same_kind(contenders: Sequence[Contender], workloads: Sequence[Workload]) -> str:
    """Return what all take; raises SettingsError."""
    kinds = [_kind(one, workload) for one, workload in zip(contenders, workloads, strict=True)]
    for one, kind in zip(contenders, kinds, strict=True):
        if kind != kinds[0]:
            first = contenders[0].name
            raise SettingsError(
                f"{first} answers {kinds[0][1]} to a {kinds[0][0]}, {one.name} {kind[1]} to a "
                f"{kind[0]}: they cannot be compared"
            )
    return kinds[0][0]


def _kind(one: Contender, workload: Workload) -> tuple[str, str]:
    answer = workload.task.answer
    takes = PICTURE if getattr(workload, "raw_kind", "") == "frame" else ""
    takes = TEXT if not takes and hasattr(workload, "from_bytes") else takes
    if not takes or answer not in ("class", "boxes"):
        raise SettingsError(
            f"{one.name}: its workload answers {answer}; this page compares classes of "
            "pictures and texts, and boxes in pictures"
        )
    return takes, {"class": "a class", "boxes": "boxes"}[answer]


def _about(one: Contender, engine: TFLiteEngine, kind: str) -> dict[str, Any]:
    manifest, task = engine.manifest, engine.workload.task
    sizes = {name: manifest.files[name].size_bytes for name in manifest.engines[one.precision]}
    return {
        "name": one.name,
        "version": manifest.version,
        "precision": one.precision,
        "takes": kind,
        "answer": task.answer,
        "classes": list(task.classes),
        "bytes": sum(sizes.values()),
        "inputs": {name: list(spec.shape) for name, spec in task.inputs.items()},
    }


def _told(one: Prediction) -> dict[str, Any]:
    box = None if one.box is None else [float(side) for side in one.box]
    return {"label": one.label, "score": float(one.score), "box": box}
