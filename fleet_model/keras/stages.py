"""Cut a Keras model where training begins: a frozen trunk, and the rest that is trained."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fleet_model.bundle import Task, WorkloadSpec
from fleet_model.errors import CheckpointError
from fleet_model.keras.model import KerasModel, answered, keras_model, learned_task
from fleet_model.signatures import FEATURES, only
from fleet_model.workload import Workload

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)  # no slots: tf.function keeps weak references
class Part:
    """A Keras model whose inputs and outputs have names; layers run as in inference."""

    model: "keras.Model"
    inputs: tuple[str, ...]  # in the order of model.inputs
    outputs: tuple[str, ...]  # in the order of model.outputs

    def __call__(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs by name; all tensors have a batch axis."""
        return self.named(self.model(self.ordered(tensors), training=False))

    def ordered(self, tensors: Mapping[str, Any]) -> Any:
        """Return what `model` is called with."""
        from keras import ops

        # Keras takes no mix of arrays and tensors.
        return _alone([ops.convert_to_tensor(tensors[name]) for name in self.inputs])

    def named(self, answer: Any) -> dict[str, Any]:
        """Return what `model` answers by name."""
        values = answer if isinstance(answer, (list, tuple)) else [answer]
        return dict(zip(self.outputs, values, strict=True))


class Learned(NamedTuple):
    """What a step computes the gradient of."""

    rest: Part
    definition: KerasModel  # its loss is the loss


def cut(model: "keras.Model", trainable: Collection[str], task: Task) -> tuple[Part | None, Part]:
    """Return (trunk, rest): together they are the model, and they share its variables.

    The rest is every layer that owns a variable of `trainable`, and all that depends on one. What
    it takes are inputs of the model by their own names, and tensors of the trunk: "features" if
    that is all, else seam_0, seam_1, ... The trunk is None where nothing but scaling comes before:
    then the rest is the whole model.

    Raises:
        CheckpointError: the model has no such variable, or its tensors are not those of the task.
    """
    inputs, outputs = named_tensors(model, task)
    traced = _traced(model, frozenset(trainable))
    if not any(trace.trained for trace in traced.values()):
        raise CheckpointError(f"the model has no variable named {sorted(trainable)}")
    seam = list({id(t): t for t in _seam(model, traced)}.values())
    own = {id(tensor): name for name, tensor in inputs.items()}
    computed = [tensor for tensor in seam if id(tensor) not in own]
    if not any(traced[id(tensor)].frozen for tensor in computed):
        return None, _part(inputs, outputs, model.name, model)
    names = [FEATURES] if len(seam) == 1 else [f"seam_{n}" for n in range(len(computed))]
    features = dict(zip(names, computed, strict=True))
    needed = frozenset.union(*(traced[id(tensor)].inputs for tensor in computed))
    first = {name: tensor for name, tensor in inputs.items() if name in needed}
    passing = {own[id(tensor)]: tensor for tensor in seam if id(tensor) in own}
    return _part(first, features, "trunk"), _part({**features, **passing}, outputs, "head")


def learned_part(
    spec: WorkloadSpec, workload: Workload, whole: Learned, tensors: Sequence[str]
) -> Learned:
    """Return what a step trains: `whole`, or the same layers for crops of what it takes.

    Those have variables of their own, with the paths and values of `whole`.
    """
    crops: Workload | None = getattr(workload, "of_crops", None)
    if crops is None:
        return whole
    definition = keras_model(spec, crops)
    model = definition.build(initial_weights=False)
    _, rest = cut(model, tensors, learned_task(definition, crops.task))
    values = {variable.path: variable for variable in whole.rest.model.variables}
    for variable in rest.model.variables:
        variable.assign(values[variable.path])
    return Learned(rest, definition)


def uncut(model: "keras.Model", task: Task) -> Part:
    """Return the uncut model; raises CheckpointError as `cut` does."""
    return _part(*named_tensors(model, task), model.name, model)


def whole(model: "keras.Model", task: Task, definition: KerasModel) -> Part:
    """Return the uncut model with what reads its answers; raises CheckpointError as `cut` does."""
    learned = learned_task(definition, task)
    if learned is task:
        return uncut(model, task)
    inputs, outputs = named_tensors(model, learned)
    answers = answered(definition, outputs)
    return _part(inputs, {name: answers[name] for name in task.outputs}, model.name)


