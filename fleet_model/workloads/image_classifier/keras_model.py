"""The image classifier in Keras: a backbone and one dense layer named "head"."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fleet_model.errors import SettingsError
from fleet_model.workloads.image_classifier.classifier import ImageClassifier
from fleet_model.workloads.image_classifier.networks import NETWORKS, seeded_kernel

if TYPE_CHECKING:
    import keras


class ImageClassifierModel:
    """`KerasModel` of the image classifier."""

    # LiteRT takes four times as long as Keras for the last block: the whole model is left to it.
    litert_scopes = frozenset({"head", "last-block"})
    class_axes: ClassVar[Mapping[str, int]] = {"head/kernel": 1, "head/bias": 0}

    def __init__(self, workload: ImageClassifier) -> None:
        self._workload = workload
        self._network = NETWORKS[workload.backbone]

    def build(self, *, initial_weights: bool = True) -> "keras.Model":
        """Return the model: image (batch, S, S, 3) RGB 0..255 -> logits (batch, labels).

        Raises:
            SettingsError: the package with the backbone's initial weights is not installed.
        """
        import keras

        size, labels = self._workload.image_size, len(self._workload.labels)
        image = keras.Input((size, size, 3), name="image")
        features = self._network.features(image)  # (batch, 1280)
        head = keras.layers.Dense(labels, name="head")
        model = keras.Model(image, head(features), name="image_classifier")
        if initial_weights:
            self._network.load(model)
            kernel = seeded_kernel("head/kernel", tuple(head.kernel.shape))
            # Small: a loss near ln(classes) at the start, yet no ties between the classes.
            head.set_weights([0.1 * kernel, np.zeros(labels, np.float32)])
        return model

    def trainable(self, model: "keras.Model", scope: str) -> Sequence[str]:
        """Return the variable paths that `scope` trains, without any of BatchNormalization.

        Its statistics do not survive averaging over robots with different pictures, so they stay
        as they are and the layers run in inference mode.
        """
        import keras

        first = {
            "head": "head",
            "last-block": self._network.last_block,
            "all": model.layers[0].name,
        }
        if scope not in first:
            raise SettingsError(f"unknown trainable {scope!r}; choose {', '.join(first)}")
        names = [layer.name for layer in model.layers]
        return [
            variable.path
            for layer in model.layers[names.index(first[scope]) :]
            if not isinstance(layer, keras.layers.BatchNormalization)
            for variable in layer.trainable_variables
        ]

    def loss(self, targets: Any, outputs: Any, sample_weight: Any) -> Any:
        """Return sum(w * cross entropy) / sum(w): a row of weight 0 changes nothing."""
        from keras import ops

        labels = len(self._workload.labels)
        chosen = ops.one_hot(targets["class"], labels, dtype="float32")  # (batch, labels)
        logs = ops.log_softmax(outputs["logits"], axis=-1)
        rows = -ops.sum(chosen * logs, axis=-1)  # (batch,)
        return ops.sum(sample_weight * rows) / ops.maximum(ops.sum(sample_weight), 1e-6)
