"""What data mean to a model: the part of a workload that robots, server and `predict` share.

NumPy only. What computes, the model itself, is defined once for each framework beside it: see
`fleet_model.keras.model`. Robots that train with LiteRT or only predict never import that.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fleet_model.bundle import Task, TensorSpec, WorkloadSpec
from fleet_model.errors import BundleError, SettingsError, TrainingError
from fleet_model.loading import load_plugin
from fleet_model.types import (
    Encoded,
    Example,
    Metrics,
    Prediction,
    Target,
    Tensor,
    Tensors,
    TrainConfig,
)

WORKLOADS = {
    "image-classifier": "fleet_model.workloads.image_classifier:ImageClassifier",
    "object-detector": "fleet_model.workloads.object_detector:ObjectDetector",
    "text-classifier": "fleet_model.workloads.text_classifier:TextClassifier",
    "causal-lm": "fleet_model.workloads.causal_lm:CausalLM",
    "vision-language": "fleet_model.workloads.vision_language:VisionLanguage",
    "imported-detector": "fleet_model.workloads.object_detector.imported:ImportedDetector",
}

INSTRUCTION = "instruction"  # a raw_kind, see Workload


class Sample(NamedTuple):
    """An input that the server may look at, with its truth where that is known."""

    encoded: Encoded
    target: Target | None = None


class Curves(NamedTuple):
    """Lines of one plot; both axes are shares, 0 to 1."""

    title: str
    x_name: str
    y_name: str
    lines: Mapping[str, tuple[Tensor, Tensor]]  # name -> x and y, (points,) each, in order of x


class Details(NamedTuple):
    """What a workload can tell of a measured set beside its measures."""

    table: Mapping[str, Mapping[str, float]]  # row, e.g. a class -> column -> value; NaN: not known
    curves: Curves | None = None


class Certainty(NamedTuple):
    """Answers whose truth is known, one a row: how sure a model was, and whether it was right."""

    classes: Tensor  # (answers,) index in Task.classes
    scores: Tensor  # (answers,) the higher the surer
    right: Tensor  # (answers,) bool


class OwnTruth(NamedTuple):
    """What a model's own answers to one example teach."""

    target: Target
    classes: Tensor  # (answers,) index in Task.classes, of each answer in it


