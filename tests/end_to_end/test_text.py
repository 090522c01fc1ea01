"""Three workstations in two departments fine-tune an encoder; one without PyTorch predicts.

Real weights and sentences, from packages: MiniLM, film reviews and tweets. `make soak` has all six
layers, by adapters and as a whole, in two rounds.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.minilm import distilbert_folder
from benchmarks.vader import LABELS, read_vader
from cloud_server.state.checkpoints import Checkpoints
from fleet_model.bundle import parse_trainer

pytestmark = [pytest.mark.slow, pytest.mark.torch]
ROOT = Path(__file__).parents[2]
DESKS = {"film-1": "film", "film-2": "film", "tweets-1": "tweets"}  # desk -> department
SENTENCES = 60  # of each desk: a fifth is held out
# As on a machine where PyTorch was never installed: importing it fails.
WITHOUT = ("torch", "transformers", "peft", "onnx", "tensorflow", "keras")
PREDICT = (
    f"import sys; sys.modules.update(dict.fromkeys({WITHOUT!r})); "
    "from edge_agent.cli import main; main()"
)
# The project's first environment has no PyTorch at all, where it was made.
OTHER = ROOT / ".venv" / "bin" / "python"
READER = str(OTHER) if OTHER.exists() else sys.executable
LORA = ("--trainable", "attention", "--adapter", "lora", "--adapter-dropout", "0.05")


class Case(NamedTuple):
    """What trains, and how long."""

    layers: int  # of MiniLM
    options: tuple[str, ...]  # of init
    rounds: int = 1
    rate: str = "0.005"  # of learning: few steps of two layers want more than init writes

    @property
    def adapts(self):
        return "--adapter" in self.options


CASES = [
    pytest.param(Case(2, LORA), id="lora"),
    pytest.param(Case(6, LORA, rounds=2, rate="0.001"), id="lora-6-layers", marks=pytest.mark.soak),
    pytest.param(
        Case(6, ("--trainable", "all"), rounds=2, rate="0.0005"),
        id="full-6-layers",
        marks=pytest.mark.soak,
    ),
]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def fleet(case, new_fleet):
    made = new_fleet()
    yield made
    made.kill()


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
def story(fleet, case, sentences):
    fleet.everywhere = fleet.without_trials
    fleet.environment = {
        "FLEETLEARN_TRAINING__EPOCHS": "1",
        "FLEETLEARN_TRAINING__LEARNING_RATE": case.rate,
        "FLEETLEARN_ROUNDS__DEADLINE_S": "1200",  # a busy machine takes a minute to import torch
    }
    folder = ROOT / "build" / "text" / f"minilm-{case.layers}"
    encoder = distilbert_folder(folder, layers=case.layers)
    fleet.type(
        "cloud-server", "init", fleet.server, "--workload", "text-classifier", "--labels",
        ",".join(LABELS), "--set", "max_length=32", "--checkpoint", encoder, "--port", fleet.port,
        *case.options,
    )  # fmt: skip
    fleet.start_server()
    for number, (name, domain) in enumerate(DESKS.items()):
        rows = sentences[domain][number * SENTENCES :][:SENTENCES]
        table = write_table(fleet.root / "tables" / f"{name}.csv", rows)
        fleet.add_robot(name, "--examples", table, site=domain)
    fleet.wait("all desks", lambda: fleet.online() == set(DESKS))
    run = fleet.train(rounds=case.rounds)
    fleet.wait("it", lambda: all(fleet.status(n)["active_version"] == case.rounds for n in DESKS))
    return run


def test_rounds_of_real_sentences_close_and_are_published(story, fleet, case):
    assert (story["state"], story["published_version"]) == ("finished", case.rounds)
    assert len(story["closed"]) == case.rounds
    for record in story["closed"]:
        outcomes = {robot["name"]: robot["outcome"] for robot in record["robots"]}
        assert outcomes == dict.fromkeys(DESKS, "accepted")
    for robot in (robot for record in story["closed"] for robot in record["robots"]):
        metrics = robot["metrics"]
        assert metrics.keys() >= {"accuracy_after", "macro_f1_after", "loss_after"}
        assert metrics["framework_loaded"] == 1
        assert 0 < metrics["loss_after"] < 2  # three steps teach little; test_torch.py has more


def test_what_trains_travels_and_has_moved(story, fleet, case):
    spec = parse_trainer((fleet.server / "model" / "trainer.json").read_bytes())
    sent = sum(4 * int(np.prod(tensor.shape)) for tensor in spec.tensors.values())
    encoder = ROOT / "build" / "text" / f"minilm-{case.layers}" / "model.safetensors"
    if case.adapts:
        assert sent * 50 < encoder.stat().st_size
    else:
        assert sent > 0.99 * encoder.stat().st_size
    for name in DESKS:
        ups = [one["bytes_up"] for one in fleet.status(name)["rounds"]]
        assert sent < max(ups) < 1.1 * sent + 10_000
    checkpoints = Checkpoints(fleet.server / "checkpoints")
    first, made = checkpoints.load(0).weights, checkpoints.latest().weights
    moved = [name for name in made if not case.adapts or name.endswith(".lora_b")]
    assert moved
    assert all(np.abs(made[name] - first[name]).max() > 0 for name in moved)


@pytest.mark.parametrize("process", ["server", "film-1"])
def test_neither_the_server_nor_an_agent_loads_the_framework(story, fleet, process):
    maps = Path(f"/proc/{fleet.processes[process].pid}/maps").read_text()
    assert "libpython" in maps or "python" in maps
    assert "libtorch" not in maps


def test_the_kit_says_what_trains(story, fleet):
    settings = (fleet.root / "robots" / "film-1" / "agent.toml").read_text()
    assert 'trainer = "torch"' in settings


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_client_without_pytorch_predicts(story, fleet, case, sentences, precision):
    rows = sentences["film"][-30:]
    table = write_table(fleet.root / "tables" / "tickets.csv", rows)
    name = f"reader-{precision}"
    config = fleet.add_robot(name, "--no-train", "--examples", table, run=False)
    config.write_text(
        config.read_text().replace('precision = "fp32"', f'precision = "{precision}"')
    )
    fleet.start(name, "-c", PREDICT, "run", "--config", config, python=[READER])
    fleet.wait("its model", lambda: fleet.status(name).get("active_version") == case.rounds)
    done = subprocess.run(
        [READER, "-c", PREDICT, "predict", table, "--config", config, "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["summary"]["frames"] == answer["summary"]["labelled"] == 30
    assert answer["summary"].keys() >= {"accuracy", "macro_f1", "confusion"}
    assert {row["label"] for row in answer["predictions"]} <= set(LABELS)
