import json
import shutil
from pathlib import Path

import pytest

from cloud_server.state import model_store
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import MANIFEST, TRAINER, read_bundle, sha256_of
from fleet_model.errors import BundleError

pytestmark = pytest.mark.base

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
FIRST = read_bundle(TINY)


@pytest.fixture
def store(tmp_path):
    store = DirectoryStore(tmp_path / "store")
    store.publish(TINY, "stable", TINY)
    return store


@pytest.fixture
def second(tmp_path):
    """A bundle of version 2 with another head."""
    bundle = shutil.copytree(TINY, tmp_path / "second")
    (bundle / "head.tflite").write_bytes(b"another head")
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["version"] = 2
    manifest["files"]["head.tflite"] = {"sha256": sha256_of(b"another head"), "size_bytes": 12}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    return bundle


def test_nothing_is_offered_before_something_is_published(tmp_path):
    store = DirectoryStore(tmp_path)

    assert store.latest("stable") is None
    assert store.latest_bytes("stable") is None
    assert store.versions() == []
    assert store.channels() == {}
    assert store.object("0" * 64) is None


def test_what_is_published_is_offered_byte_for_byte(store):
    assert store.latest_bytes("stable") == (TINY / MANIFEST).read_bytes()
    assert store.latest("stable").manifest == FIRST
    assert store.latest("canary") is None


def test_every_file_can_be_fetched_by_content(store, tmp_path):
    trainer = json.loads((TINY / TRAINER).read_text())
    entries = {**FIRST.files, TRAINER: FIRST.trainer}
    for name in trainer["files"]:
        content = (TINY / name).read_bytes()
        assert store.object(sha256_of(content)).read_bytes() == content

    for name, entry in entries.items():
        into = tmp_path / "robot" / name
        assert store.fetch(entry.sha256, entry.size_bytes, into) == entry.size_bytes
        assert into.read_bytes() == (TINY / name).read_bytes()


def test_a_newer_version_takes_the_channel_and_the_old_one_stays_in_the_list(store, second):
    store.publish(second, "stable", TINY)

    assert store.latest("stable").manifest.version == 2
    assert [manifest.version for manifest in store.versions()] == [1, 2]
    assert store.channels() == {"stable": 2}


def test_channels_move_by_themselves(store, second):
    store.publish(second, "canary", TINY)

    assert store.channels() == {"canary": 2, "stable": 1}


def test_files_that_two_versions_share_are_stored_once(store, second, tmp_path):
    before = len(list((tmp_path / "store" / "objects").iterdir()))

    store.publish(second, "stable", TINY)

    assert len(list((tmp_path / "store" / "objects").iterdir())) == before + 1


def test_an_object_that_was_tampered_with_is_not_handed_out(store, tmp_path):
    entry = FIRST.files["head.tflite"]
    path = store.object(entry.sha256)
    path.write_bytes(b"x" * entry.size_bytes)

    with pytest.raises(BundleError, match="sha256 is"):
        store.fetch(entry.sha256, entry.size_bytes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_publishing_again_repairs_a_damaged_object(store, tmp_path):
    entry = FIRST.files["head.tflite"]
    store.object(entry.sha256).write_bytes(b"damaged")

    store.publish(TINY, "stable", TINY)

    assert store.fetch(entry.sha256, entry.size_bytes, tmp_path / "out") == entry.size_bytes


def test_an_object_that_is_not_there_is_named(store, tmp_path):
    with pytest.raises(BundleError, match="object 000000000000 is not in the store"):
        store.fetch("0" * 64, 1, tmp_path / "out")


@pytest.mark.parametrize("name", ["head.tflite", TRAINER])
def test_a_bundle_whose_file_was_changed_is_not_published(store, second, name):
    (second / name).write_bytes(b"{}")

    with pytest.raises(BundleError, match=name):
        DirectoryStore(second.parent / "new").publish(second, "stable", TINY)
    assert not (second.parent / "new" / "channels").exists()


def test_a_trainer_file_that_is_missing_keeps_the_bundle_unpublished(second, tmp_path):
    with pytest.raises(BundleError, match="missing"):
        DirectoryStore(tmp_path / "new").publish(second, "stable", tmp_path / "nowhere")
    assert DirectoryStore(tmp_path / "new").latest("stable") is None


class PowerCut(BaseException):
    """Nothing after this runs."""


@pytest.mark.parametrize("writes", range(4))
def test_a_crash_before_the_channel_is_written_leaves_the_old_version(
    store, second, monkeypatch, writes
):
    """Version 2 makes three writes: its head, its manifest, the channel."""
    left = writes

    def count(function):
        def counted(*arguments):
            nonlocal left
            left -= 1
            if left < 0:
                raise PowerCut
            return function(*arguments)

        return counted

    for name in ("writing", "write_durably"):
        monkeypatch.setattr(model_store, name, count(getattr(model_store, name)))
    try:
        store.publish(second, "stable", TINY)
    except PowerCut:
        assert writes < 3
        assert store.latest("stable").manifest == FIRST
    else:
        assert writes == 3
        assert store.latest("stable").manifest.version == 2
