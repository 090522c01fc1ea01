"""The whole pipeline with real training of a tiny encoder, in this process and as typed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloud_server.pipelines.options import PipelineJob, PipelineOptions
from cloud_server.pipelines.pipeline import run_pipeline
from fleet_model.errors import CheckpointError, SettingsError, TrainingError
from fleet_model.weights import read_weights

pytestmark = pytest.mark.torch
BIN = Path(sys.executable).parent
OPTIONS = {"max_length": 16, "epochs": 5, "learning_rate": 1e-2, "batch_size": 8, "device": "cpu"}


@pytest.fixture
def job(tmp_path, tickets, encoder):
    def make(out="out", work="work", data=tickets, model=encoder, **options):
        return PipelineJob(
            data=str(data),
            model=str(model),
            out=str(tmp_path / out),
            work=tmp_path / work,
            options=PipelineOptions(**{**OPTIONS, **options}),
        )

    return make


def typed(*words, cwd, check=True, **more):
    done = subprocess.run(
        [BIN / "cloud-server", *map(str, words)], cwd=cwd, capture_output=True, text=True, **more
    )
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def weights_of(out):
    return (Path(out) / "model" / "model.safetensors").read_bytes()


def test_a_model_learns_and_everything_that_is_promised_is_there(job, tmp_path):
    told = run_pipeline(job(), print)
    out = tmp_path / "out"
    assert {file.name for file in out.iterdir()} == {
        "model", "metrics.json", "confusion_matrix.png", "pipeline.json",
    }  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.9
    assert [one["epoch"] for one in metrics["history"]] == [1, 2, 3, 4, 5]
    assert metrics["accuracy"] == told["accuracy"] == metrics["history"][-1]["accuracy"]
    assert json.loads((out / "pipeline.json").read_text()) == told
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}


def test_it_is_done_once_and_again_where_data_or_options_change(job, tickets):
    lines = []
    first = run_pipeline(job(), lines.append)
    lines.clear()
    assert run_pipeline(job(), lines.append) == first
    assert lines == [f"{name}: done before" for name in ("prepare", "tokenize", "train")]
    lines.clear()
    second = run_pipeline(job(weight_decay=0.1), lines.append)
    assert lines[:3] == ["prepare: done before", "tokenize: done before", "train"]
    assert second["key"] != first["key"]
    lines.clear()
    tickets.write_text(tickets.read_text() + "a good door,good\n")
    third = run_pipeline(job(), lines.append)
    assert "prepare" in lines
    assert third["data"]["sha256"] != first["data"]["sha256"]
    assert sum(third["examples"].values()) == sum(first["examples"].values()) + 1


def test_killed_while_it_trains_it_resumes_and_ends_with_the_same_bits(job, tmp_path):
    options = {"every": 10, "epochs": 8, "evaluate": "steps"}
    run_pipeline(job(out="whole", work="other", save="no", **options), print)
    killed = job(save="steps", **options)
    command = [sys.executable, "-m", "cloud_server.pipelines", killed.model_dump_json()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        deadline = time.monotonic() + 240
        while not [*tmp_path.glob("work/train-*.state")]:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    lines = []
    run_pipeline(killed, lines.append)
    assert lines[:2] == ["prepare: done before", "tokenize: done before"]
    assert any("resumed after step" in line for line in lines)
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "whole")
    metrics = [(tmp_path / one / "metrics.json").read_text() for one in ("whole", "out")]
    assert metrics[0] == metrics[1]
    assert not [*tmp_path.glob("work/*.state")]


def test_a_loss_that_is_no_number_ends_it_and_nothing_is_delivered(job, tmp_path):
    with pytest.raises(TrainingError, match="smaller --learning-rate than 1e"):
        run_pipeline(job(learning_rate=1e30), print)
    assert not (tmp_path / "out").exists()
    assert not [*tmp_path.glob("work/train-*")]


def test_strategies_say_when_it_is_measured_and_kept(job, tmp_path):
    told = run_pipeline(job(evaluate="no", save="no", epochs=1), print)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [one["epoch"] for one in metrics["history"]] == [1]
    assert told["options"]["evaluate"] == "no"
    run_pipeline(job(evaluate="steps", every=5, epochs=1), print)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [one["step"] for one in metrics["history"]][:2] == [5, 10]


def test_places_that_do_not_fit_are_refused_before_anything_is_done(job, tmp_path, encoder):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").touch()
    with pytest.raises(SettingsError, match="holds other files"):
        run_pipeline(job(out="full"), print)
    with pytest.raises(SettingsError, match="torch cannot compute there"):
        run_pipeline(job(device="cuda:99"), print)
    (tmp_path / "bare").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        run_pipeline(job(model=tmp_path / "bare"), print)


@pytest.mark.slow
def test_as_people_type_it_and_a_fleet_starts_from_the_model(tmp_path, tickets, encoder):
    flags = ("--max-length", 16, "--epochs", 5, "--learning-rate", 1e-2, "--batch-size", 8)
    places = ("--data", tickets, "--model", encoder, "--device", "cpu")
    run = ("pipeline", "run", "out", *places, *flags)
    first = typed(*run, cwd=tmp_path)
    assert first.stdout.startswith("out: accuracy ")
    assert "20% of the texts are held out" in first.stderr
    (next_line,) = [line for line in first.stderr.splitlines() if line.startswith("next: ")]
    words = next_line.removeprefix("next: cloud-server ").split()
    assert words[words.index("--checkpoint") + 1] == "out/model"
    typed(*words, "--set", "max_length=16", cwd=tmp_path)
    trained = read_weights(tmp_path / "out" / "model" / "model.safetensors")
    first = read_weights(next((tmp_path / "fleet").rglob("weights.safetensors")))
    assert (first["head/bias"] == trained["classifier.bias"]).all()  # the head was taken, not drawn
    wrong = typed(*run, "--label-column", "queue", cwd=tmp_path, check=False)
    assert wrong.returncode == 5
    assert "has no column 'queue'" in wrong.stderr
