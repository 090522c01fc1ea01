import numpy as np
import pytest

from fleet_model.adapters.lora import (
    choose,
    factor_gradients,
    first_factor,
    first_factors,
    masked,
    merged,
    row_masks,
)
from fleet_model.adapters.spec import LoraSpec, residual_shapes, sent_back

pytestmark = pytest.mark.base


def f32(*rows):
    return np.array(rows, np.float32)


SPEC = LoraSpec(rank=1, alpha=2, targets={"w": (2, 2)})
BASE = {"w": f32([1, 0], [0, 1])}
WEIGHTS = {"w.lora_a": f32([1], [3]), "w.lora_b": f32([5, 7]), "bias": f32(9, 9)}


def test_w_is_w0_and_alpha_over_rank_times_a_b():
    """A B = [[5, 7], [15, 21]], twice; and the identity."""
    assert merged(SPEC, WEIGHTS, BASE)["w"].tolist() == [[11, 14], [30, 43]]


def test_what_has_no_adapter_passes_and_the_order_is_the_models_own():
    spec = LoraSpec(rank=1, alpha=1, targets={"b": (1, 1), "a": (1, 1)})
    one = {name: f32([1]) for name in ("b.lora_a", "b.lora_b", "x", "a.lora_a", "a.lora_b", "y")}
    whole = merged(spec, one, {"a": f32([0]), "b": f32([0])})
    assert list(whole) == ["b", "x", "a", "y"]
    assert whole["x"] is one["x"]


def test_a_residual_counts_as_the_product_does_and_is_no_tensor_of_the_model():
    weights = {**WEIGHTS, "w.lora_residual": f32([1, 0], [0, -1])}
    whole = merged(SPEC, weights, BASE)
    assert whole["w"].tolist() == [[13, 14], [30, 41]]
    assert list(whole) == ["w", "bias"]
    assert list(sent_back(weights)) == list(WEIGHTS)
    assert residual_shapes(WEIGHTS) == SPEC.residuals == {"w.lora_residual": (2, 2)}


def test_w_is_computed_in_float64_and_rounded_once():
    """In float32 1e8 + 1 - 1e8 would be 0."""
    spec = LoraSpec(rank=3, alpha=3, targets={"w": (1, 1)})
    weights = {"w.lora_a": f32([1e4, 1, -1e4]), "w.lora_b": f32([1e4], [1], [1e4])}
    assert merged(spec, weights, {"w": f32([0])})["w"].tolist() == [[1]]


