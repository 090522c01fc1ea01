"""The pipeline as people type it: compiled, and really run on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_language_models import PAIRS, write_language_model

from fleet_model.weights import read_weights

pytestmark = pytest.mark.pipelines
ROOT = Path(__file__).parents[3]
SITES = ("books", "games")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a folder with a base, and tables of two sites, each by six authors."""
    root = tmp_path_factory.mktemp("world")
    write_language_model(root / "base")
    (root / "data").mkdir()
    for site in SITES:
        rows = [
            json.dumps({"prompt": p, "completion": a, "author": f"a{n % 6}", "source": site})
            for n, (p, a) in enumerate(PAIRS * 6)
        ]
        (root / "data" / f"{site}.jsonl").write_text("\n".join(rows) + "\n")
    return root


def kubeflow(folder, *words, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "cloud_server.cli", "pipeline", "kubeflow", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def run(world, folder, *words, **environment):
    return kubeflow(
        folder, "run", "fleet", "--data", world / "data", "--model", world / "base",
        "--clients", "1", "--rounds", "1", "--set", "max_length=24", "--set", "max_new_tokens=6",
        "--rank", "2", "--threads", "1", *words, **environment,
    )  # fmt: skip


def test_it_runs_here_and_what_comes_out_is_a_fleet(world, tmp_path):
    done = run(world, tmp_path, "--learning-rate", "0.01", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["version"], told["channel"]) == (1, "stable")
    (one,) = told["rounds"]
    assert one["loss_after"] < one["loss_before"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".kubeflow", "fleet"]
    assert (tmp_path / ".kubeflow").stat().st_mode & 0o77 == 0, "private keys lie in it"
    profiles = json.loads(Path(told["outputs"]["profiles"], "profiles.json").read_text())
    assert list(profiles["sources"]) == list(SITES)
    adapters = tmp_path / "fleet" / "runs" / "rehearsal" / "adapters" / "round-000001" / "fleet"
    assert any(t.any() for n, t in read_weights(next(adapters.glob("*.safe*"))).items())
    listed = subprocess.run(
        [sys.executable, "-m", "cloud_server.cli", "models", "list", "fleet", "--json"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    again = run(world, tmp_path)
    assert again.returncode == 2, "the folder is taken"


def test_it_compiles_into_a_file_alone(tmp_path):
    done = kubeflow(tmp_path, "compile", "fleet.yaml", "--rounds", "7", "--gpus", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image"] == "fleetlearn/pipeline:0.1.0"
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.yaml"]
    told = yaml.safe_load((tmp_path / "fleet.yaml").read_text())
    options = told["root"]["inputDefinitions"]["parameters"]["options"]["defaultValue"]
    assert json.loads(options)["rounds"] == 7


# More of them in test_component.py, without kfp.
BREAKS = {
    "nan": ("return {'clients': float('nan')}", 11, "its clients is nan"),
    "missing": ("into.joinpath('clients.json').unlink(); return {}", 10, "without its output"),
    "silent": ("os._exit(0)", 10, "without an answer (killed"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_component_that_fails_ends_it_with_its_name(world, tmp_path, how):
    broken, code, words = BREAKS[how]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(
        "import os\n"
        "from cloud_server.kubeflow import stages\n"
        "whole = stages.clients\n"
        "def clients(prepared, options, into):\n"
        "    whole(prepared, options, into)\n"
        f"    {broken}\n"
        "stages.clients = clients\n"
    )
    paths = os.pathsep.join([str(tmp_path / "broken"), str(ROOT)])
    done = run(world, tmp_path, PYTHONPATH=paths)
    assert (done.returncode, done.stdout) == (code, "")
    *_, line = done.stderr.splitlines()
    assert line.startswith("cloud-server: component clients")
    assert words in line
    assert not (tmp_path / "fleet").exists()
