"""What a person types to import a detector, and what is told."""

import json

import pytest
from foreign_models import as_of_boxes, write_transformer, write_yolox
from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.state.model_store import DirectoryStore
from fleet_model.engine import open_engine
from fleet_model.errors import SettingsError


def run(*words):
    words = ["import-engine", *map(str, words)]
    return CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.fixture
def fleet(server_dir):
    return as_of_boxes(server_dir)


def channels(fleet):
    return DirectoryStore(fleet.store).channels()


def test_a_dry_run_tells_everything_and_publishes_nothing(fleet, tmp_path):
    done = run(fleet.root, write_yolox(tmp_path / "yolox.onnx"), "--dry-run")
    for words in ("yolox (detected)", "2 classes", "BGR 0..255, as they are, corner", "8 pictures"):
        assert words in done.stdout
    assert "nothing is published" in done.stdout
    assert channels(fleet) == {"stable": 1}


def test_what_is_published_says_how_it_goes_on(fleet, tmp_path):
    done = run(fleet.root, write_yolox(tmp_path / "yolox.onnx"))
    assert "channel stable offers version 2: robots try it" in done.stdout
    assert "Nobody trains it" in done.stdout
    assert f"cloud-server models rollback {fleet.root}" in done.stdout
    listed = CliRunner().invoke(app, ["models", "list", str(fleet.root), "--json"])
    version = json.loads(listed.stdout)["versions"][-1]
    assert (version["imported"], version["release"]["by"]) == ("yolox.onnx", "import-engine")


def test_a_bundle_for_a_teacher_is_written_and_nothing_is_published(fleet, tmp_path):
    out = tmp_path / "teacher"
    done = run(fleet.root, write_yolox(tmp_path / "yolox.onnx"), "--out", out)
    assert f"edge-agent label --teacher {out}" in done.stdout
    assert channels(fleet) == {"stable": 1}
    engine = open_engine(out)
    assert (engine.manifest.imported, engine.workload.task.answer) == ("yolox.onnx", "boxes")
    with pytest.raises(SettingsError, match="is there already"):
        run(fleet.root, tmp_path / "yolox.onnx", "--out", out)
    with pytest.raises(SettingsError, match="choose one"):
        run(fleet.root, tmp_path / "yolox.onnx", "--out", tmp_path / "other", "--dry-run")
    assert sorted(one.name for one in tmp_path.iterdir() if "teacher" in one.name) == ["teacher"]


def test_another_channel_gets_it(fleet, tmp_path):
    run(fleet.root, write_yolox(tmp_path / "yolox.onnx"), "--channel", "canary")
    assert channels(fleet) == {"canary": 2, "stable": 1}


def test_every_flag_arrives(fleet, tmp_path):
    done = run(
        fleet.root, write_transformer(tmp_path / "m.onnx"), "--labels", "a,b,-",
        "--map", "a=red", "--map", "b=blue", "--layout", "d-fine-logits", "--color", "bgr",
        "--mean", "1,2,3", "--std", "4", "--fit", "corner", "--boxes", "shares",
        "--overlap", "0.7", "--outputs", "boxes=dets,logits=labels", "--dry-run", "--json",
    )  # fmt: skip
    answer = json.loads(done.stdout)
    reading = answer["reading"]
    assert answer["version"] is None
    assert (reading["classes"], reading["layout"]) == ([1, 0, -1], "d-fine-logits")
    assert (reading["color"], reading["fit"], reading["overlap"]) == ("bgr", "corner", 0.7)
    assert (reading["mean"], reading["std"]) == ([1, 2, 3], [4, 4, 4])
    assert reading["outputs"] == {"boxes": "dets", "logits": "labels"}


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--input-size", "12", "from 32 to 4096"),
        ("--input-size", "640x", "from 32 to 4096"),
        ("--input-size", "640x480x3", "from 32 to 4096"),
        ("--mean", "a", "expected one number"),
        ("--mean", "1,2", "or three"),
        ("--mean", "nan", "expected one number"),
        ("--std", "0", "above 0"),
        ("--std", "inf", "above 0"),
        ("--outputs", "boxes", "expected ROLE=NAME"),
        ("--map", "person", "expected CLASS=LABEL"),
        ("--labels", "a,,b", "expected the names"),
        ("--layout", "yolo", "there is no layout 'yolo'"),
    ],
)
def test_a_flag_that_is_none_is_one_error(fleet, tmp_path, flag, value, words):
    with pytest.raises(SettingsError, match=words):
        run(fleet.root, write_yolox(tmp_path / "m.onnx"), flag, value)
    assert channels(fleet) == {"stable": 1}
