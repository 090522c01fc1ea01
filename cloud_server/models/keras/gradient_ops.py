"""A Keras model in operators whose gradients LiteRT has, too.

LiteRT runs convolutions, but has no operator for the gradient of their kernels, of a clipped ReLU,
or of batch normalization. Each of these layers can be written with slices, products and sums, whose
gradients are such again:

    convolution   windows side by side (im2col), then a matrix product; those of 1 x 1 that take
                  the same picture are one product
    depthwise     for each place of the window: the shifted picture times one row of the kernel;
                  with stride 1 it stays, and its gradient turns the kernel round
    ReLU, ReLU6   stay; their gradient is that of what lies inside
    normalization with fixed statistics: times a constant, plus a constant

Other layers are called as they are; a gradient that LiteRT lacks is then refused by the export.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fleet_model.keras.stages import Part
from fleet_model.types import Tensors, Weights

if TYPE_CHECKING:
    import keras

NARROW = 16  # columns: more fill the registers of any CPU
HUGE = 1e30  # makes 1 or more of what is not nearly 0; six of them are still a number

_Call = Callable[..., Any]


def written(part: Part, trained: Collection[str]) -> Callable[[Weights, Tensors], dict[str, Any]]:
    """Return what computes the outputs of a model by name, as in inference, in a graph.

    It takes the values of the `trained` variables by path, and inputs by name with a static batch
    axis. All other variables are constants, as they are now.
    """
    import keras
    import tensorflow as tf

    model = part.model
    fixed = {v.path: v.numpy() for v in model.variables if v.path not in trained}

    def answer(values: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
        constants = {path: tf.constant(value) for path, value in fixed.items()}
        known = {**constants, **values}
        mapping = [(variable, known[variable.path]) for variable in model.variables]
        with keras.StatelessScope(state_mapping=mapping):
            rows = part.ordered(tensors)
            joined = _joined(model)
            return part.named(
                model._run_through_graph(rows, lambda op: joined.get(op) or _written(op, fixed))
            )

    return answer


def _written(operation: Any, fixed: Weights) -> _Call:
    """Return what computes a layer; `fixed` has the values of variables that are constants."""
    import keras

    writers: Mapping[type, Callable[[Any, Weights], _Call | None]] = {
        keras.layers.Conv2D: _convolution,
        keras.layers.DepthwiseConv2D: _depthwise,
        keras.layers.Dense: _dense,
        keras.layers.ReLU: _relu,
        keras.layers.BatchNormalization: _normalization,
    }
    writer = writers.get(type(operation))
    return (writer and writer(operation, fixed)) or _inference(operation)


def _inference(operation: Any) -> _Call:
    if getattr(operation, "_call_has_training_arg", False):
        return lambda *given, **named: operation(*given, **{**named, "training": False})
    call: _Call = operation
    return call


def _convolution(layer: "keras.layers.Conv2D", _: Weights) -> _Call | None:
    if not _is_plain(layer) or layer.groups != 1:
        return None
    kernel = layer.kernel

    def call(image: Any, **_: Any) -> Any:
        import tensorflow as tf

        windows = _windows(image, layer)
        columns = windows[0] if len(windows) == 1 else tf.concat(windows, -1)
        batch, height, width, fan_in = columns.shape
        matrix = tf.reshape(columns, (1, batch * height * width, fan_in))
        product = _product(matrix, tf.reshape(_value(kernel), (1, fan_in, layer.filters)))
        return _finished(layer, tf.reshape(product, (batch, height, width, layer.filters)))

    return call


def _product(rows: Any, kernel: Any) -> Any:
    """Return rows times kernel: (1, n, fan_in), (1, fan_in, filters) -> (1, n, filters).

    A batch of one product: LiteRT's fast kernels take BATCH_MATMUL, but FULLY_CONNECTED only with
    a kernel that is a constant. A third of the time.
    """
    import tensorflow as tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def call(rows: Any, kernel: Any) -> Any:
        def gradient(slope: Any) -> tuple[Any, Any]:
            # The left factor is turned first: let it be the slope where that has little.
            if slope.shape[-1] <= NARROW < rows.shape[-1]:
                turned = tf.matmul(slope, rows, transpose_a=True)
                of_kernel = tf.transpose(turned, (0, 2, 1))
            else:
                of_kernel = tf.matmul(rows, slope, transpose_a=True)
            return tf.matmul(slope, kernel, transpose_b=True), of_kernel

        return tf.matmul(rows, kernel), gradient

    return call(rows, kernel)


def _joined(model: "keras.Model") -> dict[Any, _Call]:
    """Return what computes the 1 x 1 convolutions of a picture that several take, by layer.

    Products of few columns take nearly as long as those of many.
    """
    import keras

    taking: dict[int, list[Any]] = {}
    for layer in model.layers:
        if type(layer) is keras.layers.Conv2D and _is_pointwise(layer):
            taking.setdefault(id(layer.input), []).append(layer)
    found: dict[Any, _Call] = {}
    for layers in taking.values():
        if len(layers) > 1:
            found |= _side_by_side(layers)
    return found


def _side_by_side(layers: Sequence[Any]) -> dict[Any, _Call]:
    import tensorflow as tf

    parts: dict[Any, Any] = {}

    def part(layer: Any, image: Any) -> Any:
        if not parts:
            *sides, fan_in = image.shape
            kernels = [tf.reshape(_value(one.kernel), (1, fan_in, one.filters)) for one in layers]
            rows = tf.reshape(image, (1, math.prod(sides), fan_in))
            product = _product(rows, tf.concat(kernels, -1))
            split = tf.split(product, [one.filters for one in layers], -1)
            for one, columns in zip(layers, split, strict=True):
                parts[one] = tf.reshape(columns, (*sides, one.filters))
        return parts[layer]

    return {
        layer: lambda image, layer=layer, **_: _finished(layer, part(layer, image))
        for layer in layers
    }


def _depthwise(layer: "keras.layers.DepthwiseConv2D", _: Weights) -> _Call | None:
    if not _is_plain(layer) or layer.depth_multiplier != 1:
        return None
    kernel, sides = layer.kernel, (*layer.kernel_size, *layer.strides)
    turned = layer.padding == "same" and sides[2:] == (1, 1) and all(n % 2 for n in sides[:2])
    product = _depthwise_turned if turned else _depthwise_by_windows

    def call(image: Any, **_: Any) -> Any:
        return _finished(layer, product(image, _value(kernel), layer))

    return call


def _depthwise_by_windows(image: Any, kernel: Any, layer: Any) -> Any:
    """Return the product for any stride and padding."""
    import tensorflow as tf

    channels, total = image.shape[-1], None
    places = np.ndindex(*layer.kernel_size)
    for (row, column), window in zip(places, _windows(image, layer), strict=True):
        part = tf.slice(kernel, (row, column, 0, 0), (1, 1, channels, 1))
        term = window * tf.reshape(part, (channels,))
        total = term if total is None else total + term
    return total


def _depthwise_turned(image: Any, kernel: Any, layer: Any) -> Any:
    """Return the product for stride 1 and a window that has a middle: a third of the time.

    The gradient of the kernel is such a product, too: the slopes of the whole batch, one picture
    below the other, are a window that moves over the padded pictures.
    """
    import tensorflow as tf

    (batch, height, width, channels), size = image.shape, layer.kernel_size
    (above, left), (rows, columns) = (n // 2 for n in size), (n - 1 for n in size)

    def product(picture: Any, window: Any, padding: str = "SAME") -> Any:
        return tf.nn.depthwise_conv2d(picture, window, (1, 1, 1, 1), padding)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def call(image: Any, kernel: Any) -> Any:
        def gradient(slope: Any) -> tuple[Any, Any]:
            total = batch * (height + rows)
            seen = tf.pad(image, [(0, 0), (above, above), (left, left), (0, 0)])
            seen = tf.reshape(seen, (1, total, width + columns, channels))
            window = tf.pad(slope, [(0, 0), (0, rows), (0, 0), (0, 0)])
            window = tf.reshape(window, (total, width, channels, 1))[: total - rows]
            sums = tf.reshape(product(seen, window, "VALID"), kernel.shape)
            return product(slope, tf.reverse(kernel, (0, 1))), sums

        return product(image, kernel), gradient

    return call(image, kernel)


def _dense(layer: "keras.layers.Dense", _: Weights) -> _Call | None:
    activation = _activation(layer.activation)
    if activation is layer.activation or len(layer.input.shape) != 2:
        return None  # Keras's own will do

    def call(x: Any, **_: Any) -> Any:
        import tensorflow as tf

        x = tf.matmul(x, _value(layer.kernel))
        return activation(x + _value(layer.bias) if layer.use_bias else x)

    return call


def _relu(layer: "keras.layers.ReLU", _: Weights) -> _Call | None:
    if layer.negative_slope or layer.threshold:
        return None
    return _clipped(layer.max_value)


def _activation(function: Any) -> _Call:
    """Return an activation of a layer in operators with gradients."""
    import keras

    if function is keras.activations.relu:
        return _clipped(None)
    if function is keras.activations.relu6:
        return _clipped(6.0)
    call: _Call = function
    return call


def _clipped(most: float | None) -> _Call:
    """Return a ReLU, or one that ends at `most`."""

    def call(x: Any, **_: Any) -> Any:
        import tensorflow as tf

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def bent(x: Any) -> Any:
            y = tf.nn.relu(x) if most is None else tf.minimum(tf.nn.relu(x), most)

            def gradient(slope: Any) -> Any:
                # 1 inside, 0 at the ends, without booleans: those take six times as long.
                inside = y if most is None else y * (most - y)
                return slope * tf.minimum(inside * HUGE, 1.0)

            return y, gradient

        return bent(x)

    return call


def _normalization(layer: "keras.layers.BatchNormalization", fixed: Weights) -> _Call | None:
    if any(variable.path not in fixed for variable in layer.variables):
        return None
    if layer.axis not in (-1, len(layer.input.shape) - 1):
        return None
    scale = 1 / np.sqrt(fixed[layer.moving_variance.path] + layer.epsilon)
    if layer.scale:
        scale = scale * fixed[layer.gamma.path]
    offset = -fixed[layer.moving_mean.path] * scale
    if layer.center:
        offset = offset + fixed[layer.beta.path]
    factor, term = np.asarray(scale, np.float32), np.asarray(offset, np.float32)
    return lambda x, **_: x * factor + term


def _is_plain(layer: Any) -> bool:
    """Tell whether a convolution's window has no holes, and how its picture lies."""
    solid = set(layer.dilation_rate) == {1}
    return solid and layer.padding in ("same", "valid") and layer.data_format == "channels_last"


