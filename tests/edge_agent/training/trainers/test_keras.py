import subprocess
import sys

import numpy as np
import pytest

from edge_agent.training.trainers.keras import KerasTrainer
from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.errors import TrainingError
from fleet_model.types import TrainConfig
from fleet_model.weights import l2_norm
from fleet_model.workloads.image_classifier.keras_model import ImageClassifierModel

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(epochs=1, learning_rate=0.1, momentum=0.0),
        TrainConfig(epochs=6, learning_rate=0.05, proximal_mu=0.05, clip_norm=1.0, seed=4),
        TrainConfig(epochs=3, batch_size=48, learning_rate=0.02, seed=5),
        TrainConfig(epochs=6, learning_rate=0.05, logit_adjustment=1.0),
    ],
    ids=["one epoch", "momentum, pull, clipping", "batches longer than the graph's", "own shares"],
)
def test_keras_and_litert_send_the_same_update(head, pictures, config):
    updates = [
        trainer(head.spec, head.directory).fit(head.checkpoint, pictures(90).examples(), config)
        for trainer in (KerasTrainer, LiteRTTrainer)
    ]
    keras, litert = updates
    assert l2_norm(keras.weights) > 0.01
    for name, tensor in keras.weights.items():
        assert np.abs(litert.weights[name] - tensor).max() < 1e-4
    assert keras.num_steps == litert.num_steps
    for metric in ("loss_before", "loss_after", "accuracy_after", "train_loss"):
        assert litert.metrics[metric] == pytest.approx(keras.metrics[metric], rel=1e-5, abs=1e-3)


def test_keras_and_litert_send_the_same_update_where_gradients_are_corrected(head, pictures):
    config, weights = TrainConfig(epochs=2, learning_rate=0.02), head.checkpoint.weights
    by = {name: np.full(tensor.shape, 0.5, np.float32) for name, tensor in weights.items()}
    keras, litert = (
        trainer(head.spec, head.directory).fit(
            head.checkpoint, pictures(40).examples(), config, correction=by
        )
        for trainer in (KerasTrainer, LiteRTTrainer)
    )
    assert all(tensor.mean() < -0.01 for tensor in keras.weights.values())
    for name, tensor in keras.weights.items():
        assert np.abs(litert.weights[name] - tensor).max() < 1e-4


def test_keras_and_litert_send_the_same_update_of_the_last_block(last_block, pictures):
    """Convolutions, a depthwise one, frozen normalization and ReLU6, from one step to the next."""
    config = TrainConfig(epochs=2, learning_rate=0.001, clip_norm=1.0)
    keras, litert = (
        trainer(last_block.spec, last_block.directory).fit(
            last_block.checkpoint, pictures(60).examples(), config
        )
        for trainer in (KerasTrainer, LiteRTTrainer)
    )
    length = l2_norm(keras.weights)
    assert length > 1e-4
    apart = {name: tensor - litert.weights[name] for name, tensor in keras.weights.items()}
    assert l2_norm(apart) < 1e-3 * length
    assert litert.metrics["loss_after"] == pytest.approx(keras.metrics["loss_after"], abs=1e-3)


def test_its_head_gradient_is_that_of_plain_keras(head, pictures):
    """One epoch of one batch against model.fit, which knows nothing of cuts and caches."""
    import keras

    trainer = KerasTrainer(head.spec, head.directory)
    some = [e for e in pictures(40).examples() if not e.held_out][:24]
    update = trainer.fit(head.checkpoint, some, TrainConfig(epochs=1, learning_rate=0.1))
    workload = trainer._learner.workload
    model = ImageClassifierModel(workload).build()
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images = np.stack([workload.encode(example.raw).inputs["image"] for example in some])
    targets = np.array([workload.target(example).tensors["class"] for example in some])
    model.fit(images, targets, batch_size=24, verbose=0)
    for variable in model.trainable_variables:
        expected = np.asarray(variable) - head.checkpoint.weights[variable.path]
        assert np.abs(update.weights[variable.path] - expected).max() < 1e-4


@pytest.mark.parametrize("scope", ["last_block", "whole_model"])
def test_it_learns_deeper_scopes(scope, request, pictures):
    trainable, some = request.getfixturevalue(scope), pictures(48)
    trainer = KerasTrainer(trainable.spec, trainable.directory)
    config = TrainConfig(epochs=3, learning_rate=0.001, clip_norm=1.0)
    first, second = (trainer.fit(trainable.checkpoint, some.examples(), config) for _ in range(2))
    assert first.metrics["train_loss"] < first.metrics["loss_before"]
    assert some.decoded == 48
    assert first.weights.keys() == trainable.checkpoint.weights.keys()
    assert all(tensor.any() for tensor in first.weights.values())
    assert not any("moving" in name or "gamma" in name for name in first.weights)
    for name, tensor in first.weights.items():
        assert second.weights[name] == pytest.approx(tensor, abs=1e-5)


def test_the_whole_model_keeps_its_pictures_as_bytes(whole_model, pictures):
    trainer = KerasTrainer(whole_model.spec, whole_model.directory)
    features = trainer._learner.model.features
    example = next(pictures(1).examples())
    image = trainer._learner.workload.encode(example.raw).inputs["image"]
    row = features({"image": image})["image"]
    assert row.dtype == np.uint8
    assert np.array_equal(row, image)
    assert features({"image": image + 0.5})["image"].dtype == np.float32


def test_frozen_tensors_come_from_the_server_not_from_the_workload(head, pictures, tmp_path):
    from fleet_model.weights import read_weights, write_weights

    frozen = dict(read_weights(head.directory / "frozen.safetensors"))
    name = next(name for name in frozen if name.endswith("Conv1/kernel"))
    frozen[name] = frozen[name] * 2
    write_weights(tmp_path / "frozen.safetensors", frozen)
    updates = [
        KerasTrainer(head.spec, directory).fit(
            head.checkpoint, pictures(12).examples(), TrainConfig()
        )
        for directory in (head.directory, tmp_path)
    ]
    assert not np.array_equal(updates[0].weights["head/kernel"], updates[1].weights["head/kernel"])


def test_frozen_tensors_of_another_model_are_refused(head, tmp_path):
    from fleet_model.weights import read_weights, write_weights

    frozen = dict(read_weights(head.directory / "frozen.safetensors"))
    frozen["stray/kernel"] = frozen.pop(min(frozen))
    write_weights(tmp_path / "frozen.safetensors", frozen)
    with pytest.raises(TrainingError, match=r"frozen\.safetensors: 2 tensors differ from what"):
        KerasTrainer(head.spec, tmp_path)


def test_without_tensorflow_the_error_names_the_extra(head):
    program = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from pathlib import Path\n"
        "from edge_agent.training.trainers.keras import KerasTrainer\n"
        "from fleet_model.bundle import TrainerSpec\n"
        "from fleet_model.errors import SettingsError\n"
        "try:\n"
        "    KerasTrainer(TrainerSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\n"
        "except SettingsError as error:\n"
        "    print(error)\n"
    )
    arguments = [head.spec.model_dump_json(), str(head.directory)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    )
    assert 'needs TensorFlow: pip install "fleetlearn[keras]" here' in done.stdout
