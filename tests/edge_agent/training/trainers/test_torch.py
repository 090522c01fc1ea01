"""PyTorch on a client: the update is that of a plain loop of transformers, bit for bit the same."""

import logging
import sys

import numpy as np
import pytest
from tiny_encoders import texts, write_encoder

from edge_agent.training.feature_cache import LIMIT
from edge_agent.training.trainers import hardware
from fleet_model.bundle import WorkloadSpec, parse_trainer
from fleet_model.errors import SettingsError, TrainingError
from fleet_model.types import Checkpoint, Example, TrainConfig
from fleet_model.weights import read_weights

pytestmark = pytest.mark.torch
LABELS, LENGTH = ["bad", "good"], 16
CONFIG = TrainConfig(epochs=2, batch_size=8, learning_rate=0.1, clip_norm=0.5, seed=3)
EXAMPLES = [
    Example(raw=text, key=f"{number:03}", label=label, held_out=number >= 24)
    for number, (text, label) in enumerate(texts(30))
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "distilbert")


@pytest.fixture(scope="module")
def model(encoder, tmp_path_factory):
    """Return what makes a model directory, once for each scope and adapter."""
    from cloud_server.models.adapters import AdapterPlan
    from cloud_server.models.export import InitJob
    from cloud_server.models.export.model_directory import write_model_directory

    made = {}

    def of(scope, *, rank=0):
        if (scope, rank) not in made:
            folder = tmp_path_factory.mktemp("model") / scope
            job = InitJob(
                workload=WorkloadSpec(
                    name="text-classifier", config={"labels": LABELS, "max_length": LENGTH}
                ),
                trainable=scope,
                batch_size=8,
                directory=folder,
                checkpoint=encoder,
                adapter=AdapterPlan(rank=rank, alpha=2.0 * rank) if rank else None,
            )
            write_model_directory(job, lambda line: None)
            made[scope, rank] = folder
        return made[scope, rank]

    return of


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("alone")]


def trainer_of(folder):
    from edge_agent.training.trainers.torch import TorchTrainer

    return TorchTrainer(parse_trainer((folder / "trainer.json").read_bytes()), folder)


def start_of(folder):
    return Checkpoint(version=0, weights=read_weights(folder / "weights.safetensors"))


def fitted(folder, config=CONFIG, examples=EXAMPLES):
    """Return the trained tensors, and the update."""
    update = trainer_of(folder).fit(start_of(folder), examples, config)
    start = start_of(folder).weights
    return {name: start[name] + change for name, change in update.weights.items()}, update


def plain_loop(model, tokens, parameters):
    """Do as a page of transformers says: batches, loss, clipping, SGD. Returns nothing."""
    import torch

    optimizer = torch.optim.SGD(parameters, lr=CONFIG.learning_rate, momentum=CONFIG.momentum)
    training = [e for e in EXAMPLES if not e.held_out]
    random = np.random.default_rng(CONFIG.seed)
    model.eval()  # no dropout
    for _ in range(CONFIG.epochs):
        order = random.permutation(len(training))
        for start in range(0, len(order), CONFIG.batch_size):
            rows = [training[i] for i in order[start : start + CONFIG.batch_size]]
            batch = tokens([row.raw for row in rows])
            labels = torch.tensor([LABELS.index(row.label) for row in rows])
            model(**batch, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CONFIG.clip_norm)
            optimizer.step()
            optimizer.zero_grad()


def tokens_of(folder):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", unk_token="[UNK]"
    )

    def tokens(texts):
        found = tokenizer(
            texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        return {name: found[name] for name in ("input_ids", "attention_mask")}

    return tokens


def plain_model(folder):
    """Return transformers' own model with the numbers that the fleet starts from."""
    from fleet_model.workloads.text_classifier import TextClassifier
    from fleet_model.workloads.text_classifier.torch_model import TextClassifierModel

    workload = TextClassifier(LABELS, LENGTH)
    workload.read_files(folder)
    definition = TextClassifierModel(workload)
    return definition.load(folder), definition


@pytest.mark.parametrize("scope", ["head", "last-1", "all"])
def test_an_update_is_that_of_a_plain_loop_of_transformers(model, encoder, scope):
    from fleet_model.torch.tensors import slots

    ours, update = fitted(model(scope))
    plain, definition = plain_model(encoder)
    found = slots(plain, definition.path)
    trained = definition.trainable(plain, scope)
    parameters = [found[name].tensor for name in trained]
    for name, slot in found.items():
        slot.tensor.requires_grad_(name in trained)
    plain_loop(plain, tokens_of(encoder), parameters)
    assert update.num_steps == 6
    assert ours.keys() == set(trained)
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, found[name].value(), rtol=0, atol=1e-5, err_msg=name)
    moved = max(np.abs(change).max() for change in update.weights.values())
    assert moved > 0.01, "nothing was learned: the comparison says nothing"


