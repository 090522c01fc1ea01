"""Who signed which version: told by releases.jsonl, as the signed metadata has it."""

import json
import shutil
import subprocess
import sys
from datetime import timedelta

import pytest

from cloud_server.models.release_log import ReleaseLog
from cloud_server.signing import signing
from cloud_server.signing.assignments import assign
from cloud_server.signing.keys import OfflineKeys
from cloud_server.signing.repository import Offline
from cloud_server.signing.signed_by import signatures
from cloud_server.signing.signing import offer, promote, rotate, sign, signed_store, take_offline
from cloud_server.state.model_store import DirectoryStore
from fleet_model.protocol.proof import utc_now


def told(server_dir):
    return {
        version: [(one.channel, one.role, one.key) for one in of]
        for version, of in signatures(server_dir).items()
    }


def key_of(server_dir, role):
    signed = signed_store(server_dir).files.current()[role]
    return next(iter(signed.signatures))[:8]


def publish(server_dir, version, channel="stable"):
    DirectoryStore(server_dir.store).reissue(1, version, "2026-01-01T00:00:00")
    offer(server_dir, channel, version)


@pytest.fixture
def offline(tmp_path):
    keys = OfflineKeys(tmp_path / "stick", lambda _: "correct horse")
    return Offline([keys.make(f"root-{n}") for n in (1, 2, 3)], keys.make("release"))


def test_each_version_has_its_key_role_and_time_once(server_dir):
    now = utc_now()
    sign(server_dir)
    key = key_of(server_dir, "online")
    sign(server_dir)
    publish(server_dir, 2)
    sign(server_dir, now + timedelta(days=60))  # signed again, and no news
    assert told(server_dir) == {
        1: [("stable", "online", key)],
        2: [("stable", "online", key)],
    }
    assert abs(signatures(server_dir)[2][0].at - now.timestamp()) < 600
    assert ReleaseLog(server_dir.releases).all() == []  # other lines are what they were
    _, new = rotate(server_dir, utc_now())
    assert told(server_dir)[2] == [("stable", "online", key), ("stable", "online", new)]


def test_a_channel_of_offline_keys_names_its_role_and_a_site_its_own(server_dir, offline):
    sign(server_dir)
    online = key_of(server_dir, "online")
    take_offline(server_dir, offline, 2, "stable", "canary")
    release = offline.release.public_key.keyid[:8]
    publish(server_dir, 2, "canary")
    promote(server_dir, "stable", 2, offline.release)
    assign(server_dir, "stable", "hall-1", 2, offline.release)
    now = told(server_dir)
    first = {("stable", "online", online), ("canary", "online", online)}
    assert set(now.pop(1)) == first | {("stable", "stable", release)}
    assert now == {
        2: [
            ("canary", "online", online),
            ("stable", "stable", release),
            ("stable/sites/hall-1", "stable", release),
        ],
    }


def test_what_a_kill_left_out_is_there_after_the_next_signing(server_dir, monkeypatch):
    sign(server_dir)
    monkeypatch.setattr(signing, "record", lambda *_: None)
    publish(server_dir, 2)
    assert 2 not in told(server_dir)
    monkeypatch.undo()
    sign(server_dir)
    assert told(server_dir)[2]
    server_dir.releases.unlink()  # a store that was signed before there were such lines
    sign(server_dir)
    assert set(told(server_dir)) == {2}
    with server_dir.releases.open("ab") as stream:
        stream.write(b'{"kind": "signed", "version": "x')
    sign(server_dir)
    assert set(told(server_dir)) == {2}


def test_commands_tell_it_the_same_way(server_dir):
    sign(server_dir)
    publish(server_dir, 2)
    key = key_of(server_dir, "online")

    def said(*words):
        command = [sys.executable, "-m", "cloud_server.cli", *words[:2], str(server_dir.root)]
        done = subprocess.run(
            [*command, *words[2:]],
            capture_output=True,
            text=True,
            check=True,
            env={"COLUMNS": "250", "PATH": "", "HOME": str(server_dir.root)},
        )
        return done.stdout

    assert f"{key} (online)" in said("models", "list")
    assert f"signed: stable by key {key} (role online), 20" in said("models", "show", "2")
    versions = json.loads(said("models", "list", "--json"))["versions"]
    assert [one["key"] for version in versions for one in version["signatures"]] == [key, key]
    roles = json.loads(said("keys", "status", "--json"))["roles"]
    online = next(one for one in roles if one["role"] == "online")
    assert (online["keys"], online["offers"]) == ([key], {"stable": 2})
    assert "stable: 2" in said("keys", "status")
    shutil.rmtree(server_dir.store / "targets")
    assert "stable: None" in said("keys", "status")
