"""What `cloud-server compress` is asked for: a TOML file of steps; no framework.

[data]
folder = "pictures"

[[step]]
do = "distill"
student = "mobilenet-v2"
width = 0.35

[[step]]
do = "quantize"
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import Field, ValidationError, model_validator

from cloud_server.compression.teaching import Teaching
from fleet_model.errors import SettingsError
from fleet_model.settings import Section, explain, read_toml

Precision: TypeAlias = Literal["fp16", "dynamic", "int8"]
Format: TypeAlias = Literal["tflite", "onnx"]
Among: TypeAlias = Literal["all", "each"]
S = TypeVar("S", bound=Section)


class Data(Section):
    """Labelled pictures."""

    folder: Path  # LABEL/*.jpg, or train/LABEL/*.jpg and test/LABEL/*.jpg
    labels: tuple[str, ...] = ()  # in the order of the outputs; empty: as the checkpoint says
    held_out: float = Field(default=0.2, gt=0, le=0.5)  # for the test, where there is no test/


class _Learns(Section):
    """How the network learns from the teacher's answers; see Teaching."""

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    hard: float = Field(default=0.1, ge=0, le=1)  # share of the loss that is by the label
    mirrored: bool = False  # each picture also with left and right exchanged
    seed: int = Field(default=0, ge=0)

    def teaching(self) -> Teaching:
        """Return the same for the functions that train."""
        return Teaching(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            temperature=self.temperature,
            hard=self.hard,
            seed=self.seed,
        )


class Teacher(_Learns):
    """The checkpoint, as it is or trained on the labels; all layers learn."""

    rank: ClassVar[int] = 0
    do: Literal["teacher"] = "teacher"
    epochs: int = Field(default=0, ge=0)  # 0: as it is
    new_head: bool = False  # its last layer is of other labels: a new one takes its place

    @model_validator(mode="after")
    def _fits(self) -> "Teacher":
        if self.new_head and not self.epochs:
            raise ValueError("new_head has to learn: give it epochs")
        return self


class Distill(_Learns):
    """A student learns what the teacher answers."""

    rank: ClassVar[int] = 1
    do: Literal["distill"]
    student: Literal["same", "mobilenet-v2"] = "same"  # same: the network as it is by now
    width: float | None = Field(default=None, ge=0.1, le=2)  # of mobilenet-v2
    until: str = ""  # of the same network: its last layer before the pooling; "": all

    @model_validator(mode="after")
    def _fits(self) -> "Distill":
        if (self.width is not None) != (self.student == "mobilenet-v2"):
            raise ValueError('width is of the student "mobilenet-v2", which needs one')
        if self.until and self.student != "same":
            raise ValueError('until is of the student "same"')
        return self


class Prune(_Learns):
    """The weakest part of the network goes, and the rest learns on."""

    rank: ClassVar[int] = 1
    do: Literal["prune"]
    kind: Literal["channels", "magnitude"] = "channels"
    share: float = Field(default=0.3, gt=0, lt=1)
    among: Among = "all"
    rounds: int = Field(default=1, ge=1, le=20)
    epochs: int = Field(default=2, ge=1)  # after each round

    def shares(self) -> list[float]:
        """Return which share is gone after each round: most goes early (arXiv:1710.01878, 3)."""
        left = (1 - number / self.rounds for number in range(1, self.rounds + 1))
        return [self.share * (1 - one**3) for one in left]


class Quantize(Section):
    """The network in fewer bits a number."""

    rank: ClassVar[int] = 2
    do: Literal["quantize"]
    kinds: tuple[Precision, ...] = Field(default=("int8",), min_length=1)
    samples: int = Field(default=100, ge=1)  # training pictures that set the ranges of int8


class Export(Section):
    """The network as files for other programs."""

    rank: ClassVar[int] = 3
    do: Literal["export"]
    formats: tuple[Format, ...] = Field(default=("tflite", "onnx"), min_length=1)


