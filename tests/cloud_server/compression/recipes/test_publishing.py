"""A picked model becomes a version that robots run and nobody trains, in a real store."""

import json

import numpy as np
import pytest

pytest.importorskip("keras")

from cloud_server.compression.recipes.files import convert
from cloud_server.compression.recipes.learning import NETWORK
from cloud_server.compression.recipes.opened import open_model
from cloud_server.compression.recipes.pictures import read_pictures
from cloud_server.compression.recipes.publishing import publish_picked
from cloud_server.compression.recipes.recipe import Data
from cloud_server.models.publish import imported_file
from cloud_server.models.release_log import ReleaseLog
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import PublishSettings
from fleet_model.bundle import TRAINER, read_offer
from fleet_model.engine import open_engine
from fleet_model.errors import SettingsError
from fleet_model.types import Frame

COLORS, SIDE = ["blue", "green", "red"], 32
pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]


@pytest.fixture(scope="module")
def result(tmp_path_factory, narrow_checkpoint, pictures):
    """The folder of a result with one file, and what its pipeline.json says."""
    root = tmp_path_factory.mktemp("result")
    for name in ("network", "pictures", "models"):
        (root / name).mkdir()
    (root / "network" / NETWORK).write_bytes(narrow_checkpoint.read_bytes())
    read_pictures(Data(folder=pictures), COLORS, SIDE, root / "pictures", lambda line: None)
    convert(root / "network", root / "pictures", root / "models")
    model = {"name": "prune", "file": "models/model.tflite", "accuracy": 0.9, "macro_f1": 0.8}
    told = {"models": [model], "picked": "prune", "checkpoint": "teacher.keras",
            "sha256": "0123456789abcdef", "labels": COLORS, "size": SIDE}  # fmt: skip
    return root, told


def of_colors(server_dir, **config):
    """Return a server directory as if it learned colors, or something else."""
    file = server_dir.model / TRAINER
    fields = json.loads(file.read_bytes())
    fields["workload"]["config"] |= {"labels": COLORS} | config
    file.write_text(json.dumps(fields))
    return server_dir


def test_robots_get_the_file_with_its_lineage_and_the_fleet_trains_its_own(
    result, server_dir, tmp_path
):
    out, told = result
    fleet, before = of_colors(server_dir), Checkpoints(server_dir.checkpoints).latest()
    number = publish_picked(fleet, PublishSettings(), told, out)
    assert number == before.version + 1
    store = DirectoryStore(fleet.store)
    content = store.require(number)
    manifest = read_offer(content).manifest
    assert manifest.imported == "prune of teacher.keras (0123456789ab)"
    assert manifest.metrics == {"accuracy": 0.9, "macro_f1": 0.8}
    assert manifest.workload.config["image_size"] == SIDE
    assert imported_file(fleet, "stable") == (number, manifest.imported)
    assert ReleaseLog(fleet.releases).by_version()[number].imported == manifest.imported
    after = Checkpoints(fleet.checkpoints).latest()
    assert after.version == number
    assert {n: t.tobytes() for n, t in after.weights.items()} == {
        n: t.tobytes() for n, t in before.weights.items()
    }
    for name, entry in manifest.files.items():
        store.fetch(entry.sha256, entry.size_bytes, tmp_path / name)
    (tmp_path / "manifest.json").write_bytes(content)
    image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    frame = Frame(source="s", topic="t", stamp_ns=0, data=b"", format="rgb8", decode=lambda: image)
    logits = open_model(out / "models/model.tflite", 1)(image.astype(np.float32))
    for precision in ("fp32", "int8"):  # whichever a robot asks for
        engine = open_engine(tmp_path, precision)
        assert engine.predict(frame)[0].label == COLORS[logits.argmax()]
        np.testing.assert_array_equal(engine.answer(frame).outputs["logits"], logits)


def test_another_fleet_or_file_is_refused(result, server_dir):
    out, told = result
    fleet = of_colors(server_dir)
    onnx = {**told, "models": [{**told["models"][0], "file": "models/model.onnx"}]}
    with pytest.raises(SettingsError, match=r"prune is a \.onnx file, and robots run \.tflite"):
        publish_picked(fleet, PublishSettings(), onnx, out)
    of_colors(server_dir, labels=["red", "green", "blue"])
    with pytest.raises(SettingsError, match="the fleet learns red, green, blue, and the model ans"):
        publish_picked(fleet, PublishSettings(), told, out)
    file = server_dir.model / TRAINER
    fields = json.loads(file.read_bytes())
    fields["workload"] = {
        "name": "object-detector",
        "config": {"labels": COLORS, "image_size": 128},
    }
    file.write_text(json.dumps(fields))
    with pytest.raises(SettingsError, match="this fleet learns 'object-detector'"):
        publish_picked(fleet, PublishSettings(), told, out)
    assert imported_file(fleet, "stable")[1] == ""