class Workload(Protocol):
    """Encode what goes in, know the truth, decode and measure what comes out.

    Built as `Workload(**config)`; SettingsError for a wrong value.

    A workload whose classes may change in a trained fleet also has `classes_setting`: the keyword
    of `config` that lists them. Nothing but targets and outputs may depend on it.

    One that answers classes also has `class_bias` if its model adds a trained tensor to their
    logits: the tensor's name, shape (classes,). Its task then has one target, the class's index, or
    it has `class_counts(target) -> (classes,)`: how often each class is in a target's tensors.

    One whose features are large may have `features_dtype = "float16"`: what robots keep of them
    between steps and rounds. It must be enough for the values that occur (65,504 at most).

    For `edge-agent serve` one may also have `input_ranges`: name of an input -> the least and the
    largest value that makes sense; and `raw_kind = "frame"` if `encode` takes Frames, or
    `from_bytes(content) -> raw`, which raises FrameError, if it takes something else. One with
    `raw_kind = "instruction"` takes Instructions: tables are then read as such.

    One whose first measure is of many rows at once, as an average precision is, may also have
    `measure_each(outputs, targets) -> (rows,)`: how good each row is by itself, in the direction of
    that measure; NaN: it tells nothing. A robot's trial of a new model compares rows by it.

    One whose own answers may teach it where nobody has told the truth has two methods more.
    `certainty(outputs, targets) -> Certainty` judges its answers to a batch of examples whose truth
    is known. `own_truth(outputs, least) -> OwnTruth | None` makes the truth of one example, without
    a batch axis, of answers that are all sure enough: `least` is (classes,), the lowest score that
    is, inf where none is. None: the example has no answer, or one that is not. With these two its
    models may be teachers, too (edge_agent/labeling/teacher). One that can answer some of its
    classes only says which by `finds`.

    For `edge-agent predict` one may also have `details(outputs, targets) -> Details`, with the
    arguments of `measure`; and `sure_score`: boxes with a lower score are for measures that rank
    them; see `sure`.

    One that reads the tensors of its engines' files itself has `open_stage(path, num_threads) ->
    EngineStage`, which raises BundleError: of a file of another tool, or of one that takes a part
    of an input, as a text without its padding. One whose files compute only together has
    `open_files(paths, num_threads) -> model` in its place: called with the encoded inputs it
    returns the outputs. A model that can say more than it is measured by, at a price, as a
    completion, has `whole(inputs)`: what `TFLiteEngine.answer` asks.

    One that needs more than its config, as a tokenizer, has `files`, their names, and
    `read_files(directory)`, which raises BundleError. They travel with trainers and engines, and
    lie in the folder that `init --checkpoint` names. `rebuild(spec, directory)` reads them. If they
    are not to travel as they lie there, it has `write_files(source, into)`.

    One whose adapters learn at another rate has `adapter_rate`, which `init` writes into settings.

    One that needs a package which a robot may lack has `packages`: name to import -> extra.

    One whose steps learn from crops of features has `of_crops`, the workload of these, or None, and
    `crop(features, target, rng) -> (features, target)`: no batch axis, the same model variables.

    One that leaves out a part of some inputs, as the end of a long text, has `told() ->
    Sequence[str]`: sentences about what it has encoded since it was last asked.
    """

    @property
    def task(self) -> Task:
        """Return the names, shapes and dtypes of all tensors, the measures, the classes."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the keyword arguments that rebuild this workload; JSON values only."""
        ...

    @property
    def training(self) -> TrainConfig:
        """Return how this model trains well: what `init` writes into the server's settings."""
        ...

    def encode(self, raw: Any) -> Encoded:
        """Turn raw input into what the model takes; raises FrameError if it cannot be read."""
        ...

    def target(self, example: Example) -> Target:
        """Return the truth of an example; raises FrameError if it is none that can be learned.

        It is called in every round, also for examples whose features are cached: it should not
        decode the input where it can do without.
        """
        ...

    def samples(self, folder: Path | None) -> Iterator[Sample]:
        """Yield inputs that set the ranges of int8 engines and that exports are checked with.

        Args:
            folder: the operator's own; None: those that come with the workload.

        Raises:
            SettingsError: the folder is missing or holds nothing that can be used.
        """
        ...

    def decode(self, outputs: Tensors, context: Any) -> Sequence[Prediction]:
        """Turn the outputs for one input into what they say: nothing, one or many predictions.

        Args:
            outputs: as Task.outputs names them; no batch axis.
            context: `Encoded.context` of the same input.

        Returns:
            Those about the whole input best first: they are alternatives, the first is the answer.
        """
        ...

    def measure(self, outputs: Tensors, targets: Tensors) -> Metrics:
        """Return every measure of Task.measures over a batch of at least one row."""
        ...


def known_workloads() -> Mapping[str, str]:
    """Return name -> "module:attribute" of ours and of installed packages.

    A name in a manifest comes over the network: it may choose among what the owner of this machine
    has installed (entry points of the group "fleetlearn.workloads"), never name a module itself.
    """
    return {**installed("fleetlearn.workloads"), **WORKLOADS}


def installed(group: str) -> Mapping[str, str]:
    """Return name -> "module:attribute" of the entry points of installed packages."""
    return {point.name: point.value for point in entry_points(group=group)}


def build_workload(spec: WorkloadSpec) -> Workload:
    """Return the workload that an operator has asked for.

    Raises:
        SettingsError: there is no such workload here, or a key or value of its config is wrong.
    """
    table = known_workloads()
    if spec.name not in table:
        raise SettingsError(
            f"unknown workload {spec.name!r}; installed here: {', '.join(sorted(table))}"
        )
    kind = load_plugin(table, spec.name)
    known = inspect.signature(kind).parameters
    if unknown := sorted(spec.config.keys() - known.keys()):
        raise SettingsError(
            f"workload {spec.name!r} has no setting {unknown[0]!r}; it knows {', '.join(known)}"
        )
    needed = [name for name, parameter in known.items() if parameter.default is parameter.empty]
    if missing := [name for name in needed if name not in spec.config]:
        raise SettingsError(
            f"workload {spec.name!r} needs the setting {missing[0]!r}; it knows {', '.join(known)}"
            f"; give it to `cloud-server init` with --set {missing[0]}=VALUE"
        )
    try:
        workload: Workload = kind(**spec.config)
    except (TypeError, ValueError) as reason:
        raise SettingsError(
            f"workload {spec.name!r}: a setting is wrong: {reason}; it knows {', '.join(known)}"
        ) from None
    return workload