def test_adapters_are_those_of_a_plain_loop_of_peft(model, encoder):
    import peft
    import torch

    folder = model("attention", rank=2)
    ours, update = fitted(folder)
    plain, definition = plain_model(encoder)
    config = peft.LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_lin", "v_lin"], task_type="SEQ_CLS",
        modules_to_save=["classifier", "pre_classifier"],
    )  # fmt: skip
    adapted = peft.get_peft_model(plain, config)
    start = start_of(folder).weights
    found = {}
    for name, parameter in adapted.named_parameters():
        if not parameter.requires_grad:
            continue
        own = name.removeprefix("base_model.model.").replace(".default", "")
        own = own.replace(".modules_to_save", "")
        for theirs, suffix in ((".lora_A.weight", ".lora_a"), (".lora_B.weight", ".lora_b")):
            if own.endswith(theirs):
                own = own.removesuffix(theirs).replace(".", "/") + "/kernel" + suffix
                with torch.no_grad():
                    parameter.copy_(torch.from_numpy(start[own].T.copy()))
                break
        else:
            turned = own.endswith("weight") and parameter.dim() == 2
            own = definition.path(own.removesuffix("weight") + "kernel" if turned else own)
        found[own] = parameter
    assert found.keys() == ours.keys()
    plain_loop(adapted, tokens_of(encoder), list(found.values()))
    for name, tensor in ours.items():
        theirs = found[name].detach().numpy()
        theirs = theirs.T if theirs.ndim == 2 else theirs
        np.testing.assert_allclose(tensor, theirs, rtol=0, atol=1e-5, err_msg=name)
    assert np.abs(update.weights[next(n for n in ours if n.endswith("lora_b"))]).max() > 1e-4


@pytest.mark.parametrize("scope", ["attention", "last-1"])
def test_adapters_beside_kernels_learn_what_merged_kernels_do(model, monkeypatch, scope):
    folder = model(scope, rank=2)
    spec = parse_trainer((folder / "trainer.json").read_bytes())
    random = np.random.default_rng(5)
    residuals = {
        name: (0.3 * random.standard_normal(shape)).astype(np.float32)
        for name, shape in spec.adapter.residuals.items()
    }
    weights = start_of(folder).weights
    start = Checkpoint(version=0, weights={**weights, **residuals})
    beside = trainer_of(folder)
    assert beside._learner.model.adapts
    one = beside.fit(start, EXAMPLES, CONFIG)
    monkeypatch.setattr("edge_agent.training.trainers.torch.can_adapt", lambda *_: False)
    merged = trainer_of(folder)
    assert hasattr(merged._learner.model, "base")
    other = merged.fit(start, EXAMPLES, CONFIG)
    assert one.weights.keys() == other.weights.keys() == weights.keys()
    for name, change in one.weights.items():
        np.testing.assert_allclose(change, other.weights[name], rtol=0, atol=1e-5, err_msg=name)
    without = beside.fit(start_of(folder), EXAMPLES, CONFIG)
    assert abs(without.metrics["train_loss"] - one.metrics["train_loss"]) > 1e-3, "no residuals"


@pytest.mark.parametrize(("scope", "rank"), [("head", 0), ("attention", 2), ("all", 0)])
def test_two_runs_with_the_same_seed_are_bit_identical(model, scope, rank):
    (one, first), (other, second) = fitted(model(scope, rank=rank)), fitted(model(scope, rank=rank))
    assert all(np.array_equal(tensor, other[name]) for name, tensor in one.items())
    measures = ("train_loss", "accuracy_after", "macro_f1_after")
    assert [first.metrics[m] for m in measures] == [second.metrics[m] for m in measures]
    moved, _ = fitted(model(scope, rank=rank), TrainConfig(**{**_fields(CONFIG), "seed": 4}))
    assert any(not np.array_equal(tensor, moved[name]) for name, tensor in one.items())