def test_gradients_of_the_factors_by_hand():
    """G = [[1, 0], [0, 2]], s = 2: s G B^T = [[10], [28]], s A^T G = [[2, 12]]."""
    slopes = factor_gradients(SPEC, WEIGHTS, {"w": f32([1, 0], [0, 2]), "bias": f32(4, 4)})
    assert slopes["w.lora_a"].tolist() == [[10], [28]]
    assert slopes["w.lora_b"].tolist() == [[2, 12]]
    assert slopes["bias"].tolist() == [4, 4]
    assert {slope.dtype for slope in slopes.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("shape", [(5, 4), (1, 1, 5, 4), (3, 3, 2, 4)])
def test_gradients_are_those_of_finite_differences(shape):
    """Of the loss sum(sin(W) * C), whose gradient of W is cos(W) * C."""
    random = np.random.default_rng(3)
    spec = LoraSpec(rank=2, alpha=3, targets={"w": shape})
    base = {"w": random.normal(size=shape)}
    c = random.normal(size=shape)
    weights = {n: random.normal(size=s) for n, s in spec.factors.items()}

    def loss(values):
        change = values["w.lora_a"] @ values["w.lora_b"] * spec.scale
        return float((np.sin(base["w"] + change.reshape(shape)) * c).sum())

    whole = base["w"] + (weights["w.lora_a"] @ weights["w.lora_b"] * spec.scale).reshape(shape)
    found = factor_gradients(spec, weights, {"w": np.cos(whole) * c})
    for name, tensor in weights.items():
        for at in np.ndindex(*tensor.shape):
            moved = {n: w.copy() for n, w in weights.items()}
            moved[name][at] += 1e-6
            up = loss(moved)
            moved[name][at] -= 2e-6
            assert found[name][at] == pytest.approx((up - loss(moved)) / 2e-6, abs=1e-6)


def test_the_first_factors_change_nothing_and_are_the_same_everywhere():
    spec = LoraSpec(rank=8, alpha=16, targets={"w": (400, 3), "v": (400, 3)})
    first = first_factors(spec)
    assert {name: t.shape for name, t in first.items()} == spec.factors
    assert not first["w.lora_b"].any()
    a = first["w.lora_a"]
    assert np.sqrt(np.square(a).mean()) == pytest.approx(1 / 8)
    assert abs(a.mean()) < 0.01
    assert a.dtype == np.float32
    assert np.array_equal(a, first_factors(spec)["w.lora_a"])
    assert not np.array_equal(a, first["v.lora_a"])
    assert not np.array_equal(a, first_factor("w.lora_a", (400, 8), 1 / 8, seed=1))


@pytest.mark.parametrize(("rank", "alpha"), [(1, 16), (2, 4), (64, 16)])
def test_a_first_step_of_b_moves_w_half_as_far_as_a_step_of_w_whatever_rank_and_alpha(rank, alpha):
    """The step of B is s A^T G, so W moves by s^2 A A^T G: on average, G's part of it is half."""
    spec = LoraSpec(rank=rank, alpha=alpha, targets={"w": (2000, 1000)})
    a = first_factors(spec)["w.lora_a"].astype(np.float64)
    slope = np.random.default_rng(0).normal(size=(2000, 1000))
    moved = spec.scale**2 * a @ (a.T @ slope)
    assert (moved * slope).sum() / (slope * slope).sum() == pytest.approx(0.5, rel=0.2)


def test_kernels_get_adapters_and_the_others_are_named():
    shapes = {
        "conv/kernel": (1, 1, 8, 4),
        "wide/kernel": (3, 3, 8, 4),
        "deep/kernel": (3, 3, 8, 1),
        "head/kernel": (8, 2),
        "head/bias": (2,),
        "attention/kernel": (8, 2, 4),
    }
    chosen = choose(shapes, ["*"], grouped={"deep/kernel"})
    assert list(chosen.targets) == ["conv/kernel", "wide/kernel", "head/kernel"]
    assert chosen.whole == {
        "deep/kernel": "a depthwise or grouped kernel",
        "attention/kernel": "its shape (8, 2, 4) is of no dense layer and no 2-D convolution",
    }
    some = choose(shapes, ["head/*", "wide*"], grouped={"deep/kernel"})
    assert list(some.targets) == ["wide/kernel", "head/kernel"]
    assert some.whole["conv/kernel"] == "no pattern of head/*, wide* matches it"


@pytest.mark.parametrize(
    ("patterns", "targets"),
    [
        (["*"], ["conv/kernel"]),
        (["*", "head/*"], ["conv/kernel", "head/kernel"]),
        (["head/*"], ["head/kernel"]),
        (["conv/*"], ["conv/kernel"]),
    ],
)
def test_the_layer_of_the_answer_has_an_adapter_only_where_it_is_named(patterns, targets):
    shapes = {"conv/kernel": (1, 1, 8, 4), "head/kernel": (8, 2), "head/bias": (2,)}
    assert list(choose(shapes, patterns, answer="head/bias").targets) == targets


def test_the_layer_of_the_answer_is_told_as_trained_whole_and_alone_it_is_adapted():
    shapes = {"conv/kernel": (1, 1, 8, 4), "head/kernel": (8, 2), "head/bias": (2,)}
    chosen = choose(shapes, ["*"], answer="head/bias")
    assert chosen.whole == {"head/kernel": "the layer of the answer, which learns better so"}
    del shapes["conv/kernel"]
    assert list(choose(shapes, ["*"], answer="head/bias").targets) == ["head/kernel"]


def test_a_layer_in_that_of_the_answer_is_trained_whole_too():
    shapes = {
        "q/kernel": (8, 8),
        "head/dense/kernel": (8, 8),
        "head/kernel": (8, 2),
        "head2/k": (8, 8),
    }
    assert list(choose(shapes, ["*"], answer="head/bias").targets) == ["q/kernel", "head2/k"]


def test_dropout_leaves_out_inputs_and_keeps_the_mean():
    spec = LoraSpec(rank=2, alpha=2, dropout=0.25, targets={"w": (10_000, 3)})
    mask = row_masks(spec, seed=-5, step=2)["w.lora_a"]
    assert mask.shape == (10_000, 1)
    assert np.unique(mask).tolist() == pytest.approx([0, 4 / 3])
    assert mask.mean() == pytest.approx(1, abs=0.02)
    assert np.array_equal(mask, row_masks(spec, seed=-5, step=2)["w.lora_a"])
    assert not np.array_equal(mask, row_masks(spec, seed=-5, step=3)["w.lora_a"])
    assert not np.array_equal(mask, row_masks(spec, seed=4, step=2)["w.lora_a"])


def test_without_dropout_nothing_is_masked():
    assert row_masks(SPEC, 0, 0) == {}
    assert masked(WEIGHTS, {})["w.lora_a"] is WEIGHTS["w.lora_a"]
