import numpy as np
import pytest

from fleet_model.errors import CheckpointError
from fleet_model.stages import cut, frozen_variables

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def model():
    import keras
    from keras import layers

    x = image = keras.Input((4,))
    x = layers.Dense(5, name="first")(layers.Rescaling(0.5, name="scale")(x))
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(image, layers.Dense(2, name="head")(layers.ReLU(name="relu")(x)))


def test_the_two_stages_are_the_model_and_share_its_variables(model):
    rows = np.random.default_rng(0).random((3, 4), np.float32)

    trunk, head = cut(model, ["head/kernel", "head/bias"])
    model.get_layer("head").bias.assign([1.0, 2.0])

    np.testing.assert_array_equal(head(trunk(rows)).numpy(), model(rows).numpy())
    assert [v.path for v in head.variables] == ["head/kernel", "head/bias"]
    assert not {v.path for v in trunk.variables} & {"head/kernel", "head/bias"}


def test_the_cut_is_before_the_first_trained_layer(model):
    trunk, head = cut(model, ["norm/gamma", "head/kernel"])

    assert trunk.output.shape == (None, 5)
    assert {v.path for v in head.variables} == {
        "head/bias",
        "head/kernel",
        *(f"norm/{name}" for name in ("beta", "gamma", "moving_mean", "moving_variance")),
    }


def test_without_frozen_layers_in_front_there_is_no_trunk(model):
    trunk, rest = cut(model, ["first/kernel", "head/kernel"])

    assert trunk is None
    assert rest is model


def test_a_branch_round_the_cut_is_refused():
    import keras
    from keras import layers

    image = keras.Input((4,))
    x = layers.Dense(4, name="first")(image)
    x = layers.Dense(4, name="second")(x)
    branched = keras.Model(image, layers.Add(name="add")([x, image]))

    with pytest.raises(CheckpointError, match="cannot be cut before second"):
        cut(branched, ["second/kernel"])


def test_unknown_variables_are_refused(model):
    with pytest.raises(CheckpointError, match="no variable named"):
        cut(model, ["tail/kernel"])


def test_frozen_is_what_is_not_trained(model):
    frozen = frozen_variables(model, ["head/kernel", "head/bias"])

    assert len(frozen) == len(model.weights) - 2
    assert all(path == variable.path for path, variable in frozen.items())
