"""Bringing what robots fetch to another place: every moment of it is one that robots accept."""

import json
import subprocess
import sys
from datetime import timedelta

import pytest

from cloud_server.rollout.changes import Wish, advance, begin
from cloud_server.signing.signing import offer, sign
from cloud_server.signing.sync import LAST, Folder, destination_of, sync
from cloud_server.state.model_store import DirectoryStore
from fleet_model.errors import BundleError, SettingsError, StorageError
from fleet_model.protocol.proof import utc_now


class Cut(Folder):
    """Ends after a number of changes, as a process that is killed."""

    class KilledError(Exception):
        pass

    def __init__(self, root, most):
        super().__init__(root)
        self.left, self.names = most, []

    def _change(self, name):
        if self.left == 0:
            raise self.KilledError
        self.left -= 1
        self.names.append(name)

    def put(self, name, content):
        self._change(name)
        super().put(name, content)

    def remove(self, name):
        self._change(name)
        super().remove(name)


def seen(folder):
    """Return the version that robots get from a folder; None before the first; fail if cut."""
    if not (folder / LAST).exists():
        return None

    def signed(name):
        return json.loads((folder / "metadata" / name).read_bytes())["signed"]

    snapshot = signed(
        f"{signed('timestamp.json')['meta']['snapshot.json']['version']}.snapshot.json"
    )
    for name, meta in snapshot["meta"].items():
        role = signed(f"{meta['version']}.{name}")
        for path, target in role["targets"].items():
            channel, _, file = path.partition("/")
            manifest = folder / "targets" / channel / f"{target['hashes']['sha256']}.{file}"
            found = json.loads(manifest.read_bytes())
            for entry in [*found["files"].values(), found["trainer"]]:
                size = (folder / "objects" / entry["sha256"]).stat().st_size
                assert size == entry["size_bytes"]
            version = found["version"]
    assert (folder / "metadata/1.root.json").exists()
    return version


def publish(server, version):
    DirectoryStore(server.store).reissue(1, version, "2026-01-01T00:00:00")
    offer(server, "stable", version)


def test_cut_after_any_change_robots_see_the_old_version_or_the_new_one(server_dir, tmp_path):
    sign(server_dir)
    whole = Cut(tmp_path / "whole", -1)
    sync(server_dir, whole)
    assert whole.names[-1] == LAST
    folder = tmp_path / "served"
    for most in range(len(whole.names)):
        with pytest.raises(Cut.KilledError):
            sync(server_dir, Cut(tmp_path / f"a{most}", most))
        assert seen(tmp_path / f"a{most}") is None
    sync(server_dir, Folder(folder))
    assert seen(folder) == 1
    before = len(list(folder.rglob("*.json")))
    most, versions = 0, set()
    publish(server_dir, 2)
    while True:
        again = Cut(folder, most)
        try:
            sync(server_dir, again)
            break
        except Cut.KilledError:
            versions.add(seen(folder))
            most += 1
    assert versions <= {1, 2}
    assert seen(folder) == 2
    assert len(list(folder.rglob("*.json"))) >= before
    done = sync(server_dir, Folder(folder))
    assert (done.brought, done.removed) == (0, 0)
    assert done.until > f"{utc_now() + timedelta(hours=11):%Y-%m-%d %H:%M}"


def test_what_no_signature_names_goes_and_what_is_not_ours_stays(server_dir, tmp_path):
    folder = tmp_path / "served"
    sync(server_dir, Folder(folder))
    gone = folder / "objects" / ("0" * 64)
    for name in ("objects/README", "metadata/notes.txt", "index.html"):
        (folder / name).write_text("mine")
    gone.write_text("old")
    half = folder / "objects" / f".{'1' * 64}.4194305.new"
    half.write_text("half")
    done = sync(server_dir, Folder(folder))
    assert done.removed == 1
    assert not gone.exists()
    assert not half.exists()
    assert (folder / "objects/README").read_text() == "mine"
    assert (folder / "metadata/notes.txt").exists()


def test_what_was_damaged_or_lost_there_is_brought_again(server_dir, tmp_path):
    folder = tmp_path / "served"
    sync(server_dir, Folder(folder))
    one = next((folder / "objects").iterdir())
    one.write_bytes(b"")
    next((folder / "targets").glob("*/*.json")).unlink()
    (folder / LAST).write_bytes(b"{}")
    assert sync(server_dir, Folder(folder)).brought >= 3
    assert seen(folder) == 1


def test_an_object_that_is_lost_here_is_told_before_anything_is_changed(server_dir, tmp_path):
    sign(server_dir)
    store = DirectoryStore(server_dir.store)
    lost = next(iter(store.latest("stable").manifest.files.values())).sha256
    store.object(lost).unlink()
    with pytest.raises(BundleError, match=r"objects/\w+ is missing here.*cloud-server repair DIR"):
        sync(server_dir, Folder(tmp_path / "served"))
    assert not (tmp_path / "served" / LAST).exists()


def test_of_a_state_before_nothing_needs_to_be_here_any_more(server_dir, tmp_path):
    sign(server_dir)
    publish(server_dir, 2)
    before = next(
        file for file in (server_dir.store / "targets/stable").iterdir()
        if json.loads(file.read_bytes())["version"] == 1
    )  # fmt: skip
    about = json.loads(before.read_bytes())
    about["files"]["head.tflite"]["sha256"] = "0" * 64  # pruned since
    before.write_text(json.dumps(about))
    sync(server_dir, Folder(tmp_path / "served"))
    assert seen(tmp_path / "served") == 2


def test_places_that_are_none(server_dir, tmp_path):
    def of(where):
        return destination_of(where, {}, server_dir.store)

    with pytest.raises(SettingsError, match="is the store itself"):
        of(str(server_dir.store))
    with pytest.raises(SettingsError, match="nothing can be written there"):
        of("https://models.example/fleet")
    with pytest.raises(SettingsError, match="nosuch"):
        of("nosuch://models/fleet")
    with pytest.raises(SettingsError, match=r"pip install 'fleetlearn\[bucket\]'"):
        of("gs://models/fleet")  # needs a package that is not installed here
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        sync(server_dir, of(f"{tmp_path}/file"))
    assert isinstance(of(f"file://{tmp_path}/x"), Folder)


def test_the_command_says_what_it_did_and_until_when_it_counts(server_dir, tmp_path):
    command = [sys.executable, "-m", "cloud_server.cli", "models", "sync", str(server_dir.root)]
    done = subprocess.run(
        [*command, str(tmp_path / "served")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "files brought" in done.stdout
    assert "counts until 20" in done.stdout
    assert seen(tmp_path / "served") == 1
    done = subprocess.run(
        [*command, "s3://x/y", "--option", "anon"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("expected KEY=VALUE")) == (2, 1)


def test_a_rollout_comes_along_with_all_that_its_robots_need(server_dir, tmp_path):
    store, there = DirectoryStore(server_dir.store), tmp_path / "there"
    store.reissue(1, 2, "2026-01-01T00:00:00")
    sign(server_dir)
    begin(server_dir, "stable", 2, Wish(("10%", "100%"), 0.2, 60.0))
    sync(server_dir, Folder(there))
    targets = there / "targets/stable"
    for name in ("*.plan.json", "*.stage.json", "next/*.manifest.json", "fallback/*.manifest.json"):
        assert len(list(targets.glob(name))) == 1
    advance(server_dir, "stable")
    sync(server_dir, Folder(there))  # the stage of before stays for robots between two states
    stages = [json.loads(file.read_bytes())["open"] for file in targets.glob("*.stage.json")]
    assert sorted(stages) == [1, 2]
