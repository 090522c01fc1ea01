import json
import shutil

import pytest
from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.signing.signing import offer, sign
from cloud_server.state.kit import faults_of_kit
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import load_settings
from fleet_model.errors import BundleError, SettingsError


def run(*words):
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


def status(server_dir):
    return json.loads(run("keys", "status", server_dir.root, "--json").stdout)


def test_a_server_that_never_signed_says_so_and_one_command_signs(server_dir):
    before = status(server_dir)
    assert before["roles"] == []
    assert "models are not signed (root, " in before["wrong"][0]
    assert (
        f"`cloud-server start {server_dir.root}` signs"
        in run("keys", "status", server_dir.root).stdout
    )

    assert run("keys", "init", server_dir.root).exit_code == 0

    after = status(server_dir)
    assert after["wrong"] == []
    assert {one["role"] for one in after["roles"]} == {
        "root", "targets", "online", "snapshot", "timestamp",
    }  # fmt: skip
    (key,) = server_dir.secrets.glob("signing-*.key")
    assert {tuple(one["keys"]) for one in after["roles"]} == {(key.stem.partition("-")[2],)}
    assert faults_of_kit(server_dir, load_settings(server_dir.settings, {})) == []
    with pytest.raises(SettingsError, match="models are signed already"):
        run("keys", "init", server_dir.root)


def test_the_status_says_who_controls_the_robots(server_dir):
    run("keys", "init", server_dir.root)
    told = run("keys", "status", server_dir.root)
    assert "timestamp" in told.stdout
    assert "who takes this server controls which" in told.output


def test_a_new_key_takes_the_place_of_the_old_one_and_the_kit_has_its_root(server_dir):
    run("keys", "init", server_dir.root)
    (old,) = server_dir.secrets.glob("signing-*.key")
    assert "is deleted" in run("keys", "rotate", server_dir.root).output
    (new,) = server_dir.secrets.glob("signing-*.key")
    assert old.name != new.name
    assert status(server_dir)["wrong"] == []
    root = (server_dir.store / "metadata/2.root.json").read_bytes()
    assert (server_dir.kit / "root.json").read_bytes() == root


def test_a_kit_with_another_root_or_none_is_a_fault(server_dir, tmp_path):
    run("keys", "init", server_dir.root)
    settings = load_settings(server_dir.settings, {})
    (server_dir.kit / "root.json").write_bytes(b"{}")
    assert "root.json has other keys" in faults_of_kit(server_dir, settings)[0]
    (server_dir.kit / "root.json").unlink()
    assert "root.json is missing" in faults_of_kit(server_dir, settings)[0]


def test_without_its_key_the_status_names_the_file(server_dir):
    run("keys", "init", server_dir.root)
    (key,) = server_dir.secrets.glob("signing-*.key")
    shutil.move(key, server_dir.root / "away")
    assert f"restore {key.name} from a backup" in status(server_dir)["wrong"][0]


# ------------------------------------------------------------------------------- offline keys


@pytest.fixture
def usb(server_dir, tmp_path, monkeypatch):
    """A stick, and a server whose runs publish on canary."""
    monkeypatch.setenv("CLOUD_SERVER_PASSPHRASE", "correct horse battery")
    text = server_dir.settings.read_text().replace('channel = "stable"', 'channel = "canary"')
    server_dir.settings.write_text(text)
    return tmp_path / "usb"


def reissue(server_dir, version):
    DirectoryStore(server_dir.store).reissue(1, version, "2026-01-01T00:00:00")


def offers(server_dir):
    return DirectoryStore(server_dir.store).channels()


