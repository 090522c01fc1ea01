"""Make tests/data/tiny_bundle: a whole model of 20 kB that runs where TensorFlow is missing.

    PYTHONPATH=. python tests/data/make_tiny_bundle.py

The real export jobs run with a backbone of 8 features in the place of "mobilenet-v2-035", so the
folder has all that a published version and its trainer have. expected.json holds Keras's logits
for a plain gray picture.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cloud_server.models.export import BundleJob, InitJob
from cloud_server.models.export.bundle_directory import write_bundle_directory
from cloud_server.models.export.model_directory import write_model_directory
from fleet_model.bundle import WorkloadSpec
from fleet_model.keras.model import keras_model
from fleet_model.weights import write_weights
from fleet_model.workload import rebuild
from fleet_model.workloads.image_classifier.networks import NETWORKS, Network, seeded_kernel

OUT = Path(__file__).parent / "tiny_bundle"
REPLACED = "mobilenet-v2-035"
WORKLOAD = WorkloadSpec(
    name="image-classifier",
    config={"labels": ["circle", "square", "star"], "backbone": REPLACED, "image_size": 32},
)


def tiny_network() -> Network:
    """Two convolutions and one BatchNormalization: (batch, 32, 32, 3) -> (batch, 8)."""
    return Network(features=_features, last_block="second", load=_load)


def _features(image: Any) -> Any:
    from keras import layers

    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(image)
    x = layers.Conv2D(4, 3, 2, "same", use_bias=False, name="first")(x)  # (batch, 16, 16, 4)
    x = layers.ReLU(6.0, name="first_relu")(layers.BatchNormalization(name="first_norm")(x))
    x = layers.Conv2D(8, 3, 2, "same", activation="relu", name="second")(x)  # (batch, 8, 8, 8)
    return layers.GlobalAveragePooling2D(name="pool")(x)


def _load(model: Any) -> None:
    for variable in model.variables:
        if variable.path.endswith("kernel"):
            variable.assign(seeded_kernel(variable.path, tuple(variable.shape)))


def trained_weights() -> dict[str, np.ndarray]:
    """Return a head that has an opinion: its logits are around 1."""
    return {
        "head/kernel": 8 * seeded_kernel("head/kernel", (8, 3)),
        "head/bias": np.array([0.5, -0.5, 0.0], np.float32),
    }


def main() -> None:
    """Replace the folder."""
    NETWORKS[REPLACED] = tiny_network()
    shutil.rmtree(OUT, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        init = InitJob(workload=WORKLOAD, trainable="head", batch_size=4, directory=model)
        write_model_directory(init, print)
        write_weights(OUT / "weights.safetensors", trained_weights())
        job = BundleJob(
            model=model,
            weights=OUT / "weights.safetensors",
            version=1,
            created_at="2026-01-01T00:00:00Z",
            directory=OUT,
        )
        write_bundle_directory(job, print)
        for name in ("trainer.tflite", "frozen.safetensors"):
            shutil.copy(model / name, OUT)
    (OUT / "expected.json").write_text(json.dumps({"gray_96": _keras_logits().tolist()}) + "\n")
    print(sum(file.stat().st_size for file in OUT.iterdir()), "bytes in", OUT)  # noqa: T201


def _keras_logits() -> np.ndarray:
    model = keras_model(WORKLOAD, rebuild(WORKLOAD)).build()
    model.get_layer("head").set_weights(list(trained_weights().values()))
    image = np.full((1, 32, 32, 3), 96.0, np.float32)  # plain: resizing cannot change it
    return np.asarray(model(image, training=False))[0]


if __name__ == "__main__":
    main()
