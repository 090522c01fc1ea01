"""`cloud-server simulate --workload`: real rounds of departments on one machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_language_models import PAIRS, write_language_model

from fleet_model.weights import read_weights

pytestmark = pytest.mark.torch
SITES = ("books", "games", "songs", "toys")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a folder with a base, and tables of four sites that answer in two ways."""
    root = tmp_path_factory.mktemp("world")
    write_language_model(root / "base")
    (root / "data").mkdir()
    for number, site in enumerate(SITES):
        pairs = [(p, a if number < 2 else f" red{a}") for p, a in PAIRS]
        rows = [json.dumps({"prompt": p, "completion": a}) for p, a in pairs * 4]
        (root / "data" / f"{site}.jsonl").write_text("\n".join(rows) + "\n")
    return root


def simulate(world, out, *arguments):
    command = [sys.executable, "-m", "cloud_server.cli", "simulate", out, "--workload", "causal-lm"]
    command += ["--checkpoint", world / "base", "--set", "max_length=24", "--rank", "2"]
    command += ["--set", "max_new_tokens=6", "--threads", "1", *arguments]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_departments_learn_and_leave_what_people_ask_for(world, tmp_path):
    done = simulate(
        world, tmp_path / "out", "--data", world / "data", "--clients", "2", "--rounds", "2",
        "--epochs", "2", "--learning-rate", "0.01", "--mixing", "0.3", "--personal", "*.lora_b",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)["rounds"]
    assert [one["round"] for one in rounds] == [1, 2]
    assert all(set(one["clients"].values()) == {"accepted"} for one in rounds)
    assert set(rounds[1]["clusters"]) == set(SITES)
    assert rounds[1]["metrics"]["loss_after"] < rounds[0]["metrics"]["loss_before"]
    folder = tmp_path / "out" / "runs" / "rehearsal"
    told = json.loads((folder / "evaluations.json").read_text())
    assert [one["round"] for one in told] == [1] * 8 + [2] * 8
    assert {one["client"] for one in told} == {f"{s}-{n}" for s in SITES for n in (1, 2)}
    about = json.loads((folder / "sites" / "round-000002.json").read_text())
    assert [one["site"] for one in about["sites"]] == list(SITES)
    assert (folder / "sites" / "round-000002.png").stat().st_size > 1000
    adapters = [read_weights(f) for f in sorted(folder.glob("adapters/round-000002/*/*.safe*"))]
    assert len(adapters) == 4
    a = next(name for name in adapters[0] if "lora_A" in name)
    assert not np.array_equal(adapters[0][a], adapters[3][a]), "each site has its own"
    assert all(not t.any() for n, t in adapters[0].items() if "lora_B" in n), "B stays"
    assert (tmp_path / "out" / "kit" / "kit.toml").exists(), "it is a server directory"


def test_one_table_is_dealt_out_and_the_process_is_only_there_for_training(world, tmp_path):
    done = simulate(
        world, tmp_path / "out", "--data", world / "data" / "books.jsonl", "--sites", "2",
        "--clients", "2", "--rounds", "1", "--max-records", "3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    told = json.loads((tmp_path / "out/runs/rehearsal/evaluations.json").read_text())
    assert len({one["client"] for one in told}) == 4
    assert (tmp_path / "out/runs/rehearsal/adapters/round-000001/fleet").is_dir()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--workload needs --checkpoint FOLDER"),
        (["--data", "nowhere"], "--data nowhere: no such file or folder"),
        (["--data", "DATA", "--sites", "3"], "tables of 4 sites (books, games, songs, toys)"),
        (["--data", "DATA", "--load-in-4bit"], "a base of so few bits is not trained"),
        (["--data", "DATA", "--dtype", "float8"], "expected one of float32, bfloat16"),
        (["--data", "DATA", "--trainable", "head"], "--rank goes with --adapter lora"),
    ],
)
def test_wrong_words_are_refused_in_one_line(world, tmp_path, arguments, words):
    given = [str(world / "data") if one == "DATA" else one for one in arguments]
    done = simulate(world, tmp_path / "out", *given)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_server_names_the_program_and_imports_nothing_of_it():
    from cloud_server.rehearsal.client_process import PROGRAM

    module = PROGRAM[1].replace(".", "/") + ".py"
    assert (Path(__file__).parents[3] / module).is_file()
