import numpy as np
import pytest

from fleet_model.bundle import Task, TensorSpec
from fleet_model.errors import CheckpointError
from fleet_model.keras.stages import cut, frozen_variables

pytestmark = pytest.mark.tensorflow


def task(inputs=None, outputs=None):
    def specs(sizes):
        return {name: TensorSpec(shape=(size,)) for name, size in sizes.items()}

    return Task(
        inputs=specs(inputs or {"x": 4}),
        targets={},
        outputs=specs(outputs or {"y": 2}),
        measures={},
        answer="text",
    )


@pytest.fixture
def model():
    import keras
    from keras import layers

    x = image = keras.Input((4,), name="x")
    x = layers.Dense(5, name="first")(layers.Rescaling(0.5, name="scale")(x))
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(image, layers.Dense(2, name="head")(layers.ReLU(name="relu")(x)))


def test_the_two_stages_are_the_model_and_share_its_variables(model):
    rows = np.random.default_rng(0).random((3, 4), np.float32)

    trunk, head = cut(model, ["head/kernel", "head/bias"], task())
    model.get_layer("head").bias.assign([1.0, 2.0])

    np.testing.assert_array_equal(head(trunk({"x": rows}))["y"].numpy(), model(rows).numpy())
    assert [v.path for v in head.model.variables] == ["head/kernel", "head/bias"]
    assert not {v.path for v in trunk.model.variables} & {"head/kernel", "head/bias"}


def test_the_cut_is_before_the_first_trained_layer(model):
    trunk, head = cut(model, ["norm/gamma", "head/kernel"], task())

    assert trunk.model.output.shape == (None, 5)
    assert {v.path for v in head.model.variables} == {
        "head/bias",
        "head/kernel",
        *(f"norm/{name}" for name in ("beta", "gamma", "moving_mean", "moving_variance")),
    }


def test_without_frozen_layers_in_front_there_is_no_trunk(model):
    trunk, rest = cut(model, ["first/kernel", "head/kernel"], task())

    assert trunk is None
    assert rest.model is model


def test_a_branch_round_the_cut_is_an_input_of_the_rest():
    import keras
    from keras import layers

    image = keras.Input((4,), name="x")
    x = layers.Dense(4, name="first")(image)
    x = layers.Dense(4, name="second")(x)
    branched = keras.Model(image, layers.Add(name="add")([x, image]))

    trunk, rest = cut(branched, ["second/kernel"], task(outputs={"y": 4}))

    assert (trunk.inputs, trunk.outputs) == (("x",), ("seam_0",))
    assert rest.inputs == ("seam_0", "x")
    rows = {"x": np.random.default_rng(0).random((3, 4), np.float32)}
    np.testing.assert_array_equal(rest({**rows, **trunk(rows)})["y"], branched(rows["x"]))


def test_unknown_variables_are_refused(model):
    with pytest.raises(CheckpointError, match="no variable named"):
        cut(model, ["tail/kernel"], task())


def test_several_inputs_and_outputs_keep_their_names():
    """One input joins after the trunk, and one output needs nothing that is trained."""
    import keras
    from keras import layers

    image, speed = keras.Input((4,), name="image"), keras.Input((2,), name="speed")
    seen = layers.Dense(5, name="eyes")(image)
    joined = layers.Concatenate(name="join")([seen, layers.Rescaling(2.0, name="scale")(speed)])
    outputs = {"turn": layers.Dense(3, name="head")(joined), "seen": seen}
    model = keras.Model({"image": image, "speed": speed}, outputs)
    wanted = task({"speed": 2, "image": 4}, {"turn": 3, "seen": 5})

    trunk, rest = cut(model, ["head/kernel", "head/bias"], wanted)

    assert (trunk.inputs, rest.outputs) == (("speed", "image"), ("turn", "seen"))
    rng = np.random.default_rng(0)
    rows = {"image": rng.random((3, 4), np.float32), "speed": rng.random((3, 2), np.float32)}
    answer, expected = rest({**rows, **trunk(rows)}), model(rows)
    for name in ("turn", "seen"):
        np.testing.assert_array_equal(answer[name], expected[name])
    assert {v.path for v in rest.model.variables} == {"head/kernel", "head/bias"}


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [({"x": 4}, {"y": 3}, "answers"), ({"z": 4}, {"y": 2}, "takes"), ({"x": 5}, {"y": 2}, "takes")],
)
def test_a_model_that_is_not_what_its_task_says_is_refused(model, inputs, outputs, message):
    with pytest.raises(CheckpointError, match=f"the model {message} .* its task says"):
        cut(model, ["head/kernel"], task(inputs, outputs))


def test_frozen_is_what_is_not_trained(model):
    frozen = frozen_variables(model, ["head/kernel", "head/bias"])

    assert len(frozen) == len(model.weights) - 2
    assert all(path == variable.path for path, variable in frozen.items())
