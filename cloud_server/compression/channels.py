"""Leave channels out of a Keras network (structured pruning): the file shrinks, and time falls.

Of an inverted residual (MobileNetV2, arXiv:1801.04381; EfficientNet) the wide part inside can be
narrowed without a word from the rest of the network:

    1x1 that expands -> normalization, activation -> depthwise -> the same -> 1x1 that projects

A channel in there is a filter of the first kernel, one of the depthwise kernel, and a row of the
last. Those with the smallest product of their three lengths go (L1 norms, as in arXiv:1608.08710;
of a normalized kernel, times the factor of its normalization).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.types import Tensor

if TYPE_CHECKING:
    import keras

Among: TypeAlias = Literal["all", "each"]
MULTIPLE = 8  # of channels that stay: engines compute as many at once


class Inside(NamedTuple):
    """The wide part of a block, by the names of its layers."""

    expands: str
    depthwise: str
    projects: str
    norms: tuple[str, ...]  # of these channels, in the order of the graph
    channels: int


def insides(model: "keras.Model") -> list[Inside]:
    """Return what can be narrowed, in the order of the graph."""
    from keras import layers

    graph = _Graph(model)
    found = []
    for layer in model.layers:
        if not isinstance(layer, layers.DepthwiseConv2D) or layer.depth_multiplier != 1:
            continue
        before, norms_before = graph.walk(layer, -1)
        after, norms_after = graph.walk(layer, +1)
        if _is_pointwise(before) and _is_pointwise(after):
            names = (one.name for one in (*norms_before[::-1], *norms_after))
            found.append(Inside(before.name, layer.name, after.name, tuple(names), before.filters))
    return found


def narrow_channels(
    model: "keras.Model", share: float, among: Among = "all"
) -> tuple["keras.Model", Mapping[str, Tensor]]:
    """Return a model without a share of the channels inside its blocks, and which stay.

    Args:
        model: functional; it is not changed. Layers with variables are each called once.
        share: of all these channels, 0 to below 1. As many stay in a block as MULTIPLE divides,
            rounded up, so a little less than `share` goes.
        among: "all": the weakest of the network, each block's strengths as a share of its mean, so
            that one block may lose more than another; "each": the weakest of every block.

    Returns:
        The model, and name of a depthwise layer -> (channels,) indices of what stays, in order.

    Raises:
        SettingsError: that is no such share.
        CheckpointError: the model has no such block.
    """
    import keras

    if not 0 <= share < 1:
        raise SettingsError(f"channels: the share to leave out is {share:g}, expected 0 to below 1")
    found = insides(model)
    if not found:
        raise CheckpointError(
            f"{model.name}: has no block of a 1x1 kernel, a depthwise one and a 1x1 kernel; there "
            "are no channels to leave out"
        )
    strengths = {one.depthwise: _strengths(model, one) for one in found}
    kept = _kept(strengths, share, among)
    filters = {one.expands: len(kept[one.depthwise]) for one in found}
    config = model.get_config()
    for layer in config["layers"]:
        if (name := layer["config"]["name"]) in filters:
            layer["config"]["filters"] = filters[name]
        layer.pop("build_config", None)  # shapes of before
    smaller = keras.Model.from_config(config)
    _fill(smaller, model, found, kept)
    return smaller, kept


class _Graph:
    """Who takes what whose layer gives."""

    def __init__(self, model: "keras.Model") -> None:
        self._nodes = [
            node
            for depth in sorted(model._nodes_by_depth, reverse=True)
            for node in model._nodes_by_depth[depth]
        ]
        self._answers = {id(tensor) for tensor in model.outputs}

    def walk(self, layer: Any, way: int) -> "tuple[Any, list[keras.layers.Layer]]":
        """Return the first layer before (-1) or behind (+1) that mixes channels, or joins ways.

        None where the way splits or ends. With it the normalizations on the way, as they are met.
        """
        from keras import layers

        alone = (
            layers.BatchNormalization,
            layers.ReLU,
            layers.Activation,
            layers.ZeroPadding2D,
            layers.Dropout,
        )
        norms: list[Any] = []
        while True:
            nodes = list(self._next(layer, way))
            if len(nodes) != 1:
                return None, norms
            layer = nodes[0].operation
            if way < 0 and len(list(self._next(layer, +1))) != 1:
                return None, norms  # others see these channels as well
            if not isinstance(layer, alone):
                return layer, norms
            if isinstance(layer, layers.BatchNormalization):
                norms.append(layer)

    def _next(self, layer: Any, way: int) -> Iterator[Any]:
        (own,) = (node for node in self._nodes if node.operation is layer)
        if way > 0:
            given = {id(tensor) for tensor in own.outputs}
            if given & self._answers:
                yield from (own, own)  # the model answers with it: that is one more who sees it
            for node in self._nodes:
                if given & {id(tensor) for tensor in node.input_tensors}:
                    yield node
        else:
            taken = {id(tensor) for tensor in own.input_tensors}
            for node in self._nodes:
                if taken & {id(tensor) for tensor in node.outputs}:
                    yield node


def _is_pointwise(layer: Any) -> bool:
    from keras import layers

    return (
        isinstance(layer, layers.Conv2D)
        and not isinstance(layer, layers.DepthwiseConv2D)
        and tuple(layer.kernel_size) == (1, 1)
        and layer.groups == 1
    )


def _strengths(model: "keras.Model", one: Inside) -> Tensor:
    """Return (channels,) how much each counts: see the module."""

    def length(name: str, axis: int) -> Tensor:
        kernel = np.abs(model.get_layer(name).kernel.numpy().astype(np.float64))
        return np.asarray(kernel.sum(axis=tuple(a for a in range(kernel.ndim) if a != axis)))

    strengths = length(one.expands, 3) * length(one.depthwise, 2) * length(one.projects, 2)
    for name in one.norms:
        norm = model.get_layer(name)
        factor = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        strengths = strengths * np.abs(factor * (norm.gamma.numpy() if norm.scale else 1.0))
    return np.asarray(strengths)


def _kept(strengths: Mapping[str, Tensor], share: float, among: Among) -> dict[str, Tensor]:
    """Return which channels stay, in order."""
    if among == "all":
        relative = {name: one / max(one.mean(), 1e-30) for name, one in strengths.items()}
        ranked = np.sort(np.concatenate(list(relative.values())))
        least = ranked[int(share * len(ranked))]
        counts = {name: int((one >= least).sum()) for name, one in relative.items()}
    else:
        counts = {name: len(one) - int(share * len(one)) for name, one in strengths.items()}
    kept = {}
    for name, one in strengths.items():
        count = min(len(one), max(1, -(-counts[name] // MULTIPLE)) * MULTIPLE)
        kept[name] = np.sort(np.argsort(-one, kind="stable")[:count])
    return kept


def _fill(
    smaller: "keras.Model",
    model: "keras.Model",
    found: Sequence[Inside],
    kept: Mapping[str, Tensor],
) -> None:
    """Give the smaller model the numbers of what stays."""
    cuts: dict[str, tuple[int, Tensor]] = {}  # layer -> axis of each of its tensors, indices
    last: dict[str, Tensor] = {}  # what projects: rows of its kernel
    for one in found:
        stays = kept[one.depthwise]
        cuts |= {one.expands: (3, stays), one.depthwise: (2, stays)}
        cuts |= dict.fromkeys(one.norms, (0, stays))
        last[one.projects] = stays
    for layer in model.layers:
        values = layer.get_weights()
        if layer.name in last:
            values = [np.take(values[0], last[layer.name], axis=2), *values[1:]]
        if layer.name in cuts:
            axis, stays = cuts[layer.name]
            values = [np.take(v, stays, axis=axis if v.ndim > 1 else 0) for v in values]
        smaller.get_layer(layer.name).set_weights(values)