def _is_pointwise(layer: Any) -> bool:
    """Tell whether a convolution looks at one pixel at a time, and at each."""
    one = (*layer.kernel_size, *layer.strides, layer.groups) == (1, 1, 1, 1, 1)
    return one and _is_plain(layer)


def _windows(image: Any, layer: Any) -> list[Any]:
    """Return the picture as each place of the window sees it, row by row."""
    import tensorflow as tf

    batch, *sides, channels = image.shape
    around, counts = [], []
    for side, size, step in zip(sides, layer.kernel_size, layer.strides, strict=True):
        same = layer.padding == "same"
        count = -(-side // step) if same else (side - size) // step + 1
        missing = max(0, (count - 1) * step + size - side) if same else 0
        before = missing // 2
        # Behind, so many that `step` rows begin wherever the window does.
        around.append((before, max(0, size - 1 + count * step - side - before)))
        counts.append(count)
    if any(sum(both) for both in around):
        image = tf.pad(image, [(0, 0), *around, (0, 0)])
    taken = [count * step for count, step in zip(counts, layer.strides, strict=True)]
    found = []
    for row, column in np.ndindex(*layer.kernel_size):
        seen = tf.slice(image, (0, row, column, 0), (batch, *taken, channels))
        found.append(_every(seen, counts, layer.strides))
    return found


def _every(image: Any, counts: Sequence[int], steps: Sequence[int]) -> Any:
    """Return the first of every `steps` rows and columns; a strided slice has no gradient."""
    import tensorflow as tf

    (batch, _, width, channels), (rows, columns) = image.shape, counts
    if steps[0] > 1:
        image = tf.reshape(image, (batch, rows, steps[0] * width * channels))
        image = tf.slice(image, (0, 0, 0), (batch, rows, width * channels))
    if steps[1] > 1:
        image = tf.reshape(image, (batch * rows, columns, steps[1] * channels))
        image = tf.slice(image, (0, 0, 0), (batch * rows, columns, channels))
    return tf.reshape(image, (batch, rows, columns, channels))


def _finished(layer: Any, x: Any) -> Any:
    if layer.use_bias:
        x = x + _value(layer.bias)
    return _activation(layer.activation)(x)


def _value(variable: Any) -> Any:
    """Return a variable's value in the scope that is open, a tensor of the graph."""
    from keras import ops

    return ops.convert_to_tensor(variable)
