"""The steps as tasks of Flyte, really run on this machine, with Flyte's own cache."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.pipelines
BIN = Path(sys.executable).parent
STEPS = ("prepare", "tokenize", "train")


@pytest.fixture
def run(tmp_path, tickets, encoder):
    """Return run(*words) -> what pipeline.json says, and the steps that were really done."""
    home = tmp_path / "home"  # of Flyte's cache
    home.mkdir()

    def call(*words, check=True, **environment):
        done = subprocess.run(
            [
                *(BIN / "cloud-server", "pipeline", "run", "out", "--flyte", "local"),
                *("--data", tickets, "--model", encoder, "--device", "cpu", "--epochs", "1"),
                *("--max-length", "16", "--batch-size", "8", *map(str, words), "--json"),
            ],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(home), **environment},
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if check else done

    def results():
        folders = (tmp_path / ".pipeline").glob("*-*")
        return {folder.name: folder.stat().st_ino for folder in folders}

    call.results = results
    return call


def test_the_cache_gives_nothing_that_is_stale(run, tmp_path, tickets):
    first, made = run(), run.results()
    assert sorted(name.partition("-")[0] for name in made) == sorted(STEPS)
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    assert run() == first
    assert run.results() == made  # nothing was done again
    with tickets.open("a", newline="") as stream:
        csv.writer(stream).writerow(("a good door", "good"))
    second = run()
    assert len(run.results()) == 6  # the same path, other data: all is done again
    assert sum(second["examples"].values()) == sum(first["examples"].values()) + 1
    shutil.rmtree(tmp_path / ".pipeline")  # what Flyte remembers is gone
    third = run()
    assert third == second
    assert len(run.results()) == 3


def test_an_error_of_a_task_is_one_line_with_its_own_exit_code(run):
    wrong = run("--label-column", "queue", check=False)
    assert wrong.returncode == 5
    assert "tickets.csv: has no column 'queue'" in wrong.stderr
    missing = run("--flyte", "nowhere.yaml", check=False)
    assert missing.returncode == 2


def test_all_code_is_a_part_of_what_flyte_caches_by(monkeypatch):
    from cloud_server.pipelines import flyte_tasks

    tasks = (flyte_tasks.prepare_texts, flyte_tasks.tokenize_texts, flyte_tasks.train_model)
    before = [task.cache.get_version(SimpleNamespace(code_bundle=None)) for task in tasks]
    monkeypatch.setattr(flyte_tasks, "code_digest", lambda: "other")
    after = [task.cache.get_version(SimpleNamespace(code_bundle=None)) for task in tasks]
    assert not set(before) & set(after)
    ignored = {name for task in tasks for name in task.cache.get_ignored_inputs()}
    assert "key" not in ignored
