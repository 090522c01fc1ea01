"""A Keras classifier of pictures: read from a file, cut, or made new as a student."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cloud_server.compression.recipes.recipe import Distill
from cloud_server.models.keras.checkpoint_import import labels_in
from cloud_server.models.own_weights import LABELS
from fleet_model.bundle import Task
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.keras.stages import Part
from fleet_model.workloads.image_classifier import ImageClassifier
from fleet_model.workloads.image_classifier.classifier import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE

if TYPE_CHECKING:
    import keras

IMAGE, LOGITS = "image", "logits"
_MAP_AXES = 4
# Moving statistics of a student have to follow within a few hundred steps; Keras's MobileNetV2 has
# 0.999, whose half is forgotten after 700.
_MOMENTUM = 0.99


class Classifier(NamedTuple):
    """A network: (batch, S, S, 3) float32 RGB 0..255 -> (batch, labels) logits."""

    model: "keras.Model"
    labels: tuple[str, ...]

    @property
    def size(self) -> int:
        """Return S, in pixels."""
        return int(self.model.input_shape[1])

    @property
    def task(self) -> Task:
        """Return names and shapes of what goes in and comes out."""
        return ImageClassifier(self.labels, image_size=self.size).task

    @property
    def part(self) -> Part:
        """Return the network with these names."""
        return Part(self.model, (IMAGE,), (LOGITS,))


def read_classifier(
    file: Path, labels: Sequence[str] = (), *, new_head: bool = False
) -> Classifier:
    """Return the network of a .keras file; nothing in the file is run.

    Args:
        file: as `models export --format keras` writes it, or a user's own.
        labels: in the order of the outputs; none: as the file says.
        new_head: what follows the last map gives way to a mean and a layer with drawn numbers.

    Raises:
        CheckpointError: it cannot be read, or is no classifier of pictures.
        SettingsError: the labels are not known, or not as many as the outputs.
    """
    import keras

    if not zipfile.is_zipfile(file):  # Keras says of one that is there that it is not
        raise CheckpointError(f"{file.name}: is no .keras file, or damaged; write it anew")
    try:
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as reason:  # noqa: BLE001  (Keras raises whatever its layers raise)
        text = str(reason).replace(str(file), file.name).strip().partition("\n")[0]
        raise CheckpointError(f"{file.name}: Keras does not load it: {text[:300]}") from None
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if len(shapes) != 2 or len(shapes[0]) != 4 or shapes[0][3] != 3:
        raise CheckpointError(
            f"{file.name}: takes and answers {shapes}, expected one picture (S, S, 3) and logits"
        )
    _, height, width, _ = shapes[0]
    if height != width or not height or not MIN_IMAGE_SIZE <= height <= MAX_IMAGE_SIZE:
        raise CheckpointError(
            f"{file.name}: takes pictures of {height} x {width} pixels, expected a square of "
            f"{MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}"
        )
    known = tuple(labels) or labels_in(file)
    if new_head:
        if not known:
            raise SettingsError("new_head: labels = [...] of [data] names what it is to know")
        if not (maps := _maps(model)):
            raise CheckpointError(f"{file.name}: none of its layers makes a map")
        keras.utils.set_random_seed(0)
        return Classifier(_headed(model.inputs[0], maps[-1].output, len(known)), known)
    if len(shapes[1]) != 2:
        raise CheckpointError(
            f"{file.name}: answers {shapes[1]}, expected logits; new_head = true of a step "
            '"teacher" puts a layer behind it'
        )
    if len(known) != (count := shapes[1][1]):
        said = f"{len(known)} are named" if known else "the file does not name them"
        raise SettingsError(
            f"{file.name}: answers {count} labels, and {said}: labels = [...] of [data] names "
            "them in their order"
        )
    return Classifier(_without_softmax(model), known)


def write_classifier(made: Classifier, file: Path) -> None:
    """Write a .keras file that `read_classifier` reads."""
    import keras

    bare = keras.Model.from_config(
        made.model.get_config()
    )  # without the optimizer and the loss of a training
    bare.set_weights(made.model.get_weights())
    bare.save(file)
    with zipfile.ZipFile(file, "a") as archive:  # Keras reads its own members alone
        archive.writestr(LABELS, json.dumps(made.labels))


def student_of(made: Classifier, how: Distill) -> Classifier:
    """Return what is to learn: the network itself, its first layers, or a new MobileNetV2.

    Raises:
        SettingsError: the network has no layer `how.until`.
    """
    import keras

    keras.utils.set_random_seed(how.seed)
    if how.student == "mobilenet-v2":
        return Classifier(_mobilenet(made.size, len(made.labels), how.width or 1.0), made.labels)
    if not how.until:
        return made
    names = [layer.name for layer in _maps(made.model)]
    if how.until not in names:
        raise SettingsError(
            f"until: the network has no layer {how.until!r} that makes a map; its last are "
            f"{', '.join(names[-8:])}"
        )
    last = made.model.get_layer(how.until).output
    return Classifier(_headed(made.model.inputs[0], last, len(made.labels)), made.labels)


def _maps(model: "keras.Model") -> "list[keras.layers.Layer]":
    """Return the layers that make a map, in the order of the network."""
    shapes = [getattr(layer.output, "shape", ()) for layer in model.layers[1:]]
    return [
        one for one, shape in zip(model.layers[1:], shapes, strict=True) if len(shape) == _MAP_AXES
    ]


def _mobilenet(size: int, labels: int, width: float) -> "keras.Model":
    """Return MobileNetV2 (arXiv:1801.04381) with drawn numbers."""
    import keras

    image = keras.Input((size, size, 3), name=IMAGE)
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(image)
    network = keras.applications.MobileNetV2(
        input_tensor=scaled, alpha=width, include_top=False, weights=None
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = _MOMENTUM
    return _headed(image, network.output, labels)


def _headed(image: "keras.KerasTensor", last: "keras.KerasTensor", labels: int) -> "keras.Model":
    from keras import Model, layers

    features = layers.GlobalAveragePooling2D(name="new_pool")(last)
    return Model(image, layers.Dense(labels, name="new_head")(features), name="student")


def _without_softmax(model: "keras.Model") -> "keras.Model":
    """Return the network that answers logits, where this one answers their softmax."""
    import keras

    last = model.layers[-1]
    if getattr(last, "activation", None) is keras.activations.softmax:
        if isinstance(last, keras.layers.Activation):
            return keras.Model(model.inputs[0], last.input, name=model.name)
        last.activation = keras.activations.linear
    elif isinstance(last, keras.layers.Softmax):
        return keras.Model(model.inputs[0], last.input, name=model.name)
    return model