def _fields(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_it_learns(model):
    _, update = fitted(model("all"), TrainConfig(**{**_fields(CONFIG), "epochs": 12}))
    assert update.metrics["accuracy_after"] > update.metrics["accuracy_before"] + 0.2
    assert update.metrics["loss_after"] < update.metrics["loss_before"]


def test_a_batch_in_parts_is_the_same_step(model, monkeypatch):
    whole, _ = fitted(model("all"))
    monkeypatch.setenv(hardware.ROWS_AT_ONCE, "3")
    parts, _ = fitted(model("all"))
    for name, tensor in whole.items():
        np.testing.assert_allclose(parts[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scope", ["head", "last-1"])
def test_what_frozen_layers_say_is_computed_once(model, scope):
    trainer, folder = trainer_of(model(scope)), model(scope)
    seen = []
    features = trainer._learner.model.features
    object.__setattr__(trainer._learner, "model", _Watched(trainer._learner.model, features, seen))
    for _ in range(2):
        trainer.fit(start_of(folder), EXAMPLES, CONFIG)
    assert len(seen) == len(EXAMPLES)


def test_between_two_layers_a_text_has_no_padding(model):
    learned = trainer_of(model("last-1"))._learner.model
    long, short = (
        learned.features({n: np.ones(LENGTH, np.int32) for n in ("attention_mask", "input_ids")}),
        learned.features(
            {n: np.eye(1, LENGTH, dtype=np.int32)[0] for n in ("attention_mask", "input_ids")}
        ),
    )
    assert [tensor.shape for tensor in long.values()] == [(LENGTH, 16), (LENGTH,)]
    assert [tensor.shape for tensor in short.values()] == [(1, 16), (1,)]


@pytest.mark.parametrize("rank", [0, 2])
def test_an_update_does_not_depend_on_the_room_for_features(model, monkeypatch, rank):
    folder = model("last-1", rank=rank)
    kept, _ = fitted(folder)
    monkeypatch.setenv(LIMIT, "0.003")  # of 30 texts
    trainer = trainer_of(folder)
    seen = []
    features = trainer._learner.model.features
    object.__setattr__(trainer._learner, "model", _Watched(trainer._learner.model, features, seen))
    update = trainer.fit(start_of(folder), EXAMPLES, CONFIG)
    assert len(seen) > 2 * len(EXAMPLES), "rows without room are computed when a batch has them"
    start = start_of(folder).weights
    for name, change in update.weights.items():
        np.testing.assert_array_equal(start[name] + change, kept[name], err_msg=name)


class _Watched:
    def __init__(self, model, features, seen):
        self._model, self._features, self._seen = model, features, seen

    def __getattr__(self, name):
        return getattr(self._model, name)

    def features(self, inputs):
        self._seen.append(inputs)
        return self._features(inputs)


def test_a_checkpoint_is_measured(model):
    folder = model("head")
    update = trainer_of(folder).evaluate(start_of(folder), EXAMPLES)
    assert update.metrics.keys() >= {"accuracy", "macro_f1", "loss"}
    assert not update.weights


def test_long_texts_are_told_once_a_round(model, caplog):
    long = [*EXAMPLES, Example(raw="good " * 99, key="long", label="good")]
    with caplog.at_level(logging.WARNING):
        fitted(model("all"), examples=long)
    assert [r.getMessage() for r in caplog.records] == [
        "1 of 31 texts are longer than 16 tokens: their ends are left out (max_length of the "
        "workload)"
    ]


def test_texts_that_cannot_be_learned_are_counted_and_not_trained_on(model):
    strange = [
        Example(raw="zebra quagga", key="unknown", label="good"),
        Example(raw="good", key="label", label="lovely"),
        Example(raw="", key="empty", label="good"),
    ]
    one, update = fitted(model("all"), examples=[*EXAMPLES, *strange])
    other, _ = fitted(model("all"))
    assert update.metrics["unreadable"] == 3
    assert all(np.array_equal(tensor, other[name]) for name, tensor in one.items())


def test_too_little_memory_is_told_before_torch_is_imported(model, monkeypatch):
    import psutil

    class Little:
        available = 100_000_000

    folder = model("head")
    monkeypatch.setattr(psutil, "virtual_memory", Little)
    monkeypatch.setitem(sys.modules, "torch", None)  # cannot be imported
    with pytest.raises(TrainingError, match=r"takes about \d+ MB of memory, 100 MB are free; end"):
        trainer_of(folder)


def test_a_gpu_that_is_not_there_is_told(model, monkeypatch):
    monkeypatch.setenv(hardware.DEVICE, "cuda:7")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SettingsError, match=r'training\.device = "cuda:7": torch sees no GPU'):
        trainer_of(model("head"))


def test_a_gpu_beyond_those_that_are_there_is_told(model, monkeypatch):
    monkeypatch.setenv(hardware.DEVICE, "cuda:1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(SettingsError, match=r'training\.device = "cuda:1": torch sees 1 GPU here'):
        trainer_of(model("head"))


def test_files_of_another_encoder_are_refused(model, tmp_path):
    import shutil

    folder = shutil.copytree(model("head"), tmp_path / "model")
    (folder / "config.json").write_bytes(
        (folder / "config.json").read_bytes().replace(b'"n_layers": 2', b'"n_layers": 1')
    )
    with pytest.raises(TrainingError, match=r"frozen\.safetensors: has the unknown tensor"):
        trainer_of(folder)
