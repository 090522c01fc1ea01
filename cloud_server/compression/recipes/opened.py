"""A written file, .tflite or .onnx, that answers a picture without Keras."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from fleet_model.foreign import open_file
from fleet_model.litert.stage import Stage
from fleet_model.types import Tensor

Ask: TypeAlias = Callable[[Tensor], Tensor]  # (S, S, 3) float32 RGB 0..255 -> (labels,) logits


def open_model(file: Path, threads: int) -> Ask:
    """Return what answers a picture; raises BundleError where it cannot be run here."""
    if file.suffix == ".onnx":
        whole = open_file(file, threads)
        (taken,), (given,) = whole.inputs, whole.outputs
        return lambda picture: whole({taken: picture[None]})[given][0]
    stage = Stage(file, threads)
    (taken,), (given,) = stage.inputs, stage.outputs
    return lambda picture: stage({taken: picture})[given]
