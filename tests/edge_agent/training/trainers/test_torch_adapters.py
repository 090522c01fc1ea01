"""Adapters of a language model on a client: the update is that of a plain loop of peft."""

import sys

import numpy as np
import pytest
from tiny_language_models import PAIRS, write_language_model

from edge_agent.training.trainers import hardware
from fleet_model.bundle import WorkloadSpec, parse_trainer
from fleet_model.errors import TrainingError
from fleet_model.types import Checkpoint, Example, Instruction, TrainConfig
from fleet_model.weights import read_weights

CONFIG = TrainConfig(epochs=2, batch_size=4, learning_rate=0.1, clip_norm=0.5, seed=3)
EXAMPLES = [
    Example(
        raw=Instruction(prompt=prompt, answer=answer), key=f"{number:02}", held_out=number >= 12
    )
    for number, (prompt, answer) in enumerate(PAIRS * 2)
]
RANK, ALPHA = 2, 4.0


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("alone")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_language_model(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def model(base, tmp_path_factory):
    """Return what makes a model directory, once for each setting."""
    from cloud_server.models.adapters import AdapterPlan
    from cloud_server.models.export import InitJob
    from cloud_server.models.export.model_directory import write_model_directory

    made = {}

    def of(**config):
        key = tuple(config.items())
        if key not in made:
            folder = tmp_path_factory.mktemp("model") / "model"
            spec = WorkloadSpec(
                name="causal-lm", config={"max_length": 20, "max_new_tokens": 5, **config}
            )
            job = InitJob(
                workload=spec,
                trainable="lora",
                batch_size=4,
                directory=folder,
                checkpoint=base,
                adapter=AdapterPlan(rank=RANK, alpha=ALPHA),
            )
            write_model_directory(job, lambda line: None)
            made[key] = folder
        return made[key]

    return of


def trainer_of(folder):
    from edge_agent.training.trainers.torch import TorchTrainer

    return TorchTrainer(parse_trainer((folder / "trainer.json").read_bytes()), folder)


def start_of(folder, **more):
    return Checkpoint(version=0, weights={**read_weights(folder / "weights.safetensors"), **more})


def fitted(folder, config=CONFIG):
    update = trainer_of(folder).fit(start_of(folder), EXAMPLES, config)
    start = start_of(folder).weights
    return {name: start[name] + change for name, change in update.weights.items()}, update


def test_an_update_is_that_of_a_plain_loop_of_peft(model, base):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = model()
    ours, update = fitted(folder)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "v_proj"])
    plain = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    start, found = start_of(folder).weights, {}
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            own = name.removeprefix("base_model.model.").replace(".default", "")
            layer, _, kind = own.removesuffix(".weight").rpartition(".")
            end = {"lora_A": ".lora_a", "lora_B": ".lora_b"}[kind]
            path = layer.replace(".", "/") + "/kernel" + end
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(start[path].T.copy()))
            found[path] = parameter
    assert found.keys() == ours.keys() == start.keys()
    plain_loop(plain, folder, list(found.values()))
    for name, tensor in ours.items():
        theirs = found[name].detach().numpy().T
        np.testing.assert_allclose(tensor, theirs, rtol=0, atol=1e-5, err_msg=name)
    moved = [n for n in ours if n.endswith("lora_b") and np.abs(ours[n]).max() > 1e-4]
    assert len(moved) == 4
    tokens = sum(workload_of(folder).target(e).weight for e in EXAMPLES if not e.held_out)
    assert update.num_examples == tokens


def workload_of(folder):
    from fleet_model.workload import rebuild

    return rebuild(parse_trainer((folder / "trainer.json").read_bytes()).workload, folder)


def plain_loop(model, folder, parameters):
    """Do as a page of transformers says: labels of -100 but for the answer, clipping, SGD."""
    import torch

    workload = workload_of(folder)
    optimizer = torch.optim.SGD(parameters, lr=CONFIG.learning_rate, momentum=CONFIG.momentum)
    training = [example for example in EXAMPLES if not example.held_out]
    random = np.random.default_rng(CONFIG.seed)
    for _ in range(CONFIG.epochs):
        order = random.permutation(len(training))
        for start in range(0, len(order), CONFIG.batch_size):
            rows = [workload.encode(training[i].raw).inputs for i in order[start : start + 4]]
            batch = {
                name: torch.tensor(np.stack([r[name] for r in rows])).long() for name in rows[0]
            }
            labels = batch["input_ids"].masked_fill(batch["answer_mask"] == 0, -100)
            model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
            ).loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CONFIG.clip_norm)
            optimizer.step()
            optimizer.zero_grad()


def test_two_runs_with_the_same_seed_are_bit_identical(model):
    (one, first), (other, second) = fitted(model()), fitted(model())
    assert all(np.array_equal(tensor, other[name]) for name, tensor in one.items())
    measures = ("train_loss", "loss_after", "perplexity_after")
    assert [first.metrics[m] for m in measures] == [second.metrics[m] for m in measures]


def test_it_learns_and_tells_exact_match_where_that_is_asked_for(model):
    folder = model(exact_match=True)
    config = TrainConfig(epochs=60, batch_size=4, learning_rate=0.01, adaptive=0.999, clip_norm=1.0)
    _, update = fitted(folder, config)
    assert update.metrics["loss_after"] < update.metrics["loss_before"] - 1
    assert update.metrics["exact_match_after"] > update.metrics["exact_match_before"]
    assert "exact_match_after" not in fitted(model())[1].metrics


def test_a_residual_of_a_rule_counts(model):
    folder = model()
    spec = parse_trainer((folder / "trainer.json").read_bytes())
    name, shape = next(iter(spec.adapter.residuals.items()))
    trainer = trainer_of(folder)
    plain = trainer.evaluate(start_of(folder), EXAMPLES).metrics["loss"]
    moved = start_of(folder, **{name: np.full(shape, 0.1, np.float32)})
    assert abs(trainer.evaluate(moved, EXAMPLES).metrics["loss"] - plain) > 1e-3
    assert trainer.evaluate(start_of(folder), EXAMPLES).metrics["loss"] == plain


def test_a_batch_in_parts_is_the_same_step(model, monkeypatch):
    whole, _ = fitted(model())
    monkeypatch.setenv(hardware.ROWS_AT_ONCE, "1")
    parts, _ = fitted(model())
    for name, tensor in whole.items():
        np.testing.assert_allclose(parts[name], tensor, rtol=0, atol=1e-5)


def test_a_base_in_bfloat16_trains_adapters_in_float32(model):
    exact, _ = fitted(model())
    half, update = fitted(model(dtype="bfloat16"))
    assert {tensor.dtype for tensor in half.values()} == {np.dtype(np.float32)}
    assert np.isfinite(update.metrics["loss_after"])
    for name, tensor in exact.items():
        np.testing.assert_allclose(half[name], tensor, atol=0.1)


def test_too_little_memory_is_told_before_torch_is_imported(model, monkeypatch):
    import psutil

    class Little:
        available = 100_000_000

    folder = model()
    monkeypatch.setattr(psutil, "virtual_memory", Little)
    monkeypatch.setitem(sys.modules, "torch", None)  # cannot be imported
    with pytest.raises(TrainingError, match=r"takes about \d+ MB of memory, 100 MB are free; end"):
        trainer_of(folder)


def test_a_damaged_base_is_refused(model, tmp_path):
    import shutil

    folder = shutil.copytree(model(), tmp_path / "model")
    (folder / "base_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"base_model\.safetensors: "):
        trainer_of(folder)
