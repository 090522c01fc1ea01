"""Write a text classifier's folder as files for ONNX Runtime: float32, checked; and int8."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cloud_server.models.torch.onnx_files import (
    require_same,
    require_usable_int8,
    torch_outputs,
    write_int8,
    write_onnx,
)
from fleet_model.engine import StagedModel
from fleet_model.errors import ExportError, FrameError, SettingsError
from fleet_model.torch.tensors import slots
from fleet_model.types import Tensor, Tensors
from fleet_model.workloads.text_classifier import TextClassifier

_LOGITS = "logits"


class Written(NamedTuple):
    """A file that a gate has let through."""

    size_bytes: int
    error: float  # relative (L2) to what it was made of, on the samples
    parameters: int  # numbers of the model


def export(
    model: Path, known: Sequence[str], length: int, texts: Sequence[str], file: Path
) -> Written:
    """Write a folder's model as one .onnx file in float32; check it against PyTorch.

    Args:
        model: folder as Hugging Face's save_pretrained writes it, with a head.
        known: labels, in the order of the model's outputs.
        length: tokens of a text at most.
        texts: that it is checked with.
        file: a new one.

    Raises:
        CheckpointError: the folder does not fit.
        ExportError: torch cannot write it, or it answers something else.
        SettingsError: torch is missing, or the tokenizer knows none of the texts.
    """
    try:
        from fleet_model.workloads.text_classifier.torch_model import TextClassifierModel

        workload = _workload(model, known, length)
        definition = TextClassifierModel(workload)
        module = definition.load(model)
    except ImportError as error:
        raise SettingsError(
            f"an export needs {error.name}, which is not installed here: "
            "pip install 'fleetlearn[torch-server]'"
        ) from None
    whole = definition.cut(module, list(slots(module, definition.path))).rest
    samples, specs = _samples(workload, texts), workload.task.inputs
    size = write_onnx(whole, specs, samples, file, _LOGITS, known)
    answered = _answers(file, workload, samples)
    gap = require_same(torch_outputs(whole, samples), {_LOGITS: answered}, file.name)
    return Written(size, gap, sum(t.numel() for t in module.parameters()))


def quantize(
    source: Path, model: Path, known: Sequence[str], length: int, texts: Sequence[str], file: Path
) -> Written:
    """Write a float32 file with its products and its table of words in int8; check it against it.

    Ranges of what passes between layers are found while it runs, so nothing is calibrated.

    Args:
        source: written by `export`.
        model: the folder that it was made of, for its tokenizer.
        known: labels.
        length: tokens of a text at most.
        texts: that it is checked with.
        file: a new one.

    Raises:
        ExportError: little is left of what the float32 file answers, or it is not smaller.
    """
    workload = _workload(model, known, length)
    samples = _samples(workload, texts)
    size = write_int8(source, file)
    if size >= (before := source.stat().st_size):
        raise ExportError(f"{file.name}: has {size} bytes, {source.name} {before}: nothing is won")
    fp32, int8 = (_answers(path, workload, samples) for path in (source, file))
    return Written(size, require_usable_int8({_LOGITS: fp32}, {_LOGITS: int8}, file.name), 0)


class TextFile:
    """A written file and its tokenizer, which answer a text without torch."""

    def __init__(
        self, file: Path, model: Path, known: Sequence[str], length: int, num_threads: int = 1
    ) -> None:
        """Open both; see `quantize` for the arguments. Raises BundleError."""
        self._workload = _workload(model, known, length)
        self._staged = _opened(file, self._workload, num_threads)

    def tokens(self, text: str) -> Tensors:
        """Return the numbers of a text's tokens and their mask; raises FrameError."""
        return self._workload.encode(text).inputs

    def logits(self, tokens: Tensors) -> Tensor:
        """Return (labels,) logits."""
        return self._staged(tokens)[_LOGITS]

    def __call__(self, text: str) -> Tensor:
        """Return the logits of a text, (labels,)."""
        return self.logits(self.tokens(text))


def _workload(model: Path, known: Sequence[str], length: int) -> TextClassifier:
    workload = TextClassifier(known, length)
    workload.read_files(model)
    return workload


def _samples(workload: TextClassifier, texts: Sequence[str]) -> list[Tensors]:
    found = []
    for text in texts:
        try:
            found.append(workload.encode(text).inputs)
        except FrameError:  # it would check nothing
            continue
    if not found:
        raise SettingsError("the tokenizer knows no token of the texts that the file is checked by")
    return found


def _opened(file: Path, workload: TextClassifier, num_threads: int = 1) -> StagedModel:
    task = workload.task
    return StagedModel([file], task.inputs, task.outputs, num_threads, workload.open_stage)


def _answers(file: Path, workload: TextClassifier, samples: Sequence[Tensors]) -> Tensor:
    staged = _opened(file, workload)
    return np.stack([staged(one)[_LOGITS] for one in samples])