def test_offline_keys_take_stable_over_and_promotions_need_them(server_dir, usb):
    assert run("keys", "init", server_dir.root, "--offline", usb).exit_code == 0
    names = {"root-1.key", "root-2.key", "root-3.key", "release.key"}
    assert {file.name for file in usb.iterdir()} == names
    told = status(server_dir)
    assert told["wrong"] == []
    places = {one["role"]: one["place"] for one in told["roles"]}
    assert places == {
        "root": "both", "targets": "both", "stable": "offline", "online": "secrets/",
        "snapshot": "secrets/", "timestamp": "secrets/",
    }  # fmt: skip
    shown = run("keys", "status", server_dir.root).output
    assert "who takes this server controls no robot on channel stable" in shown
    assert offers(server_dir) == {"stable": 1, "canary": 1}
    assert 'channel = "stable"' in (server_dir.kit / "kit.toml").read_text()
    assert faults_of_kit(server_dir, load_settings(server_dir.settings, {})) == []

    reissue(server_dir, 5)
    with pytest.raises(SettingsError, match="channel stable is signed by offline keys"):
        offer(server_dir, "stable", 5)
    offer(server_dir, "canary", 5)
    assert offers(server_dir) == {"stable": 1, "canary": 5}
    assert run("models", "promote", server_dir.root, 5, "--keys", usb).exit_code == 0
    assert offers(server_dir) == {"stable": 5, "canary": 5}
    with pytest.raises(BundleError, match="offers version 5, and numbers never go back"):
        run("models", "promote", server_dir.root, 1, "--keys", usb)
    with pytest.raises(BundleError, match="version 9 is not published"):
        run("models", "promote", server_dir.root, 9, "--keys", usb)


def test_a_channels_file_that_says_else_is_corrected(server_dir, usb):
    """As after a promotion that was cut short, or by somebody's hand."""
    run("keys", "init", server_dir.root, "--offline", usb)
    reissue(server_dir, 5)
    run("models", "promote", server_dir.root, 5, "--keys", usb)
    DirectoryStore(server_dir.store).offer("stable", 1)
    sign(server_dir)
    assert offers(server_dir)["stable"] == 5


def test_offline_keys_renew_and_change_the_servers_key(server_dir, usb):
    run("keys", "init", server_dir.root, "--offline", usb)
    before = {one["role"]: one["version"] for one in status(server_dir)["roles"]}
    assert run("keys", "renew", server_dir.root, "--keys", usb).exit_code == 0
    after = {one["role"]: one["version"] for one in status(server_dir)["roles"]}
    assert all(after[role] > before[role] for role in before)
    with pytest.raises(SettingsError, match="name the folder that has them: --keys KEYS"):
        run("keys", "rotate", server_dir.root)
    assert run("keys", "rotate", server_dir.root, "--keys", usb).exit_code == 0
    assert status(server_dir)["wrong"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--threshold", "4"), "--threshold 4: there are 3 root keys"),
        (("--channel", "canary"), "runs publish on channel canary, and they have no offline key"),
        (("--channel", "beta"), "channel beta offers nothing"),
    ],
)
def test_what_cannot_be_offline_is_told(server_dir, usb, words, message):
    with pytest.raises(SettingsError, match=message):
        run("keys", "init", server_dir.root, "--offline", usb, *words)


def test_offline_keys_are_not_made_on_the_server_nor_with_a_short_passphrase(
    server_dir, usb, monkeypatch
):
    with pytest.raises(SettingsError, match="is on the server"):
        run("keys", "init", server_dir.root, "--offline", server_dir.root / "keys")
    monkeypatch.setenv("CLOUD_SERVER_PASSPHRASE", "short")
    with pytest.raises(SettingsError, match="has 5 characters, expected at least 12"):
        run("keys", "init", server_dir.root, "--offline", usb)
    assert not usb.exists()


def test_a_wrong_passphrase_changes_nothing(server_dir, usb, monkeypatch):
    run("keys", "init", server_dir.root, "--offline", usb)
    before = status(server_dir)
    monkeypatch.setenv("CLOUD_SERVER_PASSPHRASE", "another word of length")
    for words in (("models", "promote", server_dir.root, 1), ("keys", "renew", server_dir.root)):
        with pytest.raises(SettingsError, match="the passphrase is another, or it is damaged"):
            run(*words, "--keys", usb)
    assert status(server_dir) == before
