"""Detectors of other tools: what is checked, and what is published, in a real store."""

from functools import partial

import cv2
import numpy as np
import pytest
from foreign_models import (
    LABELS,
    SIDE,
    as_of_boxes,
    corners,
    picture,
    write_postprocess,
    write_transformer,
    write_yolox,
    yolo_set,
)

from cloud_server.importing import ImportPlan, examine, publish_imported
from cloud_server.labels import relabel
from cloud_server.models.imported import checks
from cloud_server.models.imported.engine_file import Wish
from cloud_server.models.model_file import export_model
from cloud_server.models.publish import leave_withheld
from cloud_server.models.release_log import IMPORTED, ReleaseLog
from cloud_server.repair import repair
from cloud_server.rollback import publish_checkpoint, roll_back
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import PublishSettings, load_settings
from fleet_model.bundle import TRAINER, entry_of, read_offer
from fleet_model.engine import TFLiteEngine, open_engine
from fleet_model.errors import BundleError, CheckpointError, SettingsError
from fleet_model.litert.runtime import ONNX_RUNTIME, Runtime
from fleet_model.types import Frame

SETTINGS = PublishSettings()


def quiet(line):
    """Show no step."""


@pytest.fixture
def fleet(server_dir):
    return as_of_boxes(server_dir)


def bring(fleet, file, **about):
    return examine(fleet, ImportPlan(file=file, **about), quiet)


def published(fleet, file, **about):
    return publish_imported(fleet, SETTINGS, bring(fleet, file, **about))


def bundle_of(fleet, version, folder):
    """Return a version as a robot has it."""
    store = DirectoryStore(fleet.store)
    content = store.require(version)
    folder.mkdir()
    for name, entry in read_offer(content).manifest.files.items():
        store.fetch(entry.sha256, entry.size_bytes, folder / name)
    (folder / "manifest.json").write_bytes(content)
    return folder


def frame(image):
    return Frame(source="s", topic="t", stamp_ns=0, data=b"", format="rgb8", decode=lambda: image)


def boxes(engine, image):
    found = [one for one in engine.predict(frame(image)) if one.score > 0.5]
    return sorted((one.label, tuple(round(n, 3) for n in one.box)) for one in found)


BLOCKS = [("red", 2, 1), ("blue", 0, 3)]
EXPECTED = sorted((label, corners(column, row)) for label, column, row in BLOCKS)


# ------------------------------------------------------------------------------- what robots get


@pytest.mark.parametrize(
    ("write", "about"),
    [
        (write_yolox, {}),
        (partial(write_yolox, sides=("h", "w")), {"wish": Wish(size=(SIDE, SIDE))}),
        (write_transformer, {"classes": [*LABELS, "-"]}),
        (
            partial(write_transformer, names=("pred_boxes", "logits"), columns=2, scaled="one"),
            {"wish": Wish(layout="d-fine-logits")},
        ),
        (
            partial(write_transformer, names=("pred_boxes", "logits"), nothing=0.0),
            {"wish": Wish(layout="detr")},
        ),
    ],
    ids=["yolox", "open size", "rf-detr", "d-fine", "detr"],
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_robot_finds_what_is_there(fleet, tmp_path, write, about, precision):
    version = published(fleet, write(tmp_path / "model.onnx"), **about)
    engine = open_engine(bundle_of(fleet, version, tmp_path / "robot"), precision)
    engine.warm_up()
    assert boxes(engine, picture(*BLOCKS)) == EXPECTED
    assert boxes(engine, picture()) == []
    assert (engine.runtime, engine.manifest.imported) == (ONNX_RUNTIME, "model.onnx")


def test_boxes_are_in_pixels_of_a_frame_of_any_size(fleet, tmp_path):
    """256 x 256 pixels: all is twice as large."""
    version = published(fleet, write_yolox(tmp_path / "model.onnx"))
    engine = TFLiteEngine(bundle_of(fleet, version, tmp_path / "robot"))
    large = np.kron(picture(*BLOCKS), np.ones((2, 2, 1), np.uint8))
    twice = [(label, tuple(2 * one for one in box)) for label, box in EXPECTED]
    assert boxes(engine, large) == twice


def test_another_runtime_than_the_files_own_is_refused(fleet, tmp_path):
    version = published(fleet, write_yolox(tmp_path / "model.onnx"))
    robot = bundle_of(fleet, version, tmp_path / "robot")
    with pytest.raises(BundleError, match=r"model\.onnx runs by ONNX Runtime alone"):
        TFLiteEngine(robot, runtime=Runtime("compiled"))


def test_labels_that_differ_are_mapped(fleet, tmp_path):
    file = write_yolox(tmp_path / "model.onnx", classes=3)
    about = {"classes": ["rot", "sky", "dog"], "renamed": {"rot": "blue", "sky": "red"}}
    version = published(fleet, file, **about, drop_others=True)
    engine = TFLiteEngine(bundle_of(fleet, version, tmp_path / "robot"))
    assert boxes(engine, picture(*BLOCKS)) == EXPECTED


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("integer", [True, False])
def test_tflites_four_outputs_run_in_litert(fleet, tmp_path, integer):
    file = write_postprocess(tmp_path / "ssd.tflite", integer=integer)
    version = published(fleet, file)
    engine = TFLiteEngine(bundle_of(fleet, version, tmp_path / "robot"))
    assert boxes(engine, picture(*BLOCKS)) == EXPECTED
    assert engine.runtime.words == "Interpreter"
    exchanged = Wish(outputs={"scores": "output_2", "classes": "output_1"})
    with pytest.raises(BundleError, match="expected whole numbers"):
        bring(fleet, file, wish=exchanged)
    with pytest.raises(SettingsError, match="answers class 1, counted from 0, and 1 names"):
        bring(fleet, file, classes=["blue"], without=["red"], samples=[pictures(tmp_path)])


def pictures(tmp_path):
    return yolo_set(tmp_path / "set", 6) / "images"


# ------------------------------------------------------------------------------------- the checks


def test_what_was_found_is_told(fleet, tmp_path):
    made = bring(fleet, write_yolox(tmp_path / "model.onnx"), samples=[pictures(tmp_path)])
    told = "\n".join(made.seen.told)
    assert "layout: yolox (detected): YOLOX" in told
    assert "rows = output (1, 336, 7)" in told
    assert made.checked.pictures == 6
    assert sum(made.checked.sure.values()) == 6  # 0, 1, 2, 0, 1, 2
    assert made.checked.milliseconds > 0
    assert made.checked.doubts == []


def test_pictures_without_a_box_are_a_doubt(fleet, tmp_path):
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((80, 80, 3), 90, np.uint8))
    about = {"samples": [tmp_path / "gray.png"]}
    made = bring(fleet, write_yolox(tmp_path / "model.onnx"), **about)
    assert "no box is surer than 0.3 on any of 1 pictures" in made.checked.doubts[0]


