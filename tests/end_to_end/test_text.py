"""Two workstations fine-tune an encoder on sentences of their own; one without PyTorch predicts.

Real weights and sentences, from packages: the first two layers of MiniLM, film reviews and tweets.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.minilm import distilbert_folder
from benchmarks.vader import LABELS, read_vader
from cloud_server.state.checkpoints import Checkpoints
from fleet_model.bundle import parse_trainer

pytestmark = [pytest.mark.slow, pytest.mark.torch]
ROOT = Path(__file__).parents[2]
DESKS = {"film-1": "film", "tweets-1": "tweets"}
SENTENCES = 60  # of each desk: a fifth is held out
# As on a machine where PyTorch was never installed: importing it fails.
WITHOUT = ("torch", "transformers", "peft", "onnx", "tensorflow", "keras")
PREDICT = (
    f"import sys; sys.modules.update(dict.fromkeys({WITHOUT!r})); "
    "from edge_agent.cli import main; main()"
)


@pytest.fixture(scope="module")
def sentences():
    """Return domain -> sentences in an order of their own, long ones left out."""
    rng = np.random.default_rng(0)
    return {
        domain: [rows[i] for i in rng.permutation(len(rows)) if len(rows[i].text) < 120]
        for domain, rows in read_vader().items()
    }


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["text", "label"])
        table.writerows([row.text, row.label] for row in rows)
    return path


@pytest.fixture(scope="module")
def story(fleet, sentences):
    fleet.everywhere = fleet.without_trials
    fleet.environment = {
        "FLEETLEARN_TRAINING__EPOCHS": "1",
        "FLEETLEARN_ROUNDS__DEADLINE_S": "1200",  # a busy machine takes a minute to import torch
    }
    encoder = distilbert_folder(ROOT / "build" / "text" / "minilm-2", layers=2)
    fleet.type(
        "cloud-server", "init", fleet.server, "--workload", "text-classifier", "--labels",
        ",".join(LABELS), "--set", "max_length=32", "--checkpoint", encoder, "--port", fleet.port,
        "--trainable", "attention", "--adapter", "lora", "--adapter-dropout", "0.05",
    )  # fmt: skip
    fleet.start_server()
    for number, (name, domain) in enumerate(DESKS.items()):
        rows = sentences[domain][number * SENTENCES :][:SENTENCES]
        table = write_table(fleet.root / "tables" / f"{name}.csv", rows)
        fleet.add_robot(name, "--examples", table, site=domain)
    fleet.wait("all desks", lambda: fleet.online() == set(DESKS))
    run = fleet.train(rounds=1)
    fleet.wait("version 1", lambda: all(fleet.status(n)["active_version"] == 1 for n in DESKS))
    return run


def test_a_round_of_real_sentences_closes_and_is_published(story, fleet):
    assert (story["state"], story["published_version"]) == ("finished", 1)
    (record,) = story["closed"]
    assert {robot["name"]: robot["outcome"] for robot in record["robots"]} == dict.fromkeys(
        DESKS, "accepted"
    )
    for robot in record["robots"]:
        metrics = robot["metrics"]
        assert metrics.keys() >= {"accuracy_after", "macro_f1_after", "loss_after"}
        assert metrics["framework_loaded"] == 1
        assert 0 < metrics["loss_after"] < 2  # three steps teach little; test_torch.py has more


def test_adapters_travel_and_not_the_encoder(story, fleet):
    spec = parse_trainer((fleet.server / "model" / "trainer.json").read_bytes())
    sent = sum(4 * int(np.prod(tensor.shape)) for tensor in spec.tensors.values())
    whole = (fleet.server / "model" / "frozen.safetensors").stat().st_size
    assert sent * 50 < whole
    for name in DESKS:
        ups = [one["bytes_up"] for one in fleet.status(name)["rounds"]]
        assert sent < max(ups) < 1.1 * sent + 10_000
    moved = Checkpoints(fleet.server / "checkpoints").latest().weights
    assert all(np.abs(moved[name]).max() > 0 for name in moved if name.endswith(".lora_b"))


@pytest.mark.parametrize("process", ["server", "film-1"])
def test_neither_the_server_nor_an_agent_loads_the_framework(story, fleet, process):
    maps = Path(f"/proc/{fleet.processes[process].pid}/maps").read_text()
    assert "libpython" in maps or "python" in maps
    assert "libtorch" not in maps


def test_the_kit_says_what_trains(story, fleet):
    settings = (fleet.root / "robots" / "film-1" / "agent.toml").read_text()
    assert 'trainer = "torch"' in settings


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_client_without_pytorch_predicts(story, fleet, sentences, precision):
    rows = sentences["film"][-30:]
    table = write_table(fleet.root / "tables" / "new.csv", rows)
    directory = fleet.root / "robots" / f"reader-{precision}"
    if not directory.exists():
        fleet.add_robot(f"reader-{precision}", "--no-train", "--examples", table, run=False)
        config = directory / "agent.toml"
        config.write_text(
            config.read_text().replace('precision = "fp32"', f'precision = "{precision}"')
        )
        command = [sys.executable, "-c", PREDICT, "run", "--config", config]
        fleet.start(f"reader-{precision}", *command[1:])
        fleet.wait(
            "its model", lambda: fleet.status(f"reader-{precision}").get("active_version") == 1
        )
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, "predict", "--config", directory / "agent.toml", "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["summary"]["frames"] == answer["summary"]["labelled"] == 30
    assert answer["summary"].keys() >= {"accuracy", "macro_f1", "confusion"}
    assert {row["label"] for row in answer["predictions"]} <= set(LABELS)
