"""`cloud-server compress`, from a trained network to files and a table; killed, it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import pytest

pytest.importorskip("keras")

from cloud_server.compression.recipes.opened import open_model
from cloud_server.compression.recipes.pipeline import CompressJob, run_compression
from cloud_server.compression.recipes.sweep import Limits
from cloud_server.models.keras.parity_gate import TOLERANCE, require_builtin_operators
from cloud_server.models.publish import imported_file
from fleet_model.bundle import TRAINER
from fleet_model.errors import CheckpointError, ExportError, SettingsError, WithheldError

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
STAGES = (
    "checkpoint", "pictures", "convert", "answers", "distill", "prune", "quantize", "export",
    "benchmark",
)  # fmt: skip


@pytest.fixture(scope="module")
def job(tmp_path_factory, checkpoint, recipe):
    """Return job(place, text): what is asked for in a folder of its own."""

    def make(place=None, text=recipe, **changed):
        root = place or tmp_path_factory.mktemp("compress")
        (root / "small.toml").write_text(text)
        given = {"checkpoint": checkpoint, "pipeline": root / "small.toml",
                 "out": root / "out", "work": root / "work"}  # fmt: skip
        return CompressJob(**given | changed)

    return make


@pytest.fixture(scope="module")
def whole(job):
    """A pipeline that has run undisturbed: its job, and what it told."""
    made, lines = job(), []
    return made, run_compression(made, lines.append), lines


def models(told):
    return {one["name"]: one for one in told["models"]}


def test_each_step_is_a_line_and_a_file(whole):
    made, told, lines = whole
    found = models(told)
    assert list(found) == ["teacher", "distill", "prune", "int8", "onnx"]
    assert told == json.loads((made.out / "pipeline.json").read_text())
    assert told["labels"] == ["blue", "green", "red"]
    assert told["size"] == 32
    for name, one in found.items():
        file = made.out / one["file"]
        assert file.stat().st_size == one["size_bytes"], name
        assert (made.out / one["network"]).is_file(), name
        assert 0 < one["p50_ms"] <= one["p95_ms"]
        assert one["accuracy"] > 0.9
        if sys.platform == "linux":
            assert 1e5 < one["memory_bytes"] < 1e9
    # 128 channels in each of two blocks; half of them go, each with 16 + 9 + 16 numbers and 2 x 4.
    assert found["teacher"]["parameters"] - found["prune"]["parameters"] == 128 * (41 + 8)
    assert found["prune"]["size_bytes"] < 0.8 * found["distill"]["size_bytes"]
    assert found["int8"]["size_bytes"] < found["prune"]["size_bytes"]
    assert found["int8"]["network"] == found["prune"]["network"] == "models/prune.keras"
    table = (made.out / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip(" *") for line in table[2:7]] == list(found)
    for name, one in found.items():
        assert (f"**{name}**" in "\n".join(table)) == one["front"]
    assert cv2.imread(str(made.out / "plot.png")) is not None
    assert [line for line in lines if line in STAGES] == [
        "checkpoint", "pictures", "convert", "answers", "distill", "convert", "prune", "convert",
        "quantize", "export", "benchmark",
    ]  # fmt: skip


def test_files_answer_as_keras_does_without_flex_and_know_their_labels(whole):
    import keras

    made, told, _ = whole
    pictures = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3)).astype(np.float32)
    for one in models(told).values():
        file = made.out / one["file"]
        network = keras.saving.load_model(made.out / one["network"], compile=False)
        expected = np.asarray(network(pictures, training=False))
        found = np.stack([open_model(file, 1)(picture) for picture in pictures])
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < (0.2 if one["precision"] == "int8" else TOLERANCE), one["name"]
        assert one["error"] < (0.2 if one["precision"] == "int8" else TOLERANCE), one["name"]
        if file.suffix == ".tflite":
            require_builtin_operators(file.read_bytes(), file.name)
            with zipfile.ZipFile(file) as archive:
                assert archive.read("labels.txt").decode().split() == ["blue", "green", "red"]


def test_what_is_done_is_not_done_again(whole, job):
    made, told, _ = whole
    lines = []
    assert run_compression(made, lines.append) == told
    assert {line for line in lines if ":" in line} == {f"{name}: done before" for name in STAGES}
    text = made.pipeline.read_text().replace("samples = 40", "samples = 30")
    lines.clear()
    other = run_compression(job(text=text, work=made.work), lines.append)
    assert [line for line in lines if line in STAGES] == ["quantize", "benchmark"]
    assert models(other)["prune"]["size_bytes"] == models(told)["prune"]["size_bytes"]


def test_killed_while_it_learns_it_ends_with_the_same_files(whole, job, tmp_path):
    made = job(tmp_path)
    command = [
        sys.executable, "-m", "cloud_server.cli", "compress", str(made.checkpoint),
        "--pipeline", str(made.pipeline), "--out", str(made.out), "--work", str(made.work),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        deadline = time.monotonic() + 240
        while not [*made.work.glob("distill-*.state")]:
            assert process.poll() is None, process.stdout.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    time.sleep(1)  # the child notices
    assert not [*made.work.glob("prune-*")]
    assert not made.out.exists()
    lines = []
    told = run_compression(made, lines.append)
    assert "answers: done before" in lines
    assert any(line.startswith("resumed after step") for line in lines)
    _require_same_files(made, told, whole)
    assert not [*made.work.glob("*.state")]
    assert not [*made.work.glob(".*")]


@pytest.mark.soak
@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_any_stage_it_ends_with_the_same_files(stage, whole, job, tmp_path):
    made = job(tmp_path)
    command = [sys.executable, "-m", "cloud_server.compression.recipes", made.model_dump_json()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 240
        while not [*made.work.glob(f".{stage}-*.new")]:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
    assert not made.out.exists()
    _require_same_files(made, run_compression(made, lambda line: None), whole)


def _require_same_files(made, told, whole):
    before, expected, _ = whole
    assert [one["name"] for one in told["models"]] == [one["name"] for one in expected["models"]]
    for one in told["models"]:
        if one["file"].endswith(".tflite"):
            same = (before.out / one["file"]).read_bytes()
            assert (made.out / one["file"]).read_bytes() == same, one["name"]


@pytest.mark.parametrize(
    ("which", "step", "words"),
    [
        (
            "checkpoint",
            'do = "distill"\nstudent = "mobilenet-v2"\nwidth = 1.0',
            r"distill: the network would have 2,261,827 numbers, and has 13,171: nothing is won",
        ),
        ("checkpoint", 'do = "prune"\nshare = 0.001', "prune: .*: nothing is won"),
        (
            "narrow_checkpoint",
            'do = "quantize"\nkinds = ["fp16"]',
            r"model_fp16.tflite has \d+ bytes, and had \d+ before this step: nothing is won",
        ),
    ],
)
def test_a_step_that_makes_nothing_smaller_is_refused_with_the_reason(
    which, step, words, pictures, job, tmp_path, request
):
    text = f'[data]\nfolder = "{pictures}"\n[[step]]\n{step}\n'
    made = job(tmp_path, text, checkpoint=request.getfixturevalue(which))
    with pytest.raises(ExportError, match=words):
        run_compression(made, lambda line: None)
    assert not made.out.exists()


def test_what_it_begins_with_has_to_be_there(job, tmp_path):
    with pytest.raises(CheckpointError, match=r"no such .keras file; .* --format keras"):
        run_compression(job(tmp_path, checkpoint=tmp_path / "none.keras"), print)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").touch()
    with pytest.raises(SettingsError, match="holds other files"):
        run_compression(job(tmp_path, out=tmp_path / "full"), print)
    assert not (tmp_path / "work").exists()


def test_a_sweep_keeps_the_front_and_picks_a_model(whole, job, tmp_path):
    made, _, _ = whole
    text = made.pipeline.read_text() + '\n[sweep]\n"prune.share" = [0.0001, 0.5, 0.75]\n'
    lines = []
    limits = Limits(max_drop=0.5)
    swept = job(tmp_path, text, work=made.work, limits=limits)
    told = run_compression(swept, lines.append)
    found = models(told)
    assert list(found) == [
        "teacher", "distill", "prune (share 0.5)", "int8 (share 0.5)", "onnx (share 0.5)",
        "prune (share 0.75)", "int8 (share 0.75)", "onnx (share 0.75)",
    ]  # fmt: skip
    assert [one["what"] for one in told["refused"]] == ["share 0.0001"]
    assert "nothing is won" in told["refused"][0]["why"]
    assert told["picked"] == "int8 (share 0.75)"  # the smallest
    for name, one in found.items():
        assert (one["file"] is not None) == (one["front"] or name == told["picked"])
        assert one["file"] is None or (swept.out / one["file"]).is_file()
    smaller = found["prune (share 0.75)"]["size_bytes"], found["prune (share 0.5)"]["size_bytes"]
    assert smaller[0] < smaller[1]
    assert lines.count("prune") == 2  # 0.5 was done before, 0.0001 was begun
    nothing = swept.model_copy(update={"limits": Limits(max_size=10)})
    with pytest.raises(WithheldError, match=r"no model keeps --max-size 10 .*/out has the table"):
        run_compression(nothing, print)
    assert json.loads((swept.out / "pipeline.json").read_text())["picked"] is None


def test_what_is_picked_is_offered_to_robots(whole, job, server_dir, tmp_path):
    made, _, _ = whole
    file = server_dir.model / TRAINER
    fields = json.loads(file.read_bytes())
    fields["workload"]["config"]["labels"] = ["blue", "green", "red"]
    file.write_text(json.dumps(fields))
    command = [
        sys.executable, "-m", "cloud_server.cli", "compress", str(made.checkpoint),
        "--pipeline", str(made.pipeline), "--out", str(tmp_path / "out"),
        "--work", str(made.work), "--publish", str(server_dir.root),
    ]  # fmt: skip
    which = subprocess.run(command, capture_output=True, text=True, check=False)
    assert which.returncode == 2
    assert "nothing says which: give --max-size" in which.stderr
    assert not (tmp_path / "out").exists()
    done = subprocess.run([*command, "--max-drop", "0.5"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"picked: int8, {tmp_path}/out/models/int8.tflite" in done.stdout
    assert "channel stable offers version 2: robots try it" in done.stdout
    assert imported_file(server_dir, "stable")[1].startswith("int8 of teacher.keras (")
