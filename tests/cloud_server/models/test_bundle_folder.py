"""A published version as a folder: what robots install, byte for byte, and whole or not at all."""

import pytest

from cloud_server.models.bundle_folder import export_bundle
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import MANIFEST, TRAINER, read_bundle
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError, SettingsError


def test_the_folder_has_the_manifest_as_published_and_every_file_that_it_names(
    server_dir, tmp_path
):
    folder = tmp_path / "bundle"
    assert export_bundle(server_dir, None, folder) == 1
    assert (folder / MANIFEST).read_bytes() == DirectoryStore(server_dir.store).require(1)
    manifest = read_bundle(folder)
    assert {one.name for one in folder.iterdir()} == {MANIFEST, TRAINER, *manifest.files}
    assert TFLiteEngine(folder).manifest.version == 1
    assert not (tmp_path / ".bundle.new").exists()


@pytest.mark.parametrize(
    ("version", "name", "error", "words"),
    [
        (7, "new", BundleError, "version 7 is not published"),
        (1, "there", SettingsError, "is there already; name a new folder"),
        (1, "none/new", SettingsError, "the folder that it would be in is not there"),
    ],
)
def test_what_would_fail_is_found_before_the_work(
    server_dir, tmp_path, version, name, error, words
):
    (tmp_path / "there").mkdir()
    with pytest.raises(error, match=words):
        export_bundle(server_dir, version, tmp_path / name)


def test_a_store_that_lacks_a_file_gives_no_folder(server_dir, tmp_path):
    store = DirectoryStore(server_dir.store)
    entry = next(iter(store.versions()[0].files.values()))
    (server_dir.store / "objects" / entry.sha256).unlink()
    with pytest.raises(BundleError, match="is not in the store"):
        export_bundle(server_dir, 1, tmp_path / "bundle")
    assert not {"bundle", ".bundle.new"} & {one.name for one in tmp_path.iterdir()}
