"""The packages of docs/extending.md are installed and do what the page says.

The workload and its example source go the whole way in end_to_end/test_foreign_workload.py.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "docs" / "extending"
TINY = ROOT / "tests" / "data" / "tiny_bundle"

RULE = """
import json
import numpy as np
from cloud_server.aggregation.aggregator import build_aggregator
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from fleet_model.types import Checkpoint, Update

def one(robot, site, examples, value):
    weights = {"w": np.full(2, value, np.float32)}
    update = Update(
        robot=robot, base_version=0, weights=weights, num_examples=examples, num_steps=1
    )
    return Contribution(robot=robot, site=site, examples=examples), update

rule = build_aggregator("robust_rules:MiddleOfSites", {"least_sites": 3})
start = Checkpoint(version=4, weights={"w": np.ones(2, np.float32)})
pairs = [one("a", "hall", 1, 1.0), one("b", "hall", 3, 5.0), one("c", "yard", 9, 2.0),
         one("d", "roof", 1, 900.0)]
done = rule.fold(start, UpdatesInMemory(pairs))
print(json.dumps({"version": done.version, "w": done.weights["w"].tolist()}))
"""

TRAINER = """
import json, sys
from pathlib import Path
import numpy as np
from fleet_model.bundle import parse_trainer
from fleet_model.errors import TrainingError
from fleet_model.loading import load_plugin
from fleet_model.types import Checkpoint, Example, Frame, TrainConfig
from fleet_model.weights import read_weights

tiny = Path(sys.argv[1])
trainer = load_plugin({}, "patient:PatientTrainer")(
    parse_trainer((tiny / "trainer.json").read_bytes()), tiny
)
start = Checkpoint(version=1, weights=read_weights(tiny / "weights.safetensors"))

def example(number):
    image = np.full((32, 32, 3), 10 * number, np.uint8)
    frame = Frame(source="s", topic="t", stamp_ns=number, data=b"", format="rgb8",
                  decode=lambda: image)
    return Example(raw=frame, key=str(number), label=("circle", "star")[number % 2])

config = TrainConfig(epochs=1, batch_size=4, learning_rate=0.1, momentum=0.0)
update = trainer.fit(start, [example(number) for number in range(20)], config)
try:
    trainer.fit(start, [example(number) for number in range(3)], config)
    refused = ""
except TrainingError as error:
    refused = str(error)
longest = max(float(np.abs(w).max()) for w in update.weights.values())
print(json.dumps({"examples": update.num_examples, "refused": refused, "longest": longest}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder that holds both packages, as pip installs them; no index is asked."""
    site = tmp_path_factory.mktemp("site")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", site)
    for name in ("rule", "trainer"):
        sources = tmp_path_factory.mktemp(name) / "sources"
        subprocess.run(["cp", "-r", str(PACKAGES / name), str(sources)], check=True)
        command = [sys.executable, "-m", "pip", "install", *map(str, options), str(sources)]
        subprocess.run(command, check=True)
    return site


def answer(installed, code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_rule_gives_every_site_one_vote(installed):
    # hall: (1 * 1 + 3 * 5) / 4 = 4; yard: 2; roof: 900. The median is 4, and 1 is where it starts.
    assert answer(installed, RULE) == {"version": 5, "w": [5.0, 5.0]}


@pytest.mark.slow
def test_the_rule_is_simulated_and_a_wrong_option_names_the_known_one(
    installed, tmp_path, server_dir
):
    text = server_dir.settings.read_text()
    rule = '[aggregation]\nrule = "robust_rules:MiddleOfSites"\noptions = {least_sites = 1}\n'
    text = re.sub(r"(?ms)^\[aggregation\].*?(?=^\[|^# [^\n]*\n\[)", rule, text)
    assert "robust_rules" in text
    server_dir.settings.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    words = ["simulate", str(server_dir.root), "--robots", "20", "--rounds", "2", "--json"]
    command = [sys.executable, "-m", "cloud_server.cli", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["rounds"]) == 2

    server_dir.settings.write_text(text.replace("least_sites", "least_site"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "least_sites" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_trainer_waits_for_examples_and_takes_smaller_steps(installed):
    answered = answer(installed, TRAINER, TINY)
    assert answered["examples"] == 20
    assert answered["refused"] == "3 training examples, expected at least 10"
    assert 0 < answered["longest"] < 0.1  # a fifth of the learning rate: short steps
