"""Channels that are left out: by value where they say nothing, and the file shrinks."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from keras import layers  # noqa: E402

from cloud_server.compression.channels import insides, narrow_channels  # noqa: E402
from fleet_model.errors import CheckpointError, SettingsError  # noqa: E402

SIDE = 32


@pytest.fixture(scope="module")
def mobile():
    """Return MobileNetV2 with drawn numbers, also those of its normalizations."""
    model = keras.applications.MobileNetV2(
        (SIDE, SIDE, 3), alpha=0.35, include_top=True, weights=None, classes=5
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, v.shape) for v in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(1).normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)


def silent(model, share, seed=2):
    """Return a copy in which a share of each block's channels is not heard behind the block."""
    copy, rng = keras.models.clone_model(model), np.random.default_rng(seed)
    copy.set_weights(model.get_weights())
    for one in insides(copy):
        layer = copy.get_layer(one.projects)
        kernel, *rest = layer.get_weights()
        kernel[:, :, rng.permutation(one.channels)[: int(share * one.channels)]] = 0
        layer.set_weights([kernel, *rest])
    return copy


def test_every_expanded_block_of_mobilenet_can_be_narrowed(mobile):
    found = insides(mobile)
    assert len(found) == 16  # of 17 blocks; the first one expands nothing
    assert found[0].expands == "block_1_expand"
    assert found[0].depthwise == "block_1_depthwise"
    assert found[0].projects == "block_1_project"
    assert found[0].norms == ("block_1_expand_BN", "block_1_depthwise_BN")
    assert [one.channels for one in found[:3]] == [48, 48, 48]


@pytest.mark.parametrize("among", ["all", "each"])
def test_channels_that_nobody_hears_go_and_answers_stay(mobile, pictures, among):
    model = silent(mobile, 0.5)
    smaller, kept = narrow_channels(model, 0.5, among)
    for one in insides(model):
        heard = np.flatnonzero(model.get_layer(one.projects).kernel.numpy()[0, 0].any(axis=1))
        np.testing.assert_array_equal(kept[one.depthwise], heard)
        assert smaller.get_layer(one.expands).filters == one.channels / 2
    expected, found = model(pictures, training=False), smaller(pictures, training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert smaller.count_params() < 0.8 * model.count_params()


def test_a_share_of_nothing_is_the_same_model(mobile, pictures):
    same, kept = narrow_channels(mobile, 0.0)
    assert {len(one) for one in kept.values()} == {one.channels for one in insides(mobile)}
    np.testing.assert_array_equal(same(pictures), mobile(pictures))


def test_the_weakest_by_the_product_of_lengths_go_by_value():
    image = keras.Input((4, 4, 1))
    x = layers.Conv2D(16, 1, use_bias=False, name="wide")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(1, use_bias=False, name="deep")(layers.ReLU()(x))
    model = keras.Model(image, layers.Conv2D(1, 1, use_bias=False, name="out")(x))
    model.get_layer("wide").set_weights([np.arange(1.0, 17).reshape(1, 1, 1, 16)])
    gamma = np.ones(16)
    gamma[15] = 0.01  # the widest filter, and next to nothing behind its normalization
    model.get_layer("norm").set_weights([gamma, np.zeros(16), np.zeros(16), np.ones(16)])
    model.get_layer("deep").set_weights([np.ones((1, 1, 16, 1))])
    rows = np.ones((1, 1, 16, 1))
    rows[0, 0, 0] = -100  # a negative number is as strong
    model.get_layer("out").set_weights([rows])
    smaller, kept = narrow_channels(model, 0.5)
    # strengths: 100, 2, 3, ..., 15, .16: the eight strongest
    assert kept["deep"].tolist() == [0, 8, 9, 10, 11, 12, 13, 14]
    assert smaller.get_layer("wide").kernel.numpy().ravel().tolist() == [1, *range(9, 16)]
    assert smaller.get_layer("norm").get_weights()[0].tolist() == [1.0] * 8


def test_as_many_stay_as_engines_compute_at_once_and_never_none(mobile):
    _, kept = narrow_channels(mobile, 0.97)
    assert {len(one) % 8 for one in kept.values()} == {0}
    assert min(map(len, kept.values())) == 8


def test_channels_that_others_see_stay():
    image = keras.Input((8, 8, 3))
    wide = layers.Conv2D(16, 1, name="wide")(image)
    deep = layers.DepthwiseConv2D(3, padding="same")(wide)
    heard = layers.Add()([deep, wide])  # around the depthwise layer
    model = keras.Model(image, layers.Conv2D(4, 1)(heard))
    assert insides(model) == []
    with pytest.raises(CheckpointError, match="there are no channels to leave out"):
        narrow_channels(model, 0.3)
    answers = keras.Model(image, [layers.Conv2D(4, 1)(deep), wide])
    assert insides(answers) == []


def test_a_share_that_is_none_is_refused(mobile):
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(SettingsError, match="expected 0 to below 1"):
            narrow_channels(mobile, share)
