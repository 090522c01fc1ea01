"""Cut a Keras model where training begins: a frozen trunk, and the rest that is trained."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from fleet_model.errors import CheckpointError

if TYPE_CHECKING:
    import keras


def cut(
    model: "keras.Model", trainable: Collection[str]
) -> tuple["keras.Model | None", "keras.Model"]:
    """Return (trunk, rest); rest(trunk(x)) is model(x), and they share the model's variables.

    The cut is the input of the first layer that owns a variable of `trainable`. The trunk is None
    where nothing but scaling comes before: then the rest is the whole model.

    Raises:
        CheckpointError: the model has no such variable, or another branch goes round the cut.
    """
    import keras

    wanted = set(trainable)
    owners = [{v.path for v in layer.variables} for layer in model.layers]
    first = next((i for i, paths in enumerate(owners) if paths & wanted), None)
    if first is None:
        raise CheckpointError(f"the model has no variable named {sorted(wanted)}")
    if not any(owners[:first]):
        return None, model
    seam = model.layers[first].input
    try:
        trunk = keras.Model(model.input, seam, name="trunk")
        return trunk, keras.Model(seam, model.output, name="head")
    except ValueError:
        raise CheckpointError(
            f"the model cannot be cut before {model.layers[first].name}: another branch goes round "
            "it; choose another trainable scope"
        ) from None


def frozen_variables(
    model: "keras.Model", trainable: Collection[str]
) -> "dict[str, keras.Variable]":
    """Return what `trainable` leaves out, by path: what a Keras robot is sent once."""
    return {v.path: v for v in model.weights if v.path not in trainable}
