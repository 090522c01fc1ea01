"""One .onnx file of a text's model as a stage of an engine. Needs ONNX Runtime, never PyTorch."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fleet_model.errors import BundleError
from fleet_model.foreign import Port, open_file
from fleet_model.litert.stage import Shapes
from fleet_model.signatures import INPUTS, tensor_names
from fleet_model.types import Tensor, Tensors

MASK = "attention_mask"


class TextStage:
    """An EngineStage for texts of a fixed length: what pads a text is not computed."""

    def __init__(self, path: Path, num_threads: int, length: int) -> None:
        """Load it.

        Args:
            path: of a file whose tensors are named as signatures.signature_names names them.
            num_threads: of an answer.
            length: tokens of a text, with its padding.

        Raises:
            BundleError: ONNX Runtime cannot run it, or it is not installed.
        """
        self.name = path.name
        self._file = open_file(path, num_threads)
        self.inputs: Shapes = _shapes(self._file.inputs, length)
        self.outputs: Shapes = _shapes(self._file.outputs, length)
        self._texts = tensor_names(INPUTS, self._file.inputs, "")
        self._open = {n: -1 in port.shape[1:] for n, port in self._file.inputs.items()}

    def __call__(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return the outputs for one text; see EngineStage."""
        used: int | None = None
        if mask := self._texts.get(MASK):
            used = max(1, int(np.count_nonzero(tensors[mask])))  # zeros warm an engine up
        given = {}
        for name, port in self._file.inputs.items():
            tensor = tensors[name]
            if tensor.shape != self.inputs[name]:
                raise BundleError(
                    f"{self.name}: {name} has shape {tensor.shape}, expected {self.inputs[name]}"
                )
            row = tensor[:used] if self._open[name] else tensor
            given[name] = row[None].astype(port.dtype, copy=False)
        answer = self._file(given)
        return {name: answer[name][0] for name in self.outputs}


def _shapes(ports: Mapping[str, Port], length: int) -> Shapes:
    return {
        name: tuple(length if size < 0 else size for size in port.shape[1:])
        for name, port in ports.items()
    }
