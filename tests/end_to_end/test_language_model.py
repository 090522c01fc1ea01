"""Two workstations train adapters of a language model on instructions of their own; one answers."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tiny_language_models import PAIRS, write_language_model

from cloud_server.state.checkpoints import Checkpoints
from fleet_model.bundle import parse_trainer

pytestmark = [pytest.mark.slow, pytest.mark.torch]
DESKS = ("desk-1", "desk-2")
BASE = "base_model.safetensors"


def write_table(path, pairs):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": prompt, "completion": answer} for prompt, answer in pairs]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture(scope="module")
def story(fleet):
    fleet.everywhere = fleet.without_trials
    fleet.environment = {
        "FLEETLEARN_TRAINING__EPOCHS": "4",
        "FLEETLEARN_TRAINING__LEARNING_RATE": "0.01",
        "FLEETLEARN_ROUNDS__DEADLINE_S": "1200",  # a busy machine takes a minute to import torch
    }
    base = write_language_model(fleet.root / "llama")
    fleet.type(
        "cloud-server", "init", fleet.server, "--workload", "causal-lm", "--checkpoint", base,
        "--trainable", "lora", "--rank", "2", "--set", "max_length=24", "--set",
        "max_new_tokens=6", "--port", fleet.port,
    )  # fmt: skip
    fleet.start_server()
    for number, name in enumerate(DESKS):
        table = write_table(fleet.root / "tables" / f"{name}.jsonl", PAIRS[number:] * 3)
        fleet.add_robot(name, "--examples", table, site=name)
    fleet.wait("all desks", lambda: fleet.online() == set(DESKS))
    run = fleet.train(rounds=1)
    fleet.wait("version 1", lambda: all(fleet.status(n)["active_version"] == 1 for n in DESKS))
    return run


def test_a_round_closes_and_is_published(story, fleet):
    assert (story["state"], story["published_version"]) == ("finished", 1)
    (record,) = story["closed"]
    for robot in record["robots"]:
        assert robot["outcome"] == "accepted"
        metrics = robot["metrics"]
        assert metrics["loss_after"] < metrics["loss_before"]
        assert metrics.keys() >= {"perplexity_after", "framework_loaded"}


def test_only_a_and_b_go_up_and_the_base_comes_once(story, fleet):
    spec = parse_trainer((fleet.server / "model" / "trainer.json").read_bytes())
    sent = sum(4 * int(np.prod(tensor.shape)) for tensor in spec.tensors.values())
    assert set(spec.tensors) == set(spec.adapter.factors)
    for name in DESKS:
        ups = [one["bytes_up"] for one in fleet.status(name)["rounds"]]
        assert sent < max(ups) < sent + 10_000
        state = fleet.root / "robots" / name / "state"
        versions = [file.stat().st_ino for file in state.glob(f"models/versions/*/{BASE}")]
        assert len(versions) >= 1
        assert len(set(versions)) == 1, "all versions share one file"
    moved = Checkpoints(fleet.server / "checkpoints").latest().weights
    assert all(np.abs(moved[name]).max() > 0 for name in moved if name.endswith(".lora_b"))


@pytest.mark.parametrize("process", ["server", "desk-1"])
def test_neither_the_server_nor_an_agent_loads_the_framework(story, fleet, process):
    maps = Path(f"/proc/{fleet.processes[process].pid}/maps").read_text()
    assert "python" in maps
    assert "libtorch" not in maps


def test_the_kit_says_what_trains_and_what_is_learned(story, fleet):
    settings = (fleet.root / "robots" / "desk-1" / "agent.toml").read_text()
    assert 'trainer = "torch"' in settings
    assert 'source = "texts"' in settings
    assert "answers = true" in (fleet.server / "kit" / "kit.toml").read_text()


def predicted(fleet, *arguments, code=0):
    command = [sys.executable, "-m", "edge_agent", "predict", *map(str, arguments), "--config"]
    config = fleet.root / "robots" / "desk-1" / "agent.toml"
    done = subprocess.run([*command, config], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_predict_completes_and_tells_perplexity_and_exact_match(story, fleet):
    table = write_table(fleet.root / "tables" / "new.jsonl", PAIRS)
    answer = json.loads(predicted(fleet, table, "--json").stdout)
    assert answer["summary"]["frames"] == answer["summary"]["labelled"] == len(PAIRS)
    assert set(answer["summary"]["measures"]) == {"loss", "perplexity", "exact_match"}
    rows = answer["predictions"]
    assert [row["truth"] for row in rows] == [answer for _, answer in PAIRS]
    assert all(set(row) == {"file", "row", "id", "text", "truth"} for row in rows)
    assert any(row["text"] for row in rows)


def test_predict_answers_prompts_that_have_no_answer(story, fleet):
    table = fleet.root / "tables" / "asked.jsonl"
    table.write_text('{"prompt": "the color of sky is"}\n{"prompt": ""}\n')
    done = predicted(fleet, table, code=13)
    assert done.stdout.splitlines()[0] == "file,row,id,text,truth"
    assert "1 without a text" in done.stderr
    assert "perplexity" not in done.stderr


def test_an_adapter_is_exported_for_peft(story, fleet):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    file = fleet.root / "adapter.zip"
    fleet.type("cloud-server", "models", "export", fleet.server, "--format", "peft", "--out", file)
    folder = fleet.root / "adapter"
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    base = AutoModelForCausalLM.from_pretrained(fleet.root / "llama")
    model = PeftModel.from_pretrained(base, folder)
    moved = [p for n, p in model.named_parameters() if "lora_B" in n]
    assert len(moved) == 4
    assert all(float(tensor.abs().max()) > 0 for tensor in moved)
