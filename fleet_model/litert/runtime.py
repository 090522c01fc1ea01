"""Which part of LiteRT runs a bundle on this robot: measured when it is installed, kept beside it.

  state/models/versions/000005-<manifest>/.runtime.json     a RuntimeChoice

The agent writes it (edge_agent/models/runtime_choice.py); whoever runs the bundle reads it. A name
with a dot in front can be that of no file of a bundle.
"""

import logging
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from fleet_model.durable import write_durably

FILE = ".runtime.json"
MAX_BYTES = 10_000
RuntimeName: TypeAlias = Literal["interpreter", "compiled", "onnx", "torch"]
Accelerator: TypeAlias = Literal["cpu", "gpu"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What answers."""

    name: RuntimeName = "interpreter"
    accelerator: Accelerator = "cpu"

    @property
    def words(self) -> str:
        """Return its makers' name for it."""
        if self.name != "compiled":
            names = {"interpreter": "Interpreter", "onnx": "ONNX Runtime", "torch": "PyTorch"}
            return names[self.name]
        return f"CompiledModel on the {self.accelerator.upper()}"


INTERPRETER = Runtime()
ONNX_RUNTIME = Runtime("onnx")  # of files that LiteRT cannot read
PYTORCH = Runtime("torch")  # of models that only their own framework runs


class Measured(BaseModel):
    """CompiledModel beside the Interpreter, on one accelerator."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    accelerator: Accelerator
    why: str = ""  # it is not used; "" if it is
    interpreter_ms: float | None = None  # shortest times of an answer
    compiled_ms: float | None = None
    pairs: int = 0  # of answers, one of each, in turns
    faster: int = 0  # of `pairs`, in which CompiledModel was clearly faster
    inputs: int = 0  # that both have answered
    difference: float | None = None  # the largest, as a share of the largest value of that output

    @property
    def words(self) -> str:
        """Return figures, and why it is not used."""
        figures = ""
        if self.compiled_ms is not None and self.interpreter_ms is not None:
            figures = f"{self.compiled_ms:.3g} ms, the Interpreter {self.interpreter_ms:.3g} ms"
        whose = f"CompiledModel on the {self.accelerator.upper()}"
        return f"{whose}: " + ", ".join(filter(None, (self.why, figures)))


class RuntimeChoice(BaseModel):
    """What was chosen for one bundle, for what was asked then."""

    model_config = ConfigDict(extra="ignore")

    asked: Literal["auto", "interpreter", "compiled"]
    accelerator: Accelerator  # asked for
    precision: str
    litert: str  # version of the library that was measured
    chosen: Runtime = INTERPRETER
    measured: list[Measured] = []
    imported: str = ""  # file of another tool that this is, see Manifest

    @property
    def words(self) -> str:
        """Return one line for people."""
        told = "; ".join(one.words for one in self.measured)
        whose = "" if self.chosen == ONNX_RUNTIME else "LiteRT "
        words = f"{whose}{self.chosen.words}"
        if self.imported:
            return f"{words}, the imported {self.imported}, which nobody trains"
        return words + (f" ({told})" if told else "")


def litert_version() -> str:
    """Return the version of the LiteRT that is installed here; "" if it is none that has both."""
    try:
        return metadata.version("ai-edge-litert")
    except metadata.PackageNotFoundError:
        return ""


def read_choice(bundle: Path) -> RuntimeChoice | None:
    """Return what was chosen for a bundle directory; None without one that can be read."""
    try:
        with (bundle / FILE).open("rb") as stream:
            return RuntimeChoice.model_validate_json(stream.read(MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read (%s): the Interpreter runs", FILE, type(error).__name__)
        return None


def write_choice(bundle: Path, choice: RuntimeChoice) -> None:
    """Keep what was chosen, in one step; raises OSError."""
    write_durably(bundle / FILE, choice.model_dump_json() + "\n")


def chosen_runtime(bundle: Path, precision: str) -> Runtime:
    """Return what runs a bundle in this process: the Interpreter, unless another was measured.

    A choice holds for the precision and the LiteRT that it was made with: a ROS node may have an
    environment of its own.
    """
    choice = read_choice(bundle)
    if choice is None or (choice.precision, choice.litert) != (precision, litert_version()):
        return INTERPRETER
    return choice.chosen
