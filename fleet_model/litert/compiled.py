"""One .tflite file of a model, as LiteRT's CompiledModel runs it: on the CPU, or on a GPU.

CompiledModel runs on whatever its buffers hold: of a missing input on the values before, and of one
of another type or size on its bytes. `Stage` checks names, shapes and types before.
"""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fleet_model.errors import BundleError
from fleet_model.litert.stage import Stage, open_interpreter
from fleet_model.signatures import SERVE
from fleet_model.types import Tensor

# What LiteRT, its plug-ins and a GPU's library write while a model is loaded: 25 lines a file.
_THEIRS = re.compile(r"(INFO|WARNING|Warning|ERROR|VERBOSE): |[IWEF]\d{4} |\s|└|third_party/|===|$")
_stderr = threading.Lock()


class CompiledStage(Stage):
    """A Stage that CompiledModel answers. What it gives is compared with Stage when it is tried."""

    def __init__(self, path: Path, num_threads: int = 2, accelerator: str = "cpu") -> None:
        """Load and compile it.

        Args:
            path: of the file.
            num_threads: of the CPU.
            accelerator: "cpu", or "gpu" for all of it.

        Raises:
            BundleError: it is no stage, or this LiteRT or this machine cannot run it so.
        """
        # CompiledModel knows no scales, and lists inputs in an order of its own.
        self._describe(path, open_interpreter(path, allocate=False))
        with _native_log() as told:
            try:
                self._compile(path, num_threads, accelerator)
            except ImportError:
                raise BundleError(f"cannot run {path.name}: this LiteRT has none") from None
            except (AttributeError, TypeError, ValueError, RuntimeError) as error:
                why = _reason(error, told())
                raise BundleError(f"cannot run {path.name}: {why}") from None

    def _compile(self, path: Path, num_threads: int, accelerator: str) -> None:
        from ai_edge_litert.compiled_model import (
            CompiledModel,
            CpuOptions,
            HardwareAccelerator,
            Options,
        )

        kinds = HardwareAccelerator.CPU
        if accelerator == "gpu":
            kinds |= HardwareAccelerator.GPU
        options = Options(kinds, cpu_options=CpuOptions(num_threads=num_threads))
        model = CompiledModel.from_file(str(path), environment=_environment(), options=options)
        if accelerator == "gpu" and not model.is_fully_accelerated():
            raise RuntimeError("the GPU runs only parts of it")
        self._require_same(self._inputs, model.get_input_tensor_details(SERVE))
        self._require_same(self._outputs, model.get_output_tensor_details(SERVE))
        self._model = model
        self._into = {n: model.create_input_buffer_by_name(SERVE, n) for n in self._inputs}
        self._out = {n: model.create_output_buffer_by_name(SERVE, n) for n in self._outputs}
        # A buffer takes fewer types than a file has: found here, not at the first answer.
        self._answered({n: np.zeros(d["shape"], d["dtype"]) for n, d in self._inputs.items()})

    def _require_same(self, known: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        ours = {n: (tuple(map(int, d["shape"])), np.dtype(d["dtype"])) for n, d in known.items()}
        theirs = {n: (tuple(d["shape"]), np.dtype(d["dtype"])) for n, d in found.items()}
        if ours != theirs:
            raise RuntimeError(f"it has {theirs}, and the Interpreter {ours}")

    def _answered(self, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        for name, buffer in self._into.items():
            buffer.write(given[name])
        self._model.run_by_name(SERVE, self._into, self._out)
        return {name: self._read(name) for name in self._out}

    def _read(self, name: str) -> Tensor:
        shape, dtype = self._outputs[name]["shape"], self._outputs[name]["dtype"]
        flat: Tensor = self._out[name].read(int(np.prod(shape)), dtype)
        return flat.reshape(shape)


@cache
def _environment() -> Any:
    from ai_edge_litert.compiled_model import Environment

    return Environment.create()  # of all models: each would load the GPU's library again


def _reason(error: Exception, told: str) -> str:
    if "No adapters found" in told:
        return "it finds no GPU, which needs a driver for Vulkan or OpenCL"
    text = str(error).partition("\n")[0]
    return "LiteRT does not say why" if text.startswith("ERROR: [") else text


@contextmanager
def _native_log() -> Iterator[Any]:
    """Keep what native code writes to stderr meanwhile; lines of others pass, a moment later.

    LiteRT 2.3 has no way to ask it for less. Yields what returns the text of now.
    """
    with _stderr, tempfile.TemporaryFile() as kept:
        sys.stderr.flush()
        try:
            before = os.dup(2)
        except OSError:  # a daemon without stderr
            yield lambda: ""
            return
        os.dup2(kept.fileno(), 2)

        def told() -> str:
            return os.pread(kept.fileno(), 1 << 20, 0).decode(errors="replace")

        try:
            yield told
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            ours = [line for line in told().splitlines() if not _THEIRS.match(line)]
            os.write(2, "".join(f"{line}\n" for line in ours).encode())