def sure(
    workload: Workload, found: Sequence[Prediction], least: float | None = None
) -> Sequence[Prediction]:
    """Return what people and other programs are told of predictions.

    Args:
        workload: that they come from. A detector also answers a hundred boxes of no worth.
        found: with a box or without.
        least: the score of a box; None: the workload's `sure_score`.
    """
    wanted = getattr(workload, "sure_score", 0.0) if least is None else least
    return [one for one in found if one.box is None or one.score >= wanted]


def rebuild(spec: WorkloadSpec, directory: Path | None = None) -> Workload:
    """Return the workload that a manifest or trainer was made for.

    Args:
        spec: of the workload.
        directory: holds its files, where it has some; None: nothing is to be encoded.

    Raises:
        SettingsError: there is no such workload here.
        BundleError: its config or a file is one that this version does not know, or a package that
            it needs is not installed.
    """
    if spec.name not in known_workloads():
        return build_workload(spec)
    try:
        workload = build_workload(spec)
    except SettingsError as reason:
        raise BundleError(
            f"workload {spec.name!r} cannot be rebuilt: {reason}; do both sides run the same "
            "version of fleetlearn?"
        ) from None
    if directory is not None:
        read_files(workload, directory)
    return workload


def takes_instructions(workload: Workload) -> bool:
    """Return whether raw inputs are Instructions."""
    return getattr(workload, "raw_kind", "") == INSTRUCTION


def files_of(workload: Workload) -> Sequence[str]:
    """Return the names of the files that a workload needs; none of most."""
    names: Sequence[str] = getattr(workload, "files", ())
    return names


def read_files(workload: Workload, directory: Path) -> None:
    """Let a workload read its files, if it has some; raises BundleError."""
    require_packages(workload)
    if files_of(workload):
        workload.read_files(directory)  # type: ignore[attr-defined]


def require_packages(workload: Workload) -> None:
    """Raise BundleError unless what a workload needs is installed here; imports nothing."""
    needed: Mapping[str, str] = getattr(workload, "packages", {})
    for package, extra in needed.items():
        if find_spec(package) is None:
            raise BundleError(
                f"{package} is needed, and not installed here: pip install 'fleetlearn[{extra}]'"
            )


def with_classes(spec: WorkloadSpec, classes: Sequence[str]) -> WorkloadSpec:
    """Return the same workload with other classes.

    Raises:
        SettingsError: it has none that can be changed, or does not take these.
    """
    workload = rebuild(spec)
    setting: str = getattr(workload, "classes_setting", "")
    if not setting or not workload.task.classes:
        raise SettingsError(
            f"workload {spec.name!r} has no labels that can be added or renamed: "
            + ("its list of them is fixed" if workload.task.classes else "it learns no classes")
        )
    changed = WorkloadSpec(name=spec.name, config={**workload.config, setting: list(classes)})
    build_workload(changed)
    return changed


def config_without_classes(workload: Workload) -> Mapping[str, Any]:
    """Return the part of the config that encoding may depend on."""
    setting = getattr(workload, "classes_setting", None)
    return {key: value for key, value in workload.config.items() if key != setting}


def require_same_task(workload: Workload, published: Task | None, where: str) -> None:
    """Raise BundleError unless a workload still has the tensors that it was published with."""
    here = workload.task
    for role in ("inputs", "targets", "outputs"):
        theirs, ours = (_listed(getattr(task, role)) for task in (published or here, here))
        if theirs != ours:
            raise BundleError(
                f"{where}: its {role} are {theirs}, but its workload has {ours} here; do both "
                "sides run the same version of fleetlearn?"
            )


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{n} {s.shape} {s.dtype}" for n, s in sorted(specs.items()))


def require_tensors(expected: Mapping[str, TensorSpec], actual: Tensors, whose: str) -> None:
    """Raise TrainingError unless a workload gives the tensors that its task names."""
    shapes = {name: spec.shape for name, spec in expected.items()}
    if (found := {name: tensor.shape for name, tensor in actual.items()}) != shapes:
        raise TrainingError(f"{whose} are {found}, but the workload's task says {shapes}")