@pytest.mark.parametrize(
    ("write", "about", "error", "words"),
    [
        (partial(write_yolox, classes=3), {}, SettingsError, "has 3 classes, and the fleet has 2"),
        (write_yolox, {"classes": ["a"]}, SettingsError, "2 classes, and --labels names 1"),
        (write_yolox, {"classes": ["blue", "dog"]}, SettingsError, "the file finds dog"),
        (partial(write_yolox, batch=4), {}, BundleError, "takes 4 pictures at once"),
        (
            partial(write_yolox, sides=("h", "w")),
            {},
            BundleError,
            r"\(1, 3, \?, \?\).*--input-size",
        ),
        (write_yolox, {"wish": Wish(size=(64, 64))}, SettingsError, "takes 128x128 only"),
        (write_yolox, {"wish": Wish(layout="yolov8")}, BundleError, "which is not yolov8"),
        (write_yolox, {"wish": Wish(layout="yolo")}, SettingsError, "there is no layout 'yolo'"),
        (write_yolox, {"wish": Wish(layout="yolox-decoded")}, BundleError, "--boxes shares"),
        (write_yolox, {"wish": Wish(outputs={"x": "output"})}, SettingsError, "no role 'x'"),
        (write_yolox, {"wish": Wish(outputs={"rows": "y"})}, SettingsError, "no output 'y'"),
        (
            partial(write_transformer, names=("pred_boxes", "logits"), columns=2),
            {},
            BundleError,
            "may be several; choose: --layout rf-detr",
        ),
        (
            partial(write_transformer, names=("boxes", "scores"), columns=2),
            {},
            BundleError,
            "are these logits",
        ),
        (
            partial(write_transformer, names=("dets", "labels"), columns=2),
            {"wish": Wish(shares=False)},
            BundleError,
            "seem to be shares",
        ),
    ],
)
def test_a_misfit_is_one_clear_error(fleet, tmp_path, write, about, error, words):
    file = write(tmp_path / "model.onnx")
    with pytest.raises(error, match=words):
        bring(fleet, file, **about)


def test_boxes_outside_of_the_picture_are_none(fleet, tmp_path):
    file = write_yolox(tmp_path / "model.onnx", shift=50.0)
    with pytest.raises(BundleError, match="lie outside of the picture"):
        bring(fleet, file)


@pytest.mark.parametrize("name", ["none", "broken.png", "empty"])
def test_a_sample_that_is_none_is_named(fleet, tmp_path, name):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match=f"--sample .*{name}"):
        bring(fleet, write_yolox(tmp_path / "model.onnx"), samples=[tmp_path / name])


def test_many_samples_are_spread_over_all(fleet, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "MOST_PICTURES", 4)
    made = bring(fleet, write_yolox(tmp_path / "model.onnx"), samples=[pictures(tmp_path)])
    assert made.checked.pictures == 3


def test_a_fleet_that_learns_no_boxes_takes_none(server_dir, tmp_path):
    with pytest.raises(SettingsError, match="this fleet learns 'image-classifier'"):
        bring(server_dir, write_yolox(tmp_path / "model.onnx"))


# -------------------------------------------------------------------------------------- publishing