class Benchmark(Section):
    """All files measured, those of the steps before as well."""

    rank: ClassVar[int] = 4
    do: Literal["benchmark"] = "benchmark"
    threads: int = Field(default=1, ge=1, le=64)
    timed: int = Field(default=200, ge=20)  # test pictures that are timed, at most


Step: TypeAlias = Teacher | Distill | Prune | Quantize | Export | Benchmark
_STEPS: Mapping[str, type[Step]] = {
    "teacher": Teacher, "distill": Distill, "prune": Prune, "quantize": Quantize,
    "export": Export, "benchmark": Benchmark,
}  # fmt: skip
_ONCE = (Teacher, Quantize, Export, Benchmark)


class Recipe(Section):
    """The whole file; begins with the teacher and ends with the benchmark, named or not."""

    data: Data
    step: tuple[Annotated[Step, Field(discriminator="do")], ...] = Field(min_length=1)
    sweep: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict
    )  # "STEP.KEY" -> values, see sweep.py


def read_recipe(file: Path) -> Recipe:
    """Return what a file asks for; `data.folder` is beside the file where it is not absolute.

    Raises:
        SettingsError: there is no such file; a key, a value or the order of the steps is wrong.
    """
    values = read_toml(file)
    if strange := sorted(values.keys() - {"data", "step", "sweep"}):
        raise SettingsError(
            f'{file}: unknown key "{strange[0]}"; known are: [data], [[step]], [sweep]'
        )
    if not isinstance(values.get("step"), list) or not values["step"]:
        raise SettingsError(f"{file}: has no [[step]]; each says what to do: {', '.join(_STEPS)}")
    if not isinstance(values.get("data", {}), dict):
        raise SettingsError(f'{file}: data: expected a section [data] with folder = "..."')
    data = _validated(Data, values.get("data", {}), f"{file}: [data]")
    data = data.model_copy(update={"folder": file.parent / data.folder})
    steps = [_step(one, f"{file}: step {n}") for n, one in enumerate(values["step"], 1)]
    _require_order(steps, file)
    first = [] if isinstance(steps[0], Teacher) else [Teacher()]
    last = [] if isinstance(steps[-1], Benchmark) else [Benchmark()]
    return Recipe(data=data, step=(*first, *steps, *last), sweep=_grid(values, file))


def step_name(steps: Sequence[Step], number: int) -> str:
    """Return what tables call a step: where there are several such, with a number."""
    same = [at for at, one in enumerate(steps) if one.do == steps[number].do]
    return steps[number].do + (f" {same.index(number) + 1}" if len(same) > 1 else "")


def _grid(values: Mapping[str, Any], file: Path) -> dict[str, tuple[Any, ...]]:
    grid = values.get("sweep", {})
    if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
        raise SettingsError(
            f'{file}: [sweep]: expected lines as "prune.share" = [0.3, 0.5], with the quotes'
        )
    return {where: tuple(given) for where, given in grid.items()}


def _step(values: Any, where: str) -> Step:
    kind = values.get("do") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in _STEPS:
        raise SettingsError(f"{where}: do is {kind!r}, expected one of {', '.join(_STEPS)}")
    return _validated(_STEPS[kind], values, f"{where} ({kind})")


def _validated(kind: type[S], values: Any, where: str) -> S:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        keys, words = explain(error, kind)
        raise SettingsError(": ".join([where, *keys, words])) from None


def _require_order(steps: Sequence[Step], file: Path) -> None:
    for number, (before, after) in enumerate(pairwise(steps), 2):
        if type(before) is type(after) and isinstance(after, _ONCE):
            raise SettingsError(f"{file}: step {number} ({after.do}): is there already; one is all")
        if after.rank < before.rank:
            raise SettingsError(
                f"{file}: step {number} ({after.do}): cannot come after {before.do}; the order is "
                "teacher, distill and prune, then quantize, export, benchmark"
            )
