"""A network of pictures learns from a larger one's answers: by value, and killed in between."""

import math

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from keras import layers  # noqa: E402

from cloud_server.compression.picture_distilling import (  # noqa: E402
    Pictures,
    _Loss,
    _targets,
    answers,
    distill_pictures,
)
from cloud_server.compression.teaching import UNLABELLED, Teaching  # noqa: E402
from fleet_model.errors import CheckpointError, SettingsError, TrainingError  # noqa: E402

LABELS, SIDE = 3, 4
HOW = Teaching(epochs=6, batch_size=16, learning_rate=0.03, weight_decay=0.0, hard=0.0)


def network(seed, width=16):
    keras.utils.set_random_seed(seed)
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Flatten()(layers.Rescaling(1 / 64, -2)(image))
    x = layers.Dense(width, name="wide")(x)
    x = layers.Dropout(0.1)(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(image, layers.Dense(LABELS, name="logits")(x))


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 255, (90, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def taught(pictures):
    """Return logits that depend on the mean of each color."""
    means = pictures.mean(axis=(1, 2)) - 127
    return (means / means.std()).astype(np.float32) * 2


def unlabelled(pictures):
    return Pictures(pictures, np.full(len(pictures), UNLABELLED))


def agreement(model, pictures, taught):
    return float((answers(model, pictures).argmax(1) == taught.argmax(1)).mean())


def learn(model, what, taught, how, state, tell=lambda line: None):
    distill_pictures(model, what, taught, how, state, tell)
    return model


def test_the_loss_by_hand():
    what = Pictures(np.zeros((2, 1, 1, 3)), np.array([1, UNLABELLED]))
    taught, logits = np.array([[2.0, 0.0], [0.0, 4.0]]), np.array([[0.0, 0.0], [0.0, 2.0]])
    loss = _Loss(Teaching(temperature=2.0, hard=0.25), has_teacher=True)
    found = float(loss(_targets(what, taught, 2), logits.astype(np.float32)))

    def divergence(p, q):
        return 4 * sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)))

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    first = 0.75 * divergence(sigmoid(1), 0.5) + 0.25 * math.log(2)
    second = divergence(sigmoid(2), sigmoid(1))
    assert found == pytest.approx((first + second) / 2, rel=1e-5)
    alone = _Loss(Teaching(), has_teacher=False)
    labelled = Pictures(np.zeros((2, 1, 1, 3)), np.array([1, 0]))
    found = float(alone(_targets(labelled, None, 2), logits.astype(np.float32)))
    assert found == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2, rel=1e-5)


def test_a_student_learns_from_answers_alone(pictures, taught, tmp_path):
    student, lines = network(1), []
    before = agreement(student, pictures, taught)
    learn(student, unlabelled(pictures), taught, HOW, tmp_path / "state", lines.append)
    assert agreement(student, pictures, taught) > max(0.8, before + 0.2)
    assert lines[0].startswith("epoch 1 of 6: loss ")
    losses = [float(line.rpartition(" ")[2]) for line in lines]
    assert losses[-1] < 0.7 * losses[0]
    assert list(tmp_path.iterdir()) == []


def test_labels_count_where_somebody_has_said(pictures, taught, tmp_path):
    other = (taught.argmax(1) + 1) % LABELS  # the teacher says something else
    what = Pictures(pictures, other)
    how = Teaching(**{**_fields(HOW), "hard": 1.0})
    student = learn(network(1), what, taught, how, tmp_path / "state")
    assert (answers(student, pictures).argmax(1) == other).mean() > 0.8


def test_killed_after_an_epoch_it_ends_with_the_same_bits(pictures, taught, tmp_path):
    what = unlabelled(pictures)
    whole = learn(network(1), what, taught, HOW, tmp_path / "whole")

    class Killed(Exception):  # noqa: N818
        pass

    def killed(line):
        if line.startswith("epoch 3"):
            raise Killed

    with pytest.raises(Killed):
        learn(network(1), what, taught, HOW, tmp_path / "cut", killed)
    lines = []
    resumed = learn(network(7), what, taught, HOW, tmp_path / "cut", lines.append)
    assert lines[0] == "resumed after step 12 of 36"
    assert len(lines) == 5
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    other = learn(network(7), what, taught, HOW, tmp_path / "other")
    assert (other.get_weights()[0] != whole.get_weights()[0]).any()


def test_what_was_kept_of_another_network_or_is_damaged_counts_for_nothing(
    pictures, taught, tmp_path
):
    what, state = unlabelled(pictures), tmp_path / "state"
    state.write_bytes(b"damaged")
    lines = []
    learn(network(1), what, taught, HOW, state, lines.append)
    assert lines[0].startswith("epoch 1 of 6")


def test_zeros_stay(pictures, taught, tmp_path):
    student = network(1)
    kernel, bias = student.get_layer("wide").get_weights()
    kernel[::2] = 0
    student.get_layer("wide").set_weights([kernel, bias])
    learn(student, unlabelled(pictures), taught, HOW, tmp_path / "state")
    after = student.get_layer("wide").get_weights()[0]
    assert not after[::2].any()
    assert (after[1::2] != kernel[1::2]).any()


def test_what_teaches_nothing_is_refused(pictures, taught, tmp_path):
    def refused(what, logits, how, error, words):
        with pytest.raises(error, match=words):
            learn(network(1), what, logits, how, tmp_path / "state")

    what = unlabelled(pictures)
    refused(what, None, HOW, SettingsError, "without a label need a teacher")
    refused(what, taught[:9], HOW, SettingsError, "has answered 9 pictures, there are 90")
    with_features = Teaching(**{**_fields(HOW), "features": 1.0})
    refused(what, taught, with_features, SettingsError, "pictures teach by logits alone")
    steep = Teaching(**{**_fields(HOW), "learning_rate": 1e30})
    refused(what, taught, steep, TrainingError, "Take a smaller learning rate than 1e[+]30")
    broken = network(1)
    broken.get_layer("logits").set_weights([np.full((16, LABELS), np.nan), np.zeros(LABELS)])
    with pytest.raises(CheckpointError, match="it cannot teach"):
        answers(broken, pictures)


def _fields(how):
    return {name: getattr(how, name) for name in how.__dataclass_fields__}