def test_it_is_a_version_as_any_other_and_rounds_go_on_from_the_fleets_own(fleet, tmp_path):
    checkpoints = Checkpoints(fleet.checkpoints)
    before = checkpoints.load(1).weights
    assert published(fleet, write_yolox(tmp_path / "model.onnx")) == 2
    store = DirectoryStore(fleet.store)
    assert store.channels() == {"stable": 2}
    newest = checkpoints.latest()
    assert newest.version == 2
    assert all((newest.weights[name] == before[name]).all() for name in before)
    release = ReleaseLog(fleet.releases).newest()
    assert (release.version, release.kind, release.by) == (2, "published", "import-engine")
    assert "which was imported: robots run it, and nobody trains it" in release.sentences()[0]
    manifest = store.latest("stable").manifest
    own = (fleet.model / TRAINER).read_bytes()
    assert manifest.trainer == entry_of(own)  # robots train what they have trained
    store.prune(10)
    assert store.lacking(2, read=True) == []


def test_it_can_be_offered_on_another_channel(fleet, tmp_path):
    made = bring(fleet, write_yolox(tmp_path / "model.onnx"))
    publish_imported(fleet, SETTINGS.model_copy(update={"channel": "canary"}), made)
    assert DirectoryStore(fleet.store).channels() == {"canary": 2, "stable": 1}


def test_a_run_that_goes_on_is_waited_for(fleet, tmp_path):
    made = bring(fleet, write_yolox(tmp_path / "model.onnx"))
    run = Run(id="20260101-120000", rounds=1, state="running", first_version=1, started_at=1.0)
    RunStore(fleet.runs).save(run)
    with pytest.raises(SettingsError, match="20260101-120000"):
        publish_imported(fleet, SETTINGS, made)
    assert DirectoryStore(fleet.store).channels() == {"stable": 1}


def test_a_rollback_keeps_what_rounds_have_made_beside_it(fleet, tmp_path):
    published(fleet, write_yolox(tmp_path / "model.onnx"))
    checkpoints, learned = Checkpoints(fleet.checkpoints), learn(fleet, 3)
    assert roll_back(fleet, SETTINGS) == (1, 4)
    assert DirectoryStore(fleet.store).channels() == {"stable": 4}
    assert checkpoints.latest().version == 5
    assert bias(checkpoints, 5) == learned
    assert bias(checkpoints, 4) == bias(checkpoints, 1)  # what robots run, as the gate asks
    assert roll_back(fleet, SETTINGS, 2) == (2, 6)  # forward again
    assert ReleaseLog(fleet.releases).newest().imported == "model.onnx"
    assert bias(checkpoints, checkpoints.newest()) == learned


def learn(fleet, version, kind=IMPORTED):
    """Save what a round makes, held back from robots; return a number of it."""
    checkpoints = Checkpoints(fleet.checkpoints)
    before = checkpoints.latest()
    weights = {name: one + version for name, one in before.weights.items()}
    checkpoints.save(type(before)(version=version, weights=weights))
    reasons = [{"kind": kind, "words": "they run another"}]
    ReleaseLog(fleet.releases).add(version, "withheld", "run 1", reasons=reasons)
    return bias(checkpoints, version)


def bias(checkpoints, version):
    return checkpoints.load(version).weights["head/bias"].tolist()


@pytest.mark.parametrize(("kind", "begins_with"), [(IMPORTED, 3), ("fall", 4)])
def test_the_next_run_goes_on_from_what_is_only_held_back_beside_an_imported_one(
    fleet, tmp_path, kind, begins_with
):
    published(fleet, write_yolox(tmp_path / "model.onnx"))
    learned = learn(fleet, 3, kind)
    leave_withheld(fleet, "stable", "run 2")
    checkpoints = Checkpoints(fleet.checkpoints)
    assert checkpoints.newest() == begins_with
    assert (bias(checkpoints, begins_with) == learned) == (kind == IMPORTED)


def test_what_would_mistake_it_for_the_fleets_own_is_refused(fleet, tmp_path):
    published(fleet, write_yolox(tmp_path / "model.onnx"))
    with pytest.raises(SettingsError, match=r"robots run version 2, which is model\.onnx"):
        relabel(fleet, SETTINGS, lambda labels: labels.renamed("red", "rot"), quiet)
    with pytest.raises(CheckpointError, match=r"version 2 is model\.onnx, which was imported"):
        export_model(fleet, 2, "safetensors", tmp_path / "m.safetensors", quiet)
    with pytest.raises(BundleError, match="models rollback DIR 2"):
        publish_checkpoint(fleet, SETTINGS, 2, quiet)


def test_repair_says_that_only_the_file_can_bring_it_back(fleet, tmp_path):
    published(fleet, write_yolox(tmp_path / "model.onnx"))
    store = DirectoryStore(fleet.store)
    name, entry = next(iter(store.latest("stable").manifest.files.items()))
    (fleet.store / "objects" / entry.sha256).unlink()
    told = list(repair(fleet, load_settings(fleet.settings), quiet))
    assert any("version 2 cannot be made again, it is model.onnx" in one for one in told)
    assert store.lacking(2) == [name]
