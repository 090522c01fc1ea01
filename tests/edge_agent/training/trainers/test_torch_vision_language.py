"""Adapters of a model that sees: the update is that of a plain loop of peft, pictures seen once."""

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from tiny_vision_language import SIZE, write_picture, write_records, write_vision_language_model

from edge_agent.examples.texts.text_store import open_texts
from fleet_model.bundle import WorkloadSpec, parse_trainer
from fleet_model.types import Checkpoint, Instruction, TrainConfig
from fleet_model.weights import read_weights, write_weights
from fleet_model.workload import rebuild

CONFIG = TrainConfig(epochs=2, batch_size=4, learning_rate=0.1, clip_norm=0.5, seed=3)
RANK, ALPHA = 2, 4.0


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("alone")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_vision_language_model(tmp_path_factory.mktemp("base") / "llava")


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
            config = {"max_length": 40, "max_new_tokens": 5, "image_size": SIZE, **config}
            job = InitJob(
                workload=WorkloadSpec(name="vision-language", config=config),
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


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Return what lists the examples of a table: six with pictures, three without."""
    table = write_records(tmp_path_factory.mktemp("records"), times=2)
    return lambda: list(open_texts([str(table)], (), answers=True, held_out=0.3).examples())


def trainer_of(folder):
    from edge_agent.training.trainers.torch import TorchTrainer

    return TorchTrainer(parse_trainer((folder / "trainer.json").read_bytes()), folder)


def start_of(folder):
    return Checkpoint(version=0, weights=read_weights(folder / "weights.safetensors"))


def fitted(folder, examples, config=CONFIG):
    update = trainer_of(folder).fit(start_of(folder), examples, config)
    start = start_of(folder).weights
    return {name: start[name] + change for name, change in update.weights.items()}, update


def workload_of(folder):
    return rebuild(parse_trainer((folder / "trainer.json").read_bytes()).workload, folder)


def test_an_update_is_that_of_a_plain_loop_of_peft(model, base, records):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlavaForConditionalGeneration

    folder, examples = model(), records()
    assert 0 < sum(example.held_out for example in examples) < len(examples) == 9
    ours, update = fitted(folder, examples)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=r".*language_model.*\.(q_proj|v_proj)"
    )
    plain = get_peft_model(LlavaForConditionalGeneration.from_pretrained(base), config).eval()
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
    plain_loop(plain, workload_of(folder), examples, list(found.values()))
    for name, tensor in ours.items():
        theirs = found[name].detach().numpy().T
        np.testing.assert_allclose(tensor, theirs, rtol=0, atol=1e-5, err_msg=name)
    moved = [n for n in ours if n.endswith("lora_b") and np.abs(ours[n]).max() > 1e-4]
    assert len(moved) == 4
    tokens = sum(workload_of(folder).target(e).weight for e in examples if not e.held_out)
    assert update.num_examples == tokens


def plain_loop(model, workload, examples, parameters):
    """Do as a page of transformers says: labels of -100 but for the answer, clipping, SGD."""
    import torch

    optimizer = torch.optim.SGD(parameters, lr=CONFIG.learning_rate, momentum=CONFIG.momentum)
    training = sorted((e for e in examples if not e.held_out), key=lambda one: one.key)
    random = np.random.default_rng(CONFIG.seed)
    for _ in range(CONFIG.epochs):
        order = random.permutation(len(training))
        for start in range(0, len(order), CONFIG.batch_size):
            picked = [training[i] for i in order[start : start + CONFIG.batch_size]]
            rows = [workload.encode(example.raw).inputs for example in picked]
            ids, mask, answer = (
                torch.tensor(np.stack([row[name] for row in rows])).long()
                for name in ("input_ids", "attention_mask", "answer_mask")
            )
            shown = [row["pixels"] for row, e in zip(rows, picked, strict=True) if e.raw.image]
            seen = {"pixel_values": torch.tensor(np.stack(shown))} if shown else {}
            labels = ids.masked_fill(answer == 0, -100)
            model(input_ids=ids, attention_mask=mask, labels=labels, **seen).loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CONFIG.clip_norm)
            optimizer.step()
            optimizer.zero_grad()


def test_pictures_are_seen_once_and_later_rounds_are_the_same(
    model, records, tmp_path, monkeypatch
):
    from fleet_model.workloads.vision_language import torch_model, vision_language

    folder = shutil.copytree(model(), tmp_path / "model")
    (folder / "features").mkdir()
    calls = {"read": 0, "tower": 0}
    read, tower = vision_language.read_picture, torch_model._tower

    def counting(name, function):
        def counted(*arguments):
            calls[name] += 1
            return function(*arguments)

        return counted

    monkeypatch.setattr(vision_language, "read_picture", counting("read", read))
    monkeypatch.setattr(torch_model, "_tower", counting("tower", tower))
    first, _ = fitted(folder, records())
    assert calls == {"read": 6, "tower": 6}
    again, _ = fitted(folder, records())  # as a later process would: all is in the file
    assert calls == {"read": 6, "tower": 6}
    for name, tensor in first.items():
        np.testing.assert_array_equal(again[name], tensor)


def test_a_changed_picture_is_seen_again(model, tmp_path):
    table = write_records(tmp_path / "records")
    examples = lambda: list(open_texts([str(table)], (), answers=True, held_out=0).examples())  # noqa: E731
    before = {example.key for example in examples()}
    write_picture(tmp_path / "records" / "images" / "red-0.png", "green", height=50)
    assert len(before - {example.key for example in examples()}) == 1


def test_it_learns_and_leaves_out_what_cannot_be_seen(model, tmp_path):
    table = write_records(tmp_path / "records", times=2)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    (tmp_path / "records" / "images" / "broken.png").write_bytes(b"no picture")
    bad = ("images/broken.png", "images/none.png", "https://example.com/a.png")
    rows += [{"prompt": "what color is it ?", "image": i, "completion": " blue"} for i in bad]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = list(open_texts([str(table)], (), answers=True, held_out=0).examples())
    assert len(examples) == 12
    config = TrainConfig(epochs=60, batch_size=4, learning_rate=0.01, adaptive=0.999, clip_norm=1.0)
    trainer = trainer_of(model())
    update = trainer.fit(start_of(model()), examples, config)
    assert update.num_examples == 6 * 2 + 3 * 3, "tokens of the nine that can be seen"
    assert update.metrics["unreadable"] == 3
    first = trainer.fit(start_of(model()), examples, replace(config, epochs=1))
    assert update.metrics["train_loss"] < first.metrics["train_loss"] - 1


@pytest.fixture(scope="module")
def published(model, tmp_path_factory):
    """Return (bundle, weights) of what a fleet would publish."""
    from cloud_server.models.export import BundleJob
    from cloud_server.models.export.bundle_directory import write_bundle_directory

    root = tmp_path_factory.mktemp("published")
    random = np.random.default_rng(0)
    trained = {
        name: tensor + random.normal(0, 0.1, tensor.shape).astype(np.float32)
        for name, tensor in read_weights(model() / "weights.safetensors").items()
    }
    write_weights(root / "w.safetensors", trained)
    job = BundleJob(
        model=model(),
        weights=root / "w.safetensors",
        version=1,
        created_at="2026-12-01T00:00:00Z",
        directory=root / "bundle",
    )
    write_bundle_directory(job, lambda line: None)
    return root / "bundle", root / "w.safetensors"


def answers_of(model, workload, picture):
    """Return the scores of what follows a question about a picture."""
    import torch

    row = workload.encode(Instruction(prompt="what color is it ?", image=picture)).inputs
    count = row["attention_mask"].sum()
    with torch.no_grad():
        return model(
            input_ids=torch.from_numpy(row["input_ids"][:count])[None].long(),
            pixel_values=torch.from_numpy(row["pixels"])[None],
        ).logits.numpy()


def test_peft_loads_what_is_published_and_merged_answers_agree(published, model, base, tmp_path):
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration

    from cloud_server.models.export import FileJob
    from cloud_server.models.export.model_file import write_model_file
    from fleet_model.engine import TFLiteEngine

    bundle, weights = published
    picture = str(write_picture(tmp_path / "red.png", "red"))
    engine = TFLiteEngine(bundle)
    plain = LlavaForConditionalGeneration.from_pretrained(base).eval()
    before = answers_of(plain, engine.workload, picture)
    theirs = PeftModel.from_pretrained(plain, bundle).eval()
    adapted = answers_of(theirs, engine.workload, picture)
    ours = answers_of(engine._model._model, engine.workload, picture)
    np.testing.assert_allclose(ours, adapted, rtol=1e-4, atol=1e-5)
    assert np.abs(adapted - before).max() > 0.01
    (tmp_path / "aside").mkdir()
    file = tmp_path / "aside" / "merged.zip"
    job = FileJob(model=model(), weights=weights, kind="merged", file=file)
    assert write_model_file(job, lambda line: None).metrics["error"] < 1e-5
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "merged")
    whole = LlavaForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    found = answers_of(whole, engine.workload, picture)
    assert np.abs(found - adapted).max() < 1e-3 * np.abs(adapted).max()


def test_an_engine_answers_about_a_picture(published, tmp_path):
    from fleet_model.engine import TFLiteEngine

    engine = TFLiteEngine(published[0])
    engine.warm_up()
    said = set()
    for color in ("red", "blue"):
        picture = str(write_picture(tmp_path / f"{color}.png", color))
        answer = engine.answer(Instruction(prompt="what is it ?", answer=" red", image=picture))
        assert answer.predictions[0].text is not None
        said.add(float(answer.outputs["nll"]))
    assert len(said) == 2


def test_a_base_in_bfloat16_merges_within_its_precision(model, tmp_path):
    from cloud_server.models.export import FileJob
    from cloud_server.models.export.model_file import write_model_file

    folder = model(dtype="bfloat16")
    random = np.random.default_rng(0)
    trained = {
        name: tensor + random.normal(0, 0.1, tensor.shape).astype(np.float32)
        for name, tensor in read_weights(folder / "weights.safetensors").items()
    }
    write_weights(tmp_path / "w.safetensors", trained)
    (tmp_path / "aside").mkdir()
    job = FileJob(
        model=folder,
        weights=tmp_path / "w.safetensors",
        kind="merged",
        file=tmp_path / "aside" / "merged.zip",
    )
    error = write_model_file(job, lambda line: None).metrics["error"]
    assert 1e-6 < error < 1e-2
