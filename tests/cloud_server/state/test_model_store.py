import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloud_server.state import model_store
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers import offer_files
from fleet_model.bundle import MANIFEST, TRAINER, read_bundle, sha256_of
from fleet_model.errors import BundleError

pytestmark = pytest.mark.base

ROOT = Path(__file__).parents[3]
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

    for module, name in (
        (model_store, "writing"), (model_store, "write_durably"), (offer_files, "write_durably"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, count(getattr(module, name)))
    try:
        store.publish(second, "stable", TINY)
    except PowerCut:
        assert writes < 3
        assert store.latest("stable").manifest == FIRST
    else:
        assert writes == 3
        assert store.latest("stable").manifest.version == 2


@pytest.fixture
def many(tmp_path):
    """Versions 1 to 6, each with a head of its own; 6 is on channel stable."""
    store = DirectoryStore(tmp_path / "many")
    for version in range(1, 7):
        publish(store, version, tmp_path / f"bundle-{version}")
    return store


def publish(store, version, bundle, channel="stable", lineage=""):
    shutil.copytree(TINY, bundle)
    head = f"the head of version {version}".encode()
    (bundle / "head.tflite").write_bytes(head)
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["version"] = version
    manifest["files"]["head.tflite"] = {"sha256": sha256_of(head), "size_bytes": len(head)}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    store.publish(bundle, channel, TINY, lineage)


def kept(store, lineage=""):
    return [manifest.version for manifest in store.versions(lineage)]


def require_whole(store, root):
    """Every version has all its files, and there are no others."""
    needed = set()
    for manifest in (one for lineage in store.lineages() for one in store.versions(lineage)):
        trainer = json.loads(store.object(manifest.trainer.sha256).read_text())
        needed |= {entry.sha256 for entry in manifest.files.values()}
        needed |= {manifest.trainer.sha256, *(e["sha256"] for e in trainer["files"].values())}
    assert {path.name for path in (root / "objects").iterdir()} == needed


def test_the_newest_versions_stay_and_the_files_of_others_go(many, tmp_path):
    assert many.prune(2) == [1, 2, 3, 4]

    assert kept(many) == [5, 6]
    require_whole(many, tmp_path / "many")
    assert many.prune(2) == []


def test_what_is_pinned_offered_or_installed_stays(many, tmp_path):
    publish(many, 7, tmp_path / "seven", channel="canary")
    publish(many, 8, tmp_path / "eight", channel="canary")
    many.pin(2)

    assert many.prune(2, also={4, 99}) == [1, 3, 5]

    assert kept(many) == [2, 4, 6, 7, 8]  # 6 is what channel stable offers
    require_whole(many, tmp_path / "many")


def test_each_lineage_keeps_its_newest_versions_and_its_pins(many, tmp_path):
    for version in (1, 2, 3, 4):
        bundle = tmp_path / f"detector-{version}"
        publish(many, version, bundle, channel="detector", lineage="detector")
    many.pin(1, "detector")
    many.pin(2)

    assert many.prune(2) == [1, 2, 3, 4]

    assert (kept(many), kept(many, "detector")) == ([2, 5, 6], [1, 3, 4])
    assert (many.pins(), many.pins("detector")) == ({2}, {1})
    require_whole(many, tmp_path / "many")
    many.offer("stable", 1, "detector")
    many.unpin(1, "detector")
    assert many.prune(2) == []
    assert many.latest("stable").manifest.version == 1
    with pytest.raises(BundleError, match="version 6 of channel detector is not published"):
        many.offer("stable", 6, "detector")


def test_a_pin_outlives_the_process_and_ends_when_it_is_taken_back(many, tmp_path):
    many.pin(1)
    many.pin(3)
    again = DirectoryStore(tmp_path / "many")
    assert again.pins() == {1, 3}
    again.unpin(1)

    assert many.prune(1) == [1, 2, 4, 5]
    assert many.pins() == {3}


def test_only_a_published_version_is_pinned_and_only_a_pinned_one_unpinned(many):
    with pytest.raises(BundleError, match="version 9 is not published; `cloud-server models list"):
        many.pin(9)
    with pytest.raises(BundleError, match="version 3 is not pinned"):
        many.unpin(3)


@pytest.mark.parametrize("content", ["", "[]", '{"versions": 3}', '{"versions": ["x"]}'])
def test_damaged_pins_delete_nothing(many, tmp_path, content):
    (tmp_path / "many" / "pins.json").write_text(content)

    with pytest.raises(BundleError, match=r"pins\.json: damaged; restore it"):
        many.prune(2)
    assert kept(many) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("part", ["manifest", "trainer"])
def test_what_a_damaged_version_needs_is_not_guessed(many, tmp_path, part):
    path = tmp_path / "many" / "versions" / "000006.json"
    if part == "trainer":
        path = many.object(FIRST.trainer.sha256)
    path.write_text("{")
    objects = len(list((tmp_path / "many" / "objects").iterdir()))

    with pytest.raises(BundleError):
        many.prune(2)
    assert len(list((tmp_path / "many" / "objects").iterdir())) == objects


@pytest.mark.parametrize("unlinks", range(9))
def test_a_crash_while_versions_are_deleted_leaves_whole_ones_and_the_next_time_ends_it(
    many, tmp_path, monkeypatch, unlinks
):
    left, unlink = unlinks, Path.unlink

    def counted(path, **options):
        nonlocal left
        if path.parent.name in ("versions", "objects"):
            left -= 1
            if left < 0:
                raise PowerCut
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", counted)
        try:
            many.prune(2)
        except PowerCut:
            assert unlinks < 8  # four manifests, four heads
    for manifest in many.versions():
        for entry in manifest.files.values():
            assert many.object(entry.sha256) is not None
    many.prune(2)

    assert kept(many) == [5, 6]
    require_whole(many, tmp_path / "many")


@pytest.mark.parametrize("name", [".abc.123.new", "ab" * 32])
def test_what_a_killed_process_wrote_for_no_version_is_deleted(many, tmp_path, name):
    (tmp_path / "many" / "objects" / name).write_bytes(b"half")

    many.prune(6)

    require_whole(many, tmp_path / "many")


def test_nothing_is_pruned_while_another_process_publishes(many, tmp_path):
    code = (
        "import sys, pathlib; from cloud_server.state.model_store import DirectoryStore\n"
        "DirectoryStore(pathlib.Path(sys.argv[1])).prune(2); print('pruned')"
    )
    with many._changing():
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "many")],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        until_it_waits_for_a_lock(child.pid)
        assert kept(many) == [1, 2, 3, 4, 5, 6]
    assert child.communicate(timeout=240)[0] == "pruned\n"
    assert kept(many) == [5, 6]


def until_it_waits_for_a_lock(pid):
    end = time.monotonic() + 240
    while f" {pid} " not in waiting_locks():
        assert time.monotonic() < end
        time.sleep(0.01)


def waiting_locks():
    return "".join(
        line for line in Path("/proc/locks").read_text().splitlines(keepends=True) if "->" in line
    )


@pytest.mark.parametrize("content", ["", "[]", '{"version": "x"}', '{"version": null}', "{}"])
def test_a_damaged_channel_is_named_and_deletes_nothing(many, tmp_path, content):
    (tmp_path / "many" / "channels" / "stable.json").write_text(content)

    for look in (many.channels, lambda: many.latest_bytes("stable"), lambda: many.prune(2)):
        with pytest.raises(BundleError, match=r"stable\.json: damaged; restore it"):
            look()
    assert kept(many) == [1, 2, 3, 4, 5, 6]


def test_versions_that_are_deleted_while_they_are_listed_are_left_out(many, monkeypatch):
    listed = many.published

    def then_pruned(lineage):
        found = listed(lineage)
        monkeypatch.setattr(many, "published", listed)
        many.prune(2)
        return found

    monkeypatch.setattr(many, "published", then_pruned)
    assert kept(many) == [5, 6]
