"""What is missing is made again from what is left; the export's files are those of tiny_bundle."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.models import publish as publish_module
from cloud_server.models.export import ExportResult
from cloud_server.repair import repair
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.kit import faults_of_kit
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.parts import missing_parts
from cloud_server.state.settings import load_settings
from fleet_model.bundle import MANIFEST
from fleet_model.errors import CheckpointError
from fleet_model.types import Checkpoint

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"


@pytest.fixture
def mend(server_dir, monkeypatch):
    """Return what repairs the directory: its sentences, and the versions that were exported."""
    exported = []

    def run_export(job, progress=lambda line: None, stop=lambda: False):
        exported.append(job.version)
        shutil.copytree(TINY, job.directory, dirs_exist_ok=True)
        values = json.loads((TINY / MANIFEST).read_text())
        (job.directory / MANIFEST).write_text(json.dumps({**values, "version": job.version}))
        return ExportResult(metrics={})

    monkeypatch.setattr(publish_module, "run_export", run_export)

    def call(**options):
        exported.clear()
        settings = load_settings(server_dir.settings)
        return list(repair(server_dir, settings, lambda _: None, **options)), list(exported)

    return call


def require_whole(server_dir):
    assert missing_parts(server_dir, "stable", read=True) == {"checkpoints": [], "store": []}
    assert faults_of_kit(server_dir, load_settings(server_dir.settings)) == []


def test_nothing_is_done_where_nothing_is_missing(server_dir, mend):
    def listing():
        files = (p for p in server_dir.root.rglob("*") if p.is_file() and p.name != ".lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before = listing()
    assert mend() == ([], [])
    assert listing() == before


def test_a_store_without_objects_gets_them_again_for_the_version_that_is_offered(server_dir, mend):
    shutil.rmtree(server_dir.store / "objects")
    told, exported = mend()
    assert (told, exported) == (["version 1 is exported again"], [1])
    require_whole(server_dir)


def test_a_damaged_object_is_replaced(server_dir, mend):
    for path in (server_dir.store / "objects").iterdir():
        path.write_bytes(b"?" * path.stat().st_size)
    mend()
    require_whole(server_dir)


def test_a_store_that_is_gone_gets_the_newest_checkpoint(server_dir, mend):
    shutil.rmtree(server_dir.store)
    checkpoints = Checkpoints(server_dir.checkpoints)
    checkpoints.save(Checkpoint(version=2, weights=checkpoints.latest().weights))
    told, exported = mend()
    assert (told, exported) == (["channel stable offers version 2 again"], [2])
    require_whole(server_dir)


def test_a_channel_whose_file_is_gone_offers_the_newest_version_without_an_export(server_dir, mend):
    (server_dir.store / "channels" / "stable.json").unlink()
    assert mend() == (["channel stable offers version 1 again"], [])


def test_an_older_version_that_nothing_is_left_of_is_removed(server_dir, mend):
    versions = server_dir.store / "versions"
    manifest = json.loads((versions / "000001.json").read_text())
    entry = {"sha256": "0" * 64, "size_bytes": 7}
    manifest |= {"version": 0, "files": {**manifest["files"], "head.tflite": entry}}
    (versions / "000000.json").write_text(json.dumps(manifest))
    told, exported = mend()
    assert (told, exported) == (
        ["version 0 is removed: its files and its checkpoint are gone"], [],
    )  # fmt: skip
    assert DirectoryStore(server_dir.store).published() == [1]


def test_lost_checkpoints_are_begun_again_only_when_that_is_asked_for(server_dir, mend):
    shutil.copy(TINY / "weights.safetensors", server_dir.model)
    shutil.rmtree(server_dir.checkpoints)
    with pytest.raises(CheckpointError, match="no checkpoint is left, and the trained weights"):
        mend()
    told, exported = mend(start_again=True)
    assert told == ["training begins again from the initial weights, as version 2"]
    assert exported == []  # robots keep the trained model
    assert Checkpoints(server_dir.checkpoints).latest().version == 2  # no robot has it


def test_a_kit_that_is_gone_is_written_again_with_the_labels(server_dir, mend):
    shutil.rmtree(server_dir.kit)
    told, _ = mend()
    assert told == [
        f"{server_dir.kit} is written again: copy it to robots that are still to be enrolled"
    ]
    require_whole(server_dir)
    port = load_settings(server_dir.settings).network.port
    assert (server_dir.kit / "kit.toml").read_text().splitlines()[1:] == [
        f'address = "localhost:{port}"', 'channel = "stable"',
        'labels = ["circle", "square", "star"]',
    ]  # fmt: skip


def test_the_command_says_what_it_has_done(server_dir, mend):
    run = CliRunner().invoke
    (server_dir.store / "channels" / "stable.json").unlink()
    assert run(app, ["repair", str(server_dir.root)]).stdout == (
        "channel stable offers version 1 again\n"
    )
    assert run(app, ["repair", str(server_dir.root)]).stdout == "nothing is missing\n"
