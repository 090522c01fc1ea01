"""What a robot trusts, read from its own files."""

import json
from datetime import timedelta

import pytest

from cloud_server.signing.keys import OfflineKeys, OnlineKeys
from cloud_server.signing.repository import Offline, SignedStore
from edge_agent.cli.status_lines import status_lines
from edge_agent.link.trust_state import trust_state
from fleet_model.protocol.proof import utc_now


@pytest.fixture
def trust(tmp_path):
    """Return a folder as SignedModels keeps it, of a channel that offline keys sign."""
    store = SignedStore(tmp_path / "store", OnlineKeys(tmp_path / "secrets"))
    keys = OfflineKeys(tmp_path / "stick", lambda _: "correct horse")
    roots = [keys.make(f"root-{number}") for number in (1, 2, 3)]
    store.sign(lambda: {"stable": b"one", "canary": b"one"}, utc_now())
    offline = Offline(roots, keys.make("release"))
    store.take_offline({"stable": b"one"}, utc_now(), offline, 2, ["stable"])
    folder, metadata = tmp_path / "trust", tmp_path / "store/metadata"
    folder.mkdir()
    for name, source in [("first", "1.root"), ("root", "2.root"), ("timestamp", "timestamp")]:
        (folder / f"{name}.json").write_bytes((metadata / f"{source}.json").read_bytes())
    return folder, sorted(one.public_key.keyid[:8] for one in roots)


def test_it_names_root_keys_and_times(trust):
    folder, keys = trust
    state = trust_state(folder)
    assert (state["root"], state["needed"], state["keys"]) == (2, 2, keys)
    today = f"{utc_now():%Y-%m-%d}"
    assert state["since"] >= today
    assert state["root_since"] >= today
    assert state["until"] > f"{utc_now() + timedelta(hours=12):%Y-%m-%d}"


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"signed": 1}', b'{"signed": {}}', b"\xff"])
def test_what_is_damaged_is_left_out(trust, damage):
    folder, _ = trust
    (folder / "timestamp.json").write_bytes(damage)
    assert "until" not in trust_state(folder)
    (folder / "root.json").write_bytes(damage)
    assert trust_state(folder) == {}
    assert trust_state(folder / "none") == {}


def answer(**signatures):
    return {
        "name": "r1", "site": "hall-1", "state": "idle", "reason": "", "paused": "",
        "active_version": 5, "idle_mb": 80.0, "peak_mb": 90.0, "rounds": [],
        "signatures": signatures,
    }  # fmt: skip


def test_status_says_it_in_words(trust):
    folder, keys = trust
    where = {"channel": "stable", "site": "hall-1", "from": "models.example"}
    said = "\n".join(
        status_lines(
            answer(
                **where,
                **trust_state(folder),
                verified_at="2026-11-30T12:00:00+00:00",
                refused="timestamp.json is older",
                rollout="version 7 in groups: halted",
                refused_at="2026-11-30T11:00:00+00:00",
            )
        )
    )
    assert "signed   channel stable, site hall-1, models from models.example" in said
    assert f"trust    root 2, signed by 2 of 3 keys ({', '.join(keys)}), since 20" in said
    assert "verified 2026-11-30 12:00 UTC; counts until 20" in said
    assert "refused  the last one, 2026-11-30 11:00 UTC: timestamp.json is older" in said
    assert "rollout  version 7 in groups: halted" in said
    said = "\n".join(status_lines(answer(**where)))
    assert "no key is trusted yet" in said
    said = "\n".join(status_lines(answer()))
    assert "signed" not in said
    json.dumps(trust_state(folder))
