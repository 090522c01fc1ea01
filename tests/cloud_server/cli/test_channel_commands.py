import json

import pytest
from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.state.model_store import DirectoryStore
from fleet_model.errors import BundleError, SettingsError


def run(*words):
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


@pytest.fixture
def store(server_dir):
    store = DirectoryStore(server_dir.store)
    for version in (2, 3):
        store.reissue(1, version, "2026-01-01T00:00:00")
    return store


def listed(server_dir):
    return json.loads(run("models", "list", server_dir.root, "--json").stdout)["assigned"]


def test_a_site_gets_a_version_and_follows_the_channel_again(server_dir, store):
    done = run("models", "assign", server_dir.root, 2, "--site", "hall-1")
    assert (
        "robots of site hall-1 on channel stable get version 2; the register has 0" in done.stdout
    )
    assert listed(server_dir) == {"stable/sites/hall-1": 2}
    assert "stable/sites/hall-1" in run("models", "list", server_dir.root).stdout
    done = run("models", "unassign", server_dir.root, "--site", "hall-1")
    assert "robots of site hall-1 get what channel stable offers" in done.stdout
    assert listed(server_dir) == {}


def test_without_offline_keys_a_version_is_promoted_too(server_dir, store):
    assert "channel stable offers version 2" in run("models", "promote", server_dir.root, 2).stdout
    assert store.channels() == {"stable": 2}
    with pytest.raises(BundleError, match="offers version 2, and numbers never go back"):
        run("models", "promote", server_dir.root, 1)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ("10%", "the last group is not all robots; end with 100%"),
        ("10%,ten,100%", "'ten': expected a share as 10%, or a site as site:hall-1"),
        ("50%,10%,100%", "shares must grow"),
    ],
)
def test_groups_that_are_none_are_refused(server_dir, store, groups, words):
    with pytest.raises(SettingsError, match=f"--groups {groups}: .*{words}"):
        run("models", "promote", server_dir.root, 2, "--groups", groups)


def test_a_rollout_by_commands(server_dir, store):
    assert "no rollout yet" in run("rollout", "status", server_dir.root).stdout
    begun = run("models", "promote", server_dir.root, 2, "--groups", "10%, site:yard,100%")
    assert "version 2 goes to 10% of the robots on channel stable first" in begun.stdout
    assert "taken back, version 1 becomes version 4" in begun.stdout
    assert "advancing, 2 of 3 groups open" in run("rollout", "advance", server_dir.root).stdout
    assert "halted, 2 of 3" in run("rollout", "halt", server_dir.root).stdout
    told = run("rollout", "status", server_dir.root).stdout
    assert "is HALTED" in told
    assert f"cloud-server rollout abort {server_dir.root} --channel stable" in told
    assert "advancing" in run("rollout", "resume", server_dir.root).stdout
    (shown,) = json.loads(run("rollout", "status", server_dir.root, "--json").stdout)
    assert (shown["state"], shown["open"], shown["next"], shown["robots"]) == (
        "advancing",
        2,
        2,
        [],
    )
    aborted = run("rollout", "abort", server_dir.root).stdout
    assert "all robots get version 4" in aborted
    with pytest.raises(SettingsError, match="is aborted"):
        run("rollout", "resume", server_dir.root)
    assert store.channels() == {"stable": 4}


def test_where_offline_keys_sign_they_are_asked_for(server_dir, store, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUD_SERVER_PASSPHRASE", "correct horse battery")
    text = server_dir.settings.read_text().replace('channel = "stable"', 'channel = "canary"')
    server_dir.settings.write_text(text)
    run("keys", "init", server_dir.root, "--offline", tmp_path / "usb")
    with pytest.raises(SettingsError, match="channel stable is signed by offline keys: name their"):
        run("models", "assign", server_dir.root, 2, "--site", "hall-1")
    run("models", "assign", server_dir.root, 2, "--site", "hall-1", "--keys", tmp_path / "usb")
    assert listed(server_dir) == {"stable/sites/hall-1": 2}
    canary = ("--site", "yard", "--channel", "canary")
    with pytest.raises(SettingsError, match="leave --keys away"):
        run("models", "assign", server_dir.root, 3, *canary, "--keys", tmp_path / "usb")
    run("models", "assign", server_dir.root, 3, *canary)
    assert listed(server_dir) == {"canary/sites/yard": 3, "stable/sites/hall-1": 2}
    run("models", "unassign", server_dir.root, "--site", "hall-1", "--keys", tmp_path / "usb")
    assert listed(server_dir) == {"canary/sites/yard": 3}
