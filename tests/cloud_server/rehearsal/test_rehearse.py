"""`cloud-server simulate --workload`: real rounds of departments on one machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_language_models import PAIRS, write_language_model

from cloud_server.sites.clusters import adjusted_rand
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
    answer = json.loads(done.stdout)
    rounds = answer["rounds"]
    assert [one["round"] for one in rounds] == [1, 2]
    assert all(set(one["clients"].values()) == {"accepted"} for one in rounds)
    assert set(rounds[1]["clusters"]) == set(SITES)
    assert rounds[1]["metrics"]["loss_after"] < rounds[0]["metrics"]["loss_before"]
    folder = tmp_path / "out" / "runs" / "rehearsal"
    told = json.loads((folder / "evaluations.json").read_text())
    assert [one["round"] for one in told] == [1] * 8 + [2] * 8
    assert {one["client"] for one in told} == {f"{s}-{n}" for s in SITES for n in (1, 2)}
    assert answer["learned"] == json.loads((folder / "learned.json").read_text())
    assert [one["client"] for one in answer["learned"]] == [one["client"] for one in told[:8]]
    own = [one["loss"] for one in answer["learned"]]
    assert np.mean(own) < np.mean([one["loss_before"] for one in told[8:]]), "a round better"
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
    assert len(done.stdout.splitlines()) == 4
    assert "learned: loss " in done.stdout
    told = json.loads((tmp_path / "out/runs/rehearsal/evaluations.json").read_text())
    assert len({one["client"] for one in told}) == 4
    assert (tmp_path / "out/runs/rehearsal/adapters/round-000001/fleet").is_dir()


def test_clusters_by_the_elbow_find_who_answers_alike(world, tmp_path):
    done = simulate(
        world, tmp_path / "out", "--data", world / "data", "--clients", "1", "--rounds", "1",
        "--epochs", "4", "--learning-rate", "0.02", "--mixing", "1", "--global-mix", "0",
        "--choose", "elbow", "--on", "*.lora_b", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    found = answer["rounds"][0]["clusters"]
    truth = np.array([0, 0, 1, 1])
    assert adjusted_rand(np.array([found[site] - 1 for site in SITES]), truth) == 1, found
    folder = tmp_path / "out" / "runs" / "rehearsal"
    about = json.loads((folder / "sites" / "round-000001.json").read_text())
    assert (about["choose"], about["on"]) == ("elbow", "*.lora_b")
    files = sorted(folder.glob("adapters/round-000001/*/*.safe*"))
    books, games, songs, _ = (read_weights(file) for file in files)
    assert all(np.array_equal(books[name], games[name]) for name in books), "one for a cluster"
    assert not all(np.allclose(books[name], songs[name]) for name in books)
    before = json.loads((folder / "evaluations.json").read_text())
    assert all(
        one["loss"] < first["loss_before"]
        for one, first in zip(answer["learned"], before, strict=True)
    )


def test_flora_takes_a_part_of_what_fedavg_takes(world, tmp_path):
    moved = {}
    for rule, options in (
        ("fedavg", ()),
        ("flora_residual", ("--option", "momentum=0.25")),
    ):
        done = simulate(
            world, tmp_path / rule, "--data", world / "data", "--clients", "1", "--rounds", "1",
            "--learning-rate", "0.01", "--rule", rule, *options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        file = next((tmp_path / rule).glob("runs/rehearsal/adapters/round-000001/fleet/*.safe*"))
        moved[rule] = read_weights(file)
    for name, whole in moved["fedavg"].items():
        if "lora_B" in name:  # it begins at zero
            assert whole.any()
            np.testing.assert_allclose(moved["flora_residual"][name], whole / 4, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--workload needs --checkpoint FOLDER"),
        (["--data", "nowhere"], "--data nowhere: no such file or folder"),
        (["--data", "DATA", "--sites", "3"], "tables of 4 sites (books, games, songs, toys)"),
        (["--data", "DATA", "--load-in-4bit"], "a base of so few bits is not trained"),
        (["--data", "DATA", "--dtype", "float8"], "expected one of float32, bfloat16"),
        (["--data", "DATA", "--trainable", "head"], "--rank goes with --adapter lora"),
        (["--data", "DATA", "--global-mix", "0"], "--global-mix goes with --mixing"),
        (["--data", "DATA", "--on", "*.lora_b"], "--on goes with --mixing"),
        (["--data", "DATA", "--mixing", "1", "--choose", "knee"], "expected elbow or silhouette"),
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