def answer_part(task: Task, definition: KerasModel) -> Part | None:
    """Return what reads answers from maps; None where the model itself gives them."""
    import keras

    learned = learned_task(definition, task)
    if learned is task:
        return None
    maps = {
        name: keras.Input(spec.shape, dtype=spec.dtype, name=name)
        for name, spec in learned.outputs.items()
    }
    answers = answered(definition, maps)
    return _part(maps, {name: answers[name] for name in task.outputs}, "answer")


def named_tensors(model: "keras.Model", task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return inputs and outputs by name, in the task's order.

    Raises:
        CheckpointError: they are not those of the task.
    """
    given = {tensor.name: tensor for tensor in model.inputs}
    answer = model.output
    answered = answer if isinstance(answer, dict) else {only(task.outputs): answer}
    for what, found, specs in (("takes", given, task.inputs), ("answers", answered, task.outputs)):
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in found.items()}
        if shapes != (expected := {name: tuple(spec.shape) for name, spec in specs.items()}):
            raise CheckpointError(f"the model {what} {shapes}, but its task says {expected}")
    return {name: given[name] for name in task.inputs}, {n: answered[n] for n in task.outputs}


def frozen_variables(
    model: "keras.Model", trainable: Collection[str]
) -> "dict[str, keras.Variable]":
    """Return what `trainable` leaves out, by path: what a Keras robot is sent once."""
    return {v.path: v for v in model.weights if v.path not in trainable}


def grouped_kernels(model: "keras.Model") -> frozenset[str]:
    """Return the paths of kernels whose outputs see a part of the inputs only."""
    import keras

    layers = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
    separable = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
    return frozenset(
        variable.path
        for layer in model._flatten_layers()
        for variable in getattr(layer, "variables", ())
        if (isinstance(layer, layers) or getattr(layer, "groups", 1) > 1)
        or (isinstance(layer, separable) and "depthwise" in variable.path)
        if len(variable.shape) > 1
    )


class _Trace(NamedTuple):
    """What one tensor of the model depends on."""

    trained: bool  # on a variable that is trained
    frozen: bool  # on a variable that is not
    inputs: frozenset[str]  # on these inputs of the model


def _traced(model: "keras.Model", wanted: frozenset[str]) -> dict[int, _Trace]:
    """Return the trace of every tensor by its id."""
    traced = {id(t): _Trace(False, False, frozenset([t.name])) for t in model.inputs}
    for node in _nodes(model):
        above = [traced[id(tensor)] for tensor in node.input_tensors]
        paths = {variable.path for variable in getattr(node.operation, "variables", ())}
        trace = _Trace(
            trained=bool(paths & wanted) or any(t.trained for t in above),
            frozen=bool(paths - wanted) or any(t.frozen for t in above),
            inputs=frozenset().union(*(t.inputs for t in above)),
        )
        traced.update((id(tensor), trace) for tensor in node.outputs)
    return traced


def _seam(model: "keras.Model", traced: Mapping[int, _Trace]) -> Iterator[Any]:
    """Yield the untrained tensors that trained layers take, or that the model itself answers."""
    for node in _nodes(model):
        if traced[id(node.outputs[0])].trained:
            yield from (t for t in node.input_tensors if not traced[id(t)].trained)
    yield from (t for t in model.outputs if not traced[id(t)].trained)


def _nodes(model: "keras.Model") -> Iterator[Any]:
    """Yield the calls of the model's layers, each after those that it depends on."""
    by_depth = model._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if not node.is_input)


def _part(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any], name: str, model: Any = None
) -> Part:
    import keras

    given = {id(tensor) for tensor in inputs.values()}
    outputs = {
        name: keras.layers.Identity()(tensor) if id(tensor) in given else tensor
        for name, tensor in outputs.items()
    }
    single = len(inputs) == len(outputs) == 1
    if model is None or not single:  # lists: their order is ours, that of dicts would be Keras's
        model = keras.Model(
            _alone(list(inputs.values())), _alone(list(outputs.values())), name=name
        )
    return Part(model, tuple(inputs), tuple(outputs))


def _alone(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
