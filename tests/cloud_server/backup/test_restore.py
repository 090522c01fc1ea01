import shutil
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from cloud_server.backup import archive
from cloud_server.backup import backup as backup_module
from cloud_server.backup.restore import number_above
from cloud_server.backup.snapshot import OpenFile
from cloud_server.cli.upkeep.doctor import examine
from cloud_server.models.publish import leave_withheld
from cloud_server.models.release_log import ReleaseLog
from cloud_server.rollback import roll_back
from cloud_server.rollout.changes import Wish, begin
from cloud_server.signing.signing import sign, signed_store, unsigned
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import PublishSettings
from fleet_model.bundle import sha256_of
from fleet_model.errors import BundleError, SettingsError, StorageError
from fleet_model.protocol.proof import utc_now
from fleet_model.types import Checkpoint

HOUR = timedelta(hours=1)


@pytest.fixture
def at(tmp_path):
    """The directory that `restored` makes."""
    return ServerDirectory(tmp_path / "restored")


def files_of(root):
    return {
        str(path.relative_to(root)): (path.stat().st_mode & 0o777, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def save(server_dir, version, value=0.0, record=None):
    shapes = Checkpoints(server_dir.checkpoints).load(1).weights
    weights = {name: np.full_like(one, value) for name, one in shapes.items()}
    Checkpoints(server_dir.checkpoints).save(Checkpoint(version=version, weights=weights), record)


def same_weights(server_dir, *versions):
    first, second = (Checkpoints(server_dir.checkpoints).load(one).weights for one in versions)
    return first.keys() == second.keys() and all(
        first[name].tobytes() == second[name].tobytes() for name in first
    )


def test_the_directory_is_the_same_to_the_bit_but_for_the_new_number(
    server_dir, backup_of, restored, at
):
    before = files_of(server_dir.root)
    made = restored(backup_of(server_dir))
    after = files_of(at.root)
    changed = {name for name in after if after[name] != before.get(name)}
    (channel, version) = ("store/channels/stable.json", "store/versions/002000.json")
    parts = ("checkpoint.json", "server_state.safetensors", "weights.safetensors")
    copied = {f"checkpoints/002000/{name}" for name in parts}
    assert changed == {channel, version, "releases.jsonl", *copied}
    assert before.keys() <= after.keys()
    assert made.numbers == {"": (1, 2000)}
    assert same_weights(at, 1, 2000)
    old, new = DirectoryStore(at.store).versions()
    assert (new.version, new.files, new.trainer) == (2000, old.files, old.trainer)
    assert new.rolls_back_to is None
    assert DirectoryStore(at.store).channels() == {"stable": 2000}
    release = ReleaseLog(at.releases).newest()
    assert (release.kind, release.of, release.by) == ("rolled_back", 1, "restore")
    assert at.secrets.stat().st_mode & 0o777 == 0o700
    assert at.store.stat().st_mode & 0o777 == server_dir.store.stat().st_mode & 0o777


def test_the_doctor_finds_nothing_wrong(server_dir, backup_of, restored, at):
    restored(backup_of(server_dir))
    assert {one.state for one in examine(at, utc_now())} <= {"ok", "warn"}
    before = [(one.subject, one.state) for one in examine(server_dir, utc_now())]
    assert [(one.subject, one.state) for one in examine(at, utc_now())] == before


def test_secrets_are_private_again_whatever_they_were(server_dir, backup_of, restored, at):
    (server_dir.secrets / "ca.key").chmod(0o644)
    (server_dir.root / "seen.json").touch(0o600)
    restored(backup_of(server_dir))
    modes = {name: mode for name, (mode, _) in files_of(at.root).items()}
    assert {mode for name, mode in modes.items() if name.startswith("secrets/")} == {0o600}
    assert (modes["seen.json"], modes["server.toml"]) == (0o600, 0o644)


def test_into_an_empty_directory_and_never_over_another(server_dir, backup_of, restored, at):
    file = backup_of(server_dir)
    at.root.mkdir()
    restored(file)
    with pytest.raises(SettingsError, match="exists and is not empty; choose another directory"):
        restored(file)


def _renamed(content):
    """Return an archive that is right, but has no server.toml."""
    position = content.index(b"server.toml\0")
    header = bytearray(content[position : position + 512])
    header[10] += 1
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    wrong = content[:position] + header + content[position + 512 :]
    return wrong.replace(b'"server.toml"', b'"server.tomm"')


@pytest.mark.parametrize("what", ["cut", "damaged", "none", "not of a server"])
def test_what_cannot_be_restored_leaves_nothing_behind(
    server_dir, backup_of, restored, tmp_path, what
):
    file = backup_of(server_dir)
    whole = file.read_bytes()
    content = {
        "cut": whole[:-20_000],
        "damaged": whole.replace(b"PRIVATE", b"PRIVATF"),
        "none": b"",
        "not of a server": _renamed(whole),
    }[what]
    file.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BundleError, match=r"^fleet.tar: "):
        restored(file)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_list_with_a_file_in_a_file_is_refused(restored, tmp_path, now, names):
    (tmp_path / "x").write_bytes(b"x")
    with ExitStack() as stack, (tmp_path / "x.tar").open("wb") as stream:
        content = stack.enter_context((tmp_path / "x").open("rb", buffering=0))
        files = [OpenFile(name, content, 1) for name in names]
        entries = archive.entries_of(files, lambda _: None)
        contents = archive.Contents(created_at=now, directory="", versions={}, files=entries)
        archive.write(stream, contents, files, lambda _: None)
    with pytest.raises(BundleError, match="is a file and a folder in its list"):
        restored(tmp_path / "x.tar")
    assert {path.name for path in tmp_path.iterdir()} == {"x", "x.tar"}


def test_too_little_room_is_told_before_anything_is_written(
    server_dir, backup_of, restored, at, monkeypatch
):
    file = backup_of(server_dir)
    usage = type("", (), {"free": 0})
    monkeypatch.setattr(backup_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="MB are needed, 0 MB are free"):
        restored(file)
    assert not at.root.exists()


@pytest.mark.parametrize(
    ("used", "since_s", "number"),
    [
        (0, 0, 1000),
        (1, 0, 2000),
        (1, -30, 2000),
        (999, 0.1, 2000),
        (1000, 0, 2000),
        (41, 24 * 3600, 866_000),  # ten numbers a second
    ],
)
def test_the_next_number_is_above_all_that_a_server_can_have_reached(used, since_s, number):
    assert number_above(used, since_s) == number
    assert number >= used + 1000 + 10 * since_s


def test_a_later_restore_of_the_same_backup_is_above_an_earlier_one(
    server_dir, backup_of, restored, now
):
    file = backup_of(server_dir)
    first = restored(file, "first", now + HOUR).numbers[""][1]
    second = restored(file, "second", now + 2 * HOUR).numbers[""][1]
    assert second - first >= 36_000


def test_a_clock_before_the_backup_is_told(server_dir, backup_of, restored, now, at):
    file = backup_of(server_dir)
    with pytest.raises(SettingsError, match="2026-11-30 01:00 UTC: set the clock"):
        restored(file, now=now - HOUR)
    assert not at.root.exists()


@pytest.mark.parametrize("published", [True, False])
def test_numbers_that_were_only_published_or_told_count_too(
    server_dir, backup_of, restored, at, published
):
    if published:
        DirectoryStore(server_dir.store).reissue(1, 7001, "2026-01-01")
    else:
        ReleaseLog(server_dir.releases).add(7001, "withheld", "run a")
    assert restored(backup_of(server_dir)).numbers == {"": (7001, 9000)}
    assert Checkpoints(at.checkpoints).newest() == 9000
    assert DirectoryStore(at.store).channels() == {"stable": 9000}


def test_every_lineage_goes_on_above_its_own_numbers(server_dir, backup_of, restored, at):
    own = replace(server_dir, lineage="detector")
    shutil.copytree(server_dir.model, own.model)
    shutil.copytree(server_dir.checkpoints, own.checkpoints)
    save(own, 3100, 7.0)
    made = restored(backup_of(server_dir))
    assert made.contents.versions == {"": 1, "detector": 3100}
    assert made.numbers == {"": (1, 2000), "detector": (3100, 5000)}
    assert same_weights(replace(at, lineage="detector"), 3100, 5000)


def test_what_the_gate_withholds_is_not_what_the_next_run_begins_with(
    server_dir, backup_of, restored, at
):
    releases = ReleaseLog(server_dir.releases)
    save(server_dir, 2, 2.0)
    releases.add(2, "withheld", "run a")
    restored(backup_of(server_dir))
    assert same_weights(at, 1, 2000)
    assert ReleaseLog(at.releases).newest().version == 2000
    leave_withheld(at, "stable", "run b")
    assert Checkpoints(at.checkpoints).newest() == 2000


def test_a_rollback_after_it_has_a_number_behind_it(server_dir, backup_of, restored, at):
    DirectoryStore(server_dir.store).reissue(1, 2, "2026-01-01")
    DirectoryStore(server_dir.store).offer("stable", 2)
    save(server_dir, 2, 2.0)
    ReleaseLog(server_dir.releases).add(2, "published", "run a", after={"accuracy": 0.9})
    restored(backup_of(server_dir))
    again = ReleaseLog(at.releases).newest()
    assert (again.version, again.of, again.after) == (2000, 2, {"accuracy": 0.9})
    assert roll_back(at, PublishSettings()) == (1, 2001)
    assert DirectoryStore(at.store).channels()["stable"] == 2001


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_is_taken(
    server_dir, backup_of, restored, at
):
    save(server_dir, 2, 2.0)
    weights = Checkpoints(server_dir.checkpoints).path(2)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    made = restored(backup_of(server_dir))
    (warning,) = made.warnings
    assert warning.startswith("checkpoint 2: weights.safetensors is missing or damaged")
    assert warning.endswith("; so the one before is taken")
    assert same_weights(at, 1, Checkpoints(at.checkpoints).newest())


def test_what_was_signed_is_signed_again_above_what_robots_have_seen(
    server_dir, backup_of, restored, at
):
    sign(server_dir)
    before = signed_store(server_dir).files.current()
    restored(backup_of(server_dir))
    after = signed_store(at).files.current()
    assert after["root"].to_bytes() == before["root"].to_bytes()
    others = before.keys() - {"root"}
    assert all(after[one].signed.version > before[one].signed.version for one in others)
    assert unsigned(at, after["timestamp"].signed.expires - HOUR * 20) == []
    (target,) = after["online"].signed.targets.values()
    assert target.hashes["sha256"] == sha256_of((at.store / "versions/002000.json").read_bytes())


def test_a_lost_key_is_told(server_dir, backup_of, restored):
    sign(server_dir)
    (key,) = server_dir.secrets.glob("signing-*.key")
    key.unlink()
    (warning,) = restored(backup_of(server_dir)).warnings
    assert warning.startswith("models are not signed, robots that verify keep theirs: the key ")


def test_a_version_that_lacks_files_is_told_and_keeps_its_number(
    server_dir, backup_of, restored, at
):
    next((server_dir.store / "objects").iterdir()).unlink()
    (warning,) = restored(backup_of(server_dir)).warnings
    assert warning.startswith("version 1 keeps its number: version 1 lacks ")
    assert DirectoryStore(at.store).channels() == {"stable": 1}
    assert Checkpoints(at.checkpoints).newest() == 2001  # what is trained next is above


def test_a_damaged_channel_is_told_and_the_next_run_is_above_all_the_same(
    server_dir, backup_of, restored, at
):
    (server_dir.store / "channels" / "stable.json").write_text("{")
    (warning,) = restored(backup_of(server_dir)).warnings
    assert warning.startswith(f"channels offer what they did: {at.store}/channels/stable.json")
    assert Checkpoints(at.checkpoints).newest() == 2000


def test_the_next_round_begins_with_what_was_trained_last(server_dir, backup_of, restored, at):
    """In the middle of a run robots do not have the newest checkpoint yet."""
    save(server_dir, 2, 2.0)
    made = restored(backup_of(server_dir))
    assert made.numbers == {"": (2, 2000)}
    assert DirectoryStore(at.store).channels() == {"stable": 2000}
    assert same_weights(at, 1, 2000)
    assert Checkpoints(at.checkpoints).newest() == 2001
    assert same_weights(at, 2, 2001)
    release = ReleaseLog(at.releases).newest()
    assert (release.version, release.kind, release.of) == (2001, "returned", 2)


def test_every_channel_offers_the_same_model_as_before(server_dir, backup_of, restored, at):
    store = DirectoryStore(server_dir.store)
    store.reissue(1, 2, "2026-01-01")
    save(server_dir, 2, 2.0)
    for channel, version in {"stable": 1, "canary": 2, "test": 2}.items():
        store.offer(channel, version)
    restored(backup_of(server_dir))
    assert DirectoryStore(at.store).channels() == {"stable": 2000, "canary": 2001, "test": 2001}
    assert (same_weights(at, 1, 2000), same_weights(at, 2, 2001)) == (True, True)
    assert Checkpoints(at.checkpoints).newest() == 2001


def test_a_rollout_that_the_server_signs_is_left_behind(server_dir, backup_of, restored, at):
    store = DirectoryStore(server_dir.store)
    store.reissue(1, 2, "2026-01-01")
    save(server_dir, 2, 2.0)
    sign(server_dir)
    begin(server_dir, "stable", 2, Wish(("10%", "100%"), 0.2, 60.0))
    made = restored(backup_of(server_dir))
    assert made.warnings == [
        "the rollout of version 2 on channel stable is ended, its robots get what the channel "
        "offers; `cloud-server models promote DIR VERSION --groups 10%,100%` begins another one"
    ]
    assert DirectoryStore(at.store).offers() == {"stable": (2000, "")}
    targets = signed_store(at).files.current()["online"].signed.targets
    assert list(targets) == ["stable/manifest.json"]


def test_a_directory_without_checkpoints_is_restored_as_it_was(server_dir, backup_of, restored, at):
    shutil.rmtree(server_dir.checkpoints)
    made = restored(backup_of(server_dir))
    assert made.warnings == ["the directory has no checkpoint"]
    assert not at.checkpoints.exists()


def test_a_round_that_closed_just_before_is_in_the_history(server_dir, backup_of, restored, at):
    record = RoundRecord(run="a", round=1, version=2, seconds=1.0, robots=(), metrics={})
    save(server_dir, 2, 2.0, record)
    restored(backup_of(server_dir))
    assert at.last_of_history()["version"] == 2
