import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from cloud_server.backup import backup as backup_module
from cloud_server.backup import snapshot
from cloud_server.backup.backup import back_up
from cloud_server.models.release_log import ReleaseLog
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.parts import missing_parts
from fleet_model.bundle import MANIFEST, entry_of, parse_manifest, to_json
from fleet_model.errors import SettingsError, StorageError
from fleet_model.types import Checkpoint

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"


def test_a_backup_is_for_its_owner_alone_and_takes_the_place_of_an_older_one(
    server_dir, backup_of, tmp_path
):
    (tmp_path / "fleet.tar").write_bytes(b"of yesterday")
    (tmp_path / "fleet.tar").chmod(0o644)
    file = backup_of(server_dir)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_size > 20_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet.tar", "server"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("folder", "is there and is not a file; choose another name"),
        ("pipe", "is there and is not a file"),
        ("link", "is there and is not a file"),
        ("server/fleet.tar", "is in the server directory, so the next backup would hold it"),
        ("into/fleet.tar", "is in the server directory"),
        ("nowhere/fleet.tar", "there is no such folder; is its disk mounted?"),
    ],
)
def test_a_place_that_is_not_for_a_file_is_refused(server_dir, now, tmp_path, target, words):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "into").symlink_to(server_dir.kit)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError, match=words):
        back_up(server_dir, tmp_path / target, now, str)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_server_directory_is_refused(now, tmp_path):
    with pytest.raises(SettingsError, match="not a server directory"):
        back_up(ServerDirectory(tmp_path), tmp_path / "fleet.tar", now, str)


def test_too_little_room_is_told_before_anything_is_written(server_dir, now, tmp_path, monkeypatch):
    usage = type("", (), {"free": 1 << 19})
    monkeypatch.setattr(backup_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="1 MB are needed, 0 MB are free; make room"):
        back_up(server_dir, tmp_path / "fleet.tar", now, str)
    assert not (tmp_path / "fleet.tar").exists()


def test_a_file_that_is_changed_in_place_meanwhile_ends_the_backup(
    server_dir, now, tmp_path, monkeypatch
):
    entries_of = backup_module.archive.entries_of

    def editing(files, tell):
        found = entries_of(files, tell)
        content = server_dir.settings.read_bytes()
        server_dir.settings.write_bytes(content.replace(b"port", b"PORT"))
        return found

    monkeypatch.setattr(backup_module.archive, "entries_of", editing)
    (tmp_path / "fleet.tar").write_bytes(b"of yesterday")
    with pytest.raises(StorageError, match=r"server\.toml was changed while it was read; run"):
        back_up(server_dir, tmp_path / "fleet.tar", now, str)
    assert (tmp_path / "fleet.tar").read_bytes() == b"of yesterday"


def test_a_file_that_a_tar_file_cannot_hold_is_named(server_dir, now, tmp_path):
    (server_dir.root / ("long" * 60)).write_text("")
    with pytest.raises(SettingsError, match=r"longlong.*: cannot be in a backup"):
        back_up(server_dir, tmp_path / "fleet.tar", now, str)


class Publisher:
    """Makes versions as rounds and publishing do, in their order; each has a file of its own."""

    def __init__(self, server_dir, folder):
        self.server_dir, self.folder, self.version = server_dir, folder, 1

    def publish(self):
        """Make the next version, and delete the one before with its files and its checkpoint."""
        self.version = version = self.version + 1
        checkpoints = Checkpoints(self.server_dir.checkpoints)
        store = DirectoryStore(self.server_dir.store)
        weights = {"head/bias": np.full(3, version, np.float32)}
        checkpoints.save(Checkpoint(version=version, weights=weights))
        self.server_dir.append_history({"run": "a", "round": version, "version": version})
        store.add(self._bundle(), TINY)
        ReleaseLog(self.server_dir.releases).add(version, "published", "run a")
        store.offer("stable", version)
        store.prune(keep=1)
        checkpoints.prune(1, store.published())

    def _bundle(self):
        shutil.copytree(TINY, self.folder, dirs_exist_ok=True)
        manifest, content = parse_manifest((TINY / MANIFEST).read_bytes()), b"%d" % self.version
        (self.folder / "head.tflite").write_bytes(content)
        files = {**manifest.files, "head.tflite": entry_of(content)}
        changed = manifest.model_copy(update={"version": self.version, "files": files})
        (self.folder / MANIFEST).write_bytes(to_json(changed))
        return self.folder


def test_whatever_a_backup_names_is_in_it_wherever_a_version_comes_and_goes(
    server_dir, backup_of, restored, tmp_path, monkeypatch
):
    publisher, walk, opened = Publisher(server_dir, tmp_path / "bundle"), snapshot._walk, 0

    def walking(folder, name, *rest):
        nonlocal opened
        for entry in walk(folder, name, *rest):
            yield entry
            opened += not name
            if not name and opened == place:
                publisher.publish()

    monkeypatch.setattr(snapshot, "PAUSE_S", 0)
    monkeypatch.setattr(snapshot, "_walk", walking)
    publisher.publish()
    number = len([*walk(server_dir.root, "", [], ())])
    assert number > 30
    for place in range(1, number + 1):
        opened = 0
        made = restored(backup_of(server_dir), f"{place}")
        copy = ServerDirectory(tmp_path / f"{place}")
        assert made.warnings == [], place
        assert missing_parts(copy, "stable", read=True) == {"checkpoints": [], "store": []}, place
        version, number_now = made.numbers[""]
        assert version == publisher.version == made.contents.versions[""]
        assert DirectoryStore(copy.store).channels() == {"stable": number_now}
        bits = Checkpoints(copy.checkpoints).load(number_now).weights["head/bias"]
        assert set(bits) == {version}
        assert ReleaseLog(copy.releases).by_version()[number_now].of == version
        assert copy.last_of_history()["version"] == version
