"""A workload of an installed package goes the whole way, and no file of ours knows it.

docs/extending/workload brings two inputs, two targets, no classes, its own examples.
"""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_server.state.checkpoints import Checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "docs" / "extending" / "workload"
ROBOTS = {"lite": ("litert", 1), "heavy": ("keras", 2)}  # name -> trainer, seed of its examples
FORCES = r"-?\d+\.\d\d N, -?\d+\.\d\d N at -?\d+\.\d\d rad"


def install(folder):
    """Build the package and install it where PYTHONPATH finds it; needs no package index."""
    sources = shutil.copytree(
        HERE.parents[1] / "docs" / "extending" / "workload", folder / "sources"
    )
    # setuptools is here because TensorFlow needs it.
    options = "--no-deps", "--no-build-isolation", "--no-index", "--quiet"
    command = [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site"]
    subprocess.run([str(part) for part in [*command, sources]], check=True)
    return folder / "site"


@pytest.fixture(scope="module")
def installed(fleet, tmp_path_factory):
    fleet.everywhere = {"PYTHONPATH": str(install(tmp_path_factory.mktemp("package")))}
    return fleet


def add_robot(fleet, name, trainer, seed):
    config = fleet.add_robot(name, run=False)
    text = config.read_text()
    for key, value in (
        ("source", '"grips"'),
        ("options", f"{{ seed = {seed}, count = 60 }}"),
        ("trainer", f'"{trainer}"'),
    ):
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1, f"{key}: {config.read_text()}"
    config.write_text(text)
    fleet.start(name, "-m", "edge_agent.cli", "run", "--config", config)


@pytest.fixture(scope="module")
def trained(installed):
    fleet = installed
    fleet.type(
        "cloud-server", "init", fleet.server, "--workload", "gripper", "--set", "width=12",
        "--set", "rate=0.1", "--trainable", "grip", "--port", fleet.port,
    )  # fmt: skip
    fleet.start_server()
    for name, (trainer, seed) in ROBOTS.items():
        add_robot(fleet, name, trainer, seed)
    fleet.wait("version 0", lambda: all(fleet.status(n).get("active_version") == 0 for n in ROBOTS))
    run = fleet.train(rounds=3)
    fleet.wait("version 3", lambda: all(fleet.status(n)["active_version"] == 3 for n in ROBOTS))
    return run


def test_no_file_of_ours_knows_the_package():
    folders = (HERE.parents[1] / name for name in ("cloud_server", "edge_agent", "fleet_model"))
    files = [file for folder in folders for file in folder.rglob("*.py")]
    assert len(files) > 200
    assert not [file.name for file in files if "gripper" in file.read_text().lower()]


def test_a_setting_that_the_package_does_not_have_is_refused_by_name(installed, tmp_path):
    done = installed.type(
        "cloud-server", "init", tmp_path / "s", "--workload", "gripper", "--set", "depth=3",
        exit_code=2,
    )  # fmt: skip
    assert "workload 'gripper' has no setting 'depth'; it knows width, rate" in done.stderr
    done = installed.type(
        "cloud-server", "init", tmp_path / "s", "--workload", "gripper", "--set", "width=wide",
        exit_code=2,
    )  # fmt: skip
    assert "width is 'wide', expected 1 to 64" in done.stderr


def test_robots_with_litert_and_with_keras_learn_it_together(installed, trained):
    assert trained["state"] == "finished"
    outcomes = [r["outcome"] for record in trained["closed"] for r in record["robots"]]
    assert outcomes == ["accepted"] * 6
    first, last = trained["closed"][0]["metrics"], trained["closed"][-1]["metrics"]
    assert last["error_after"] < first["error_before"] / 2
    assert {"slips_seen_before", "slips_seen_after"} <= last.keys()
    assert installed.status("lite")["framework_loaded"] is False
    assert installed.status("heavy")["framework_loaded"] is True
    checkpoints = Checkpoints(installed.server / "checkpoints")
    before, after = checkpoints.load(0), checkpoints.load(3)
    assert {name.partition("/")[0] for name in after.weights} == {"blend", "force", "slipping"}
    assert all((after.weights[name] != before.weights[name]).any() for name in after.weights)


def test_a_grip_that_slips_counts_twice(trained):
    counts = {r["name"]: r["num_examples"] for r in trained["closed"][0]["robots"]}
    assert all(45 < count <= 90 for count in counts.values())  # 45 of 60 are trained on


def test_operators_see_the_measures_of_the_package(installed, trained):
    assert "error 0." in installed.type("cloud-server", "history", installed.server).stdout
    config = installed.root / "robots" / "lite" / "agent.toml"
    status = installed.type("edge-agent", "status", "--config", config).stdout
    assert re.search(r"error +0\.\d+ before its own training, 0\.\d+ after", status)


def test_predict_says_what_slips_and_measures_all(installed, trained):
    config = installed.root / "robots" / "lite" / "agent.toml"
    done = installed.type("edge-agent", "predict", "--config", config)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 60
    said = [row["text"] for row in rows]
    assert 10 < sum(map(bool, said)) < 50  # nothing is said of a grip that holds
    assert all(re.fullmatch(FORCES, text) for text in said if text)
    assert {row["file"] for row in rows} == {f"grip/1/{number}" for number in range(60)}

    done = installed.type("edge-agent", "predict", "--config", config, "--json")
    summary = json.loads(done.stdout)["summary"]
    assert (summary["frames"], summary["labelled"], summary["model_version"]) == (60, 60, 3)
    assert summary["measures"].keys() == {"error", "slips_seen"}
    assert summary["measures"]["error"] < trained["closed"][0]["metrics"]["error_before"]


def test_robots_measure_a_checkpoint_for_the_server(installed, trained):
    done = installed.type("cloud-server", "evaluate", installed.server, "--json")
    record = json.loads(done.stdout)["measured"]
    measured = {robot["name"]: robot["metrics"] for robot in record["robots"]}
    assert {robot["verdict"] for robot in record["robots"]} == {"accepted"}
    assert measured.keys() == ROBOTS.keys()
    assert record["metrics"]["error"] == pytest.approx(
        sum(metrics["error"] for metrics in measured.values()) / 2, abs=0.01
    )
    assert record["metrics"]["error"] < trained["closed"][0]["metrics"]["error_before"]
    assert record["version"] == 3
