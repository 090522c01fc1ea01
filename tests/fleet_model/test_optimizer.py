import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.optimizer import add_proximal, clip_by_global_norm, momentum_step, step, still
from fleet_model.types import TrainConfig
from fleet_model.weights import l2_norm

pytestmark = pytest.mark.base


def tensors(**values):
    return {name: np.array(value, np.float32) for name, value in values.items()}


def test_two_momentum_steps_by_hand():
    weights, gradients = tensors(w=[1.0, 2.0]), tensors(w=[0.5, -1.0])
    weights, velocity = momentum_step(weights, still(weights), gradients, 0.1, 0.9)
    assert weights["w"] == pytest.approx([0.95, 2.1])  # w - 0.1 g
    assert velocity["w"] == pytest.approx([-0.05, 0.1])
    weights, velocity = momentum_step(weights, velocity, gradients, 0.1, 0.9)
    assert velocity["w"] == pytest.approx([-0.095, 0.19])  # 0.9 v - 0.1 g
    assert weights["w"] == pytest.approx([0.855, 2.29])


def test_two_steps_of_adam_by_hand():
    weights, config = tensors(w=[1.0, 2.0]), TrainConfig(learning_rate=0.1, adaptive=0.99)
    one, moments = step(weights, still(weights), tensors(w=[0.5, -4.0]), weights, config)
    assert one["w"] == pytest.approx(
        [0.9, 2.1], abs=1e-6
    )  # the first step has the length of the rate
    two, _ = step(one, moments, tensors(w=[0.0, -4.0]), weights, config)
    # m = (.9 * .05 + 0) / (1 - .81), v = (.99 * .0025 + 0) / (1 - .9801)
    assert two["w"][0] == pytest.approx(0.9 - 0.1 * (0.045 / 0.19) / (0.002475 / 0.0199) ** 0.5)
    assert two["w"][1] == pytest.approx(2.2, abs=1e-6)
    assert two["w"].dtype == np.float32


@pytest.mark.torch
def test_adam_is_that_of_torch():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    start = random.normal(size=(7, 3)).astype(np.float32)
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    theirs = torch.optim.Adam([parameter], lr=0.01, betas=(0.8, 0.99))
    config = TrainConfig(learning_rate=0.01, momentum=0.8, adaptive=0.99)
    weights, velocity = {"w": start}, still({"w": start})
    for _ in range(20):
        gradient = random.normal(size=(7, 3)).astype(np.float32)
        parameter.grad = torch.from_numpy(gradient)
        theirs.step()
        weights, velocity = step(weights, velocity, {"w": gradient}, weights, config)
    assert np.abs(weights["w"] - parameter.detach().numpy()).max() < 1e-6


def test_the_proximal_term_by_hand():
    pulled = add_proximal(tensors(w=[1.0, 1.0]), tensors(w=[3.0, 0.0]), tensors(w=[1.0, 1.0]), 0.5)
    assert pulled["w"] == pytest.approx([2.0, 0.5])  # g + 0.5 * (w - w_global)


def test_a_correction_comes_after_pull_and_clipping():
    """g = (3, 4) + .5 * (2, 0) = (4, 4) of length 4 sqrt(2), clipped to sqrt(2): (1, 1)."""
    config = TrainConfig(learning_rate=1.0, momentum=0.0, proximal_mu=0.5, clip_norm=2**0.5)
    weights, origin = tensors(w=[2.0, 0.0]), tensors(w=[0.0, 0.0])
    by = tensors(w=[10.0, -10.0])
    now, _ = step(weights, still(weights), tensors(w=[3.0, 4.0]), origin, config, by)
    assert now["w"] == pytest.approx([2 - 11, 9])


def test_clipping_uses_the_norm_over_all_tensors():
    clipped = clip_by_global_norm(tensors(a=[3.0], b=[[4.0]]), 1.0)  # |(3, 4)| = 5
    assert clipped["a"] == pytest.approx([0.6])
    assert clipped["b"].tolist() == [[pytest.approx(0.8)]]


@pytest.mark.parametrize("limit", [0.0, 5.0, 6.0])
def test_clipping_leaves_short_gradients_alone_and_zero_switches_it_off(limit):
    gradients = tensors(a=[3.0], b=[4.0])
    assert clip_by_global_norm(gradients, limit) is gradients


def test_a_whole_step_pulls_before_it_clips():
    config = TrainConfig(learning_rate=0.5, momentum=0.0, proximal_mu=1.0, clip_norm=1.0)
    weights, origin = tensors(w=[3.0, 0.0]), tensors(w=[0.0, 0.0])
    after, _ = step(weights, still(weights), tensors(w=[0.0, 4.0]), origin, config)
    assert after["w"] == pytest.approx([2.7, -0.4])  # pulled (3, 4), clipped (0.6, 0.8)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8), st.floats(1e-3, 1e3))
def test_a_clipped_gradient_keeps_its_direction_and_is_never_too_long(values, limit):
    gradients = tensors(w=values)
    clipped = clip_by_global_norm(gradients, limit)
    assert l2_norm(clipped) <= limit * (1 + 1e-5)
    assert np.dot(clipped["w"], gradients["w"]) >= 0
    assert clipped["w"].dtype == np.float32


def test_nothing_is_changed_in_place():
    weights, gradients = tensors(w=[1.0]), tensors(w=[2.0])
    config = TrainConfig(proximal_mu=0.1, clip_norm=0.1)
    step(weights, still(weights), gradients, tensors(w=[0.5]), config)
    assert weights["w"] == pytest.approx([1.0])
    assert gradients["w"] == pytest.approx([2.0])


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_is_that_of_keras(momentum):
    keras = pytest.importorskip("keras")
    random = np.random.default_rng(0)
    start = random.normal(size=(7, 3)).astype(np.float32)
    variable = keras.Variable(start)
    theirs = keras.optimizers.SGD(0.05, momentum=momentum)
    weights, velocity = {"w": start}, still({"w": start})
    for _ in range(20):
        gradient = random.normal(size=(7, 3)).astype(np.float32)
        theirs.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        weights, velocity = momentum_step(weights, velocity, {"w": gradient}, 0.05, momentum)
    assert np.abs(weights["w"] - np.asarray(variable)).max() < 1e-6


def test_numbers_beyond_float32_do_not_widen_the_tensors():
    config = TrainConfig(learning_rate=1e39, proximal_mu=1e39, clip_norm=1e39)
    weights = tensors(w=[1.0, 2.0])
    with np.errstate(over="ignore", invalid="ignore"):
        after, _ = step(weights, still(weights), tensors(w=[1.0, 1.0]), weights, config)
    assert after["w"].dtype == np.float32
    assert not np.isfinite(after["w"]).any()
