import numpy as np
import pytest

from edge_agent.training.trainers.keras import KerasTrainer
from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.types import TrainConfig
from fleet_model.weights import l2_norm, read_weights, size_bytes

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
KERNEL, SCALE = "head/kernel", 2.0


def test_the_trainer_says_what_travels_and_that_older_agents_must_not_take_it(lora_head, head):
    spec = lora_head.spec
    assert spec.critical == ("adapter",)
    assert {name: t.shape for name, t in spec.tensors.items()} == {
        f"{KERNEL}.lora_a": (1280, 2),
        f"{KERNEL}.lora_b": (2, 4),
        "head/bias": (4,),
    }
    assert spec.variables == head.spec.tensors
    assert spec.parts["litert"] == (*head.spec.parts["litert"], "base.safetensors")
    base = read_weights(lora_head.directory / "base.safetensors")
    assert np.array_equal(base[KERNEL], head.checkpoint.weights[KERNEL])
    for name in head.spec.files:  # the graphs and the frozen part are those of any head
        assert spec.files[name] == head.spec.files[name]


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(epochs=6, learning_rate=0.01, proximal_mu=0.05, clip_norm=1.0, seed=4),
        TrainConfig(epochs=3, batch_size=48, learning_rate=0.002, logit_adjustment=1.0),
    ],
    ids=["momentum, pull, clipping", "batches longer than the graph's, own shares"],
)
def test_keras_and_litert_send_the_same_adapters(lora_head, pictures, config):
    keras, litert = (
        trainer(lora_head.spec, lora_head.directory).fit(
            lora_head.checkpoint, pictures(90).examples(), config
        )
        for trainer in (KerasTrainer, LiteRTTrainer)
    )
    assert keras.weights.keys() == lora_head.spec.tensors.keys()
    assert l2_norm(keras.weights) > 0.01
    for name, tensor in keras.weights.items():
        assert np.abs(litert.weights[name] - tensor).max() < 1e-4
    assert litert.metrics["loss_after"] == pytest.approx(keras.metrics["loss_after"], rel=1e-3)


def test_the_gradients_are_those_of_a_lora_layer_in_keras(lora_head, pictures):
    """A dense layer of W0 with A and B as variables beside it, and Keras's own autodiff."""
    import tensorflow as tf

    machine = LiteRTTrainer(lora_head.spec, lora_head.directory)._learner
    examples = list(pictures(32).examples())
    rows = np.stack(
        [
            machine.model.features(machine.workload.encode(e.raw).inputs)["features"]
            for e in examples
        ]
    )
    targets = np.array([machine.workload.target(e).tensors["class"] for e in examples])
    random = np.random.default_rng(0)
    weights = {
        name: random.normal(scale=0.1, size=t.shape).astype(np.float32)
        for name, t in lora_head.spec.tensors.items()
    }
    loss, slopes = machine.model.gradient(
        weights, {"features": rows}, {"class": targets}, np.ones(32, np.float32)
    )
    base = read_weights(lora_head.directory / "base.safetensors")[KERNEL]
    variables = {name: tf.Variable(tensor) for name, tensor in weights.items()}
    a, b = variables[f"{KERNEL}.lora_a"], variables[f"{KERNEL}.lora_b"]
    with tf.GradientTape() as tape:
        logits = rows @ base + SCALE * (rows @ a) @ b + variables["head/bias"]
        expected = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
        )
    assert loss == pytest.approx(float(expected), rel=1e-5)
    for name, slope in tape.gradient(expected, variables).items():
        assert np.abs(slopes[name] - slope.numpy()).max() < 1e-4


def test_the_last_block_sends_a_fraction_and_learns(lora_block, last_block, pictures):
    spec = lora_block.spec
    assert size_bytes(lora_block.checkpoint.weights) < size_bytes(last_block.checkpoint.weights) / 9
    adapted = {name for name in spec.tensors if ".lora_" in name}
    assert {path.rpartition(".")[0] for path in adapted} == spec.adapter.targets.keys()
    assert KERNEL in spec.tensors  # the head is trained whole
    (depthwise,) = [name for name in spec.tensors if "depthwise" in name]
    assert depthwise not in spec.adapter.targets  # trained whole
    config = TrainConfig(epochs=4, learning_rate=0.002, clip_norm=1.0)
    updates = [
        trainer(spec, lora_block.directory).fit(
            lora_block.checkpoint, pictures(48).examples(), config
        )
        for trainer in (KerasTrainer, LiteRTTrainer)
    ]
    for update in updates:
        assert update.metrics["train_loss"] < update.metrics["loss_before"]
        assert update.weights.keys() == spec.tensors.keys()
        assert all(tensor.any() for tensor in update.weights.values())
    keras, litert = (update.weights for update in updates)
    apart = {name: tensor - litert[name] for name, tensor in keras.items()}
    assert l2_norm(apart) < 1e-3 * l2_norm(keras)
