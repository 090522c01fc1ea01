import numpy as np
import pytest

from cloud_server.models.adapters import AdapterPlan, adapt, merged_file, merged_weights, plan_of
from fleet_model.bundle import TensorSpec, TrainerSpec, WorkloadSpec, parse_trainer, to_json
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.weights import read_weights, write_weights

pytestmark = pytest.mark.base
WEIGHTS = {
    "block/kernel": np.ones((3, 3, 4, 6), np.float32),
    "deep/kernel": np.ones((3, 3, 6, 1), np.float32),
    "head/kernel": np.ones((6, 2), np.float32),
    "head/bias": np.ones(2, np.float32),
}
PLAN = AdapterPlan(rank=2, alpha=3)


def spec_of(adapted):
    return TrainerSpec(
        workload=WorkloadSpec(name="w", config={}),
        trainable="head",
        tensors={name: TensorSpec(shape=w.shape) for name, w in adapted.weights.items()},
        batch_size=1,
        files={},
        parts={},
        adapter=adapted.spec,
        critical=("adapter",),
    )


def test_factors_take_the_place_of_their_tensor_and_the_operator_is_told():
    adapted = adapt(PLAN, WEIGHTS, {"deep/kernel"})
    assert list(adapted.weights) == [
        "block/kernel.lora_a", "block/kernel.lora_b", "deep/kernel",
        "head/kernel.lora_a", "head/kernel.lora_b", "head/bias",
    ]  # fmt: skip
    assert adapted.base.keys() == {"block/kernel", "head/kernel"}
    assert adapted.weights["block/kernel.lora_a"].shape == (36, 2)
    assert adapted.weights["block/kernel.lora_b"].shape == (2, 6)
    assert adapted.notes == (
        "adapters of rank 2 on block/kernel, head/kernel: 624 bytes travel in place of 1136",
        "deep/kernel has no adapter and is trained whole: a depthwise or grouped kernel",
        "head/kernel: its adapter has 16 numbers, itself only 12; a lower --rank, or no adapter, "
        "sends less",
    )


def test_layers_that_differ_in_a_number_alone_are_counted_for_the_operator():
    layers = {f"layers/{n}/{name}/kernel": np.zeros((64, 64), np.float32)
              for n in range(12) for name in ("q", "v")}  # fmt: skip
    adapted = adapt(PLAN, layers | {"head/kernel": np.zeros((64, 64), np.float32)}, ())
    assert adapted.notes[0].startswith(
        "adapters of rank 2 on layers/*/q/kernel (12), layers/*/v/kernel (12), head/kernel: "
    )


def test_the_layer_of_the_answer_is_trained_whole_and_where_it_is_not_the_operator_is_told():
    usual = adapt(PLAN, WEIGHTS, {"deep/kernel"}, "head/bias")
    assert usual.spec.targets.keys() == usual.base.keys() == {"block/kernel"}
    assert usual.weights["head/kernel"] is WEIGHTS["head/kernel"]
    told = "head/kernel has no adapter and is trained whole: the layer of the answer"
    assert [note for note in usual.notes if note.startswith(told)]
    worse = "head/kernel is the layer of the answer: it learns worse with an adapter than without"
    assert worse not in usual.notes
    asked = adapt(PLAN.model_copy(update={"patterns": ("head/*",)}), WEIGHTS, (), "head/bias")
    alone = {name: w for name, w in WEIGHTS.items() if name.startswith("head/")}
    for adapted in (asked, adapt(PLAN, alone, (), "head/bias")):
        assert adapted.spec.targets.keys() == {"head/kernel"}
        assert worse in adapted.notes


def test_a_trainer_of_adapters_survives_its_file_and_makes_the_same_plan_again():
    spec = spec_of(adapt(PLAN, WEIGHTS, {"deep/kernel"}))
    again = parse_trainer(to_json(spec))
    assert again.adapter == spec.adapter
    assert list(again.variables) == list(WEIGHTS)
    assert {name: t.shape for name, t in again.variables.items()} == {
        name: tensor.shape for name, tensor in WEIGHTS.items()
    }
    assert plan_of(again) == PLAN
    assert plan_of(again.without_adapter()) is None


def test_patterns_that_match_nothing_say_what_there_is():
    plan = AdapterPlan(patterns=("haed/*",))
    with pytest.raises(
        SettingsError, match=r"head/kernel: no pattern of haed/\* matches it.*trained are: block/"
    ):
        adapt(plan, WEIGHTS, ())


def test_before_the_first_round_the_merged_tensors_are_those_of_the_model(tmp_path):
    adapted = adapt(PLAN, WEIGHTS, ())
    spec, file = spec_of(adapted), tmp_path / "weights.safetensors"
    write_weights(tmp_path / "base.safetensors", adapted.base)
    write_weights(file, adapted.weights)
    with merged_file(spec, tmp_path, file) as merged:
        found = read_weights(merged)
        assert found.keys() == WEIGHTS.keys()
        assert all(np.array_equal(found[name], w) for name, w in WEIGHTS.items())
    assert not merged.exists()
    with merged_file(spec.without_adapter(), tmp_path, file) as same:
        assert same == file


def test_a_checkpoint_of_other_adapters_is_refused(tmp_path):
    adapted = adapt(PLAN, WEIGHTS, ())
    other = adapt(AdapterPlan(rank=3), WEIGHTS, ())
    write_weights(tmp_path / "base.safetensors", adapted.base)
    write_weights(tmp_path / "weights.safetensors", other.weights)
    with pytest.raises(CheckpointError, match=r"lora_a has shape \(36, 3\), expected \(36, 2\)"):
        merged_weights(spec_of(adapted), tmp_path, tmp_path / "weights.safetensors")
