"""Offline keys: whoever has all of the server changes no robot on a channel that they sign."""

import pytest
from securesystemslib.signer import CryptoSigner
from stock_client import Client
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from cloud_server.signing.keys import OfflineKeys, OnlineKeys
from cloud_server.signing.repository import Offline, SignedStore
from cloud_server.signing.roles import LIFETIME
from cloud_server.signing.signing import unsigned
from cloud_server.state.directory import ServerDirectory
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import utc_now

OFFERS = {"stable": b"one", "canary": b"two"}


@pytest.fixture
def keys(tmp_path):
    return OfflineKeys(tmp_path / "usb", lambda name: f"secret of {name}")


@pytest.fixture
def store(tmp_path):
    return SignedStore(tmp_path / "store", OnlineKeys(tmp_path / "secrets"))


@pytest.fixture
def client(store, tmp_path):
    """A client from before the change."""
    store.sign(lambda: OFFERS, utc_now())
    client = Client(tmp_path / "store", tmp_path / "client")
    assert client.look() == b"one"
    return client


def take_offline(store, keys, offers=OFFERS):
    roots = [keys.make(f"root-{number}") for number in (1, 2, 3)]
    offline = Offline(roots, keys.make("release"))
    store.take_offline(offers, utc_now(), offline, 2, ["stable"])
    return offline


def newest(store, role):
    return store.files.current()[role]


def test_a_client_from_before_follows_and_promotions_reach_it(store, keys, client):
    take_offline(store, keys)
    assert (client.look(), client.look("canary")) == (b"one", b"two")
    store.sign(lambda: {"stable": b"ignored", "canary": b"three"}, utc_now())
    assert (client.look(), client.look("canary")) == (b"one", b"three")
    store.change(OFFERS, utc_now(), {"stable": b"four"}, keys.load("release"))
    assert client.look() == b"four"


def test_who_has_the_server_changes_nothing_on_stable(store, keys, client, tmp_path):
    take_offline(store, keys)
    assert client.look() == b"one"
    (online,) = OnlineKeys(tmp_path / "secrets").load().values()
    bad = TargetFile.from_data("stable/manifest.json", b"bad", ["sha256"])
    for role in ("stable", "targets", "online"):
        forged = newest(store, role)
        forged.signed.version += 1
        forged.signed.targets["stable/manifest.json"] = bad
        forged.sign(online)
        folder = tmp_path / "store/metadata"
        forged.to_file(str(folder / f"{forged.signed.version}.{role}.json"))
        snapshot, timestamp = newest(store, "snapshot"), newest(store, "timestamp")
        snapshot.signed.meta[f"{role}.json"] = MetaFile(forged.signed.version)
        snapshot.signed.version += 1
        snapshot.sign(online)
        snapshot.to_file(str(folder / f"{snapshot.signed.version}.snapshot.json"))
        timestamp.signed.snapshot_meta.version = snapshot.signed.version
        timestamp.signed.version += 1
        timestamp.sign(online)
        before = (folder / "timestamp.json").read_bytes()
        timestamp.to_file(str(folder / "timestamp.json"))
        if role == "online":
            assert client.look() == b"one"
        else:
            with pytest.raises(UnsignedMetadataError):
                Client(tmp_path / "store", tmp_path / f"of {role}").look()
        (folder / "timestamp.json").write_bytes(before)


def test_a_root_needs_two_of_three_keys(store, keys, client, tmp_path):
    take_offline(store, keys)
    root = newest(store, "root").signed
    assert (root.roles["root"].threshold, len(root.roles["root"].keyids)) == (2, 3)
    root.version += 1
    path = str(tmp_path / f"store/metadata/{root.version}.root.json")
    alone = Metadata(root)
    alone.sign(keys.load("root-2"))
    alone.to_file(path)
    with pytest.raises(UnsignedMetadataError):
        client.look()
    alone.sign(keys.load("root-3"), append=True)  # the first one is lost
    alone.to_file(path)
    assert client.look() == b"one"


def test_only_the_release_key_promotes(store, keys, client):
    take_offline(store, keys)
    for channel, key in (("stable", keys.load("root-1")), ("canary", keys.load("release"))):
        with pytest.raises(SettingsError, match=f"does not sign for channel {channel}"):
            store.change(OFFERS, utc_now(), {channel: b"bad"}, key)


def test_the_server_signs_what_it_may_and_tells_of_the_rest(store, keys, client, tmp_path):
    take_offline(store, keys)
    now, before = utc_now(), store.files.current()
    later = now + LIFETIME["targets"] * 0.8
    store.sign(lambda: OFFERS, later)
    after = store.files.current()
    renewed = {role for role in after if after[role].signed.version > before[role].signed.version}
    assert renewed == {"online", "snapshot", "timestamp"}
    told = unsigned(ServerDirectory(tmp_path), later)
    assert len(told) == 3
    assert all(any(f"signature of {role} " in one for one in told) for role in ("root", "stable"))


def test_it_is_done_once_and_of_a_channel_that_offers_something(store, keys, client):
    with pytest.raises(SettingsError, match="channel stable offers nothing"):
        take_offline(store, keys, {"canary": b"two"})
    take_offline(store, keys)
    with pytest.raises(SettingsError, match="offline keys sign already"):
        take_offline(store, keys)


def test_offline_keys_are_encrypted_and_their_owners_alone(keys, tmp_path):
    keys.make("release")
    file = tmp_path / "usb/release.key"
    assert b"ENCRYPTED" in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    for other in (OfflineKeys(tmp_path / "usb", lambda name: "guess"),):
        with pytest.raises(SettingsError, match=r"release\.key: cannot be used \(the passphrase"):
            other.load("release")
    assert keys.load("release").public_key == keys.make("release").public_key
    assert isinstance(keys.load("release"), CryptoSigner)
    with pytest.raises(SettingsError, match="No such file"):
        keys.load("other")


def test_offline_keys_renew_what_they_signed_and_let_a_new_online_key_sign(store, keys, client):
    offline = take_offline(store, keys)
    before = store.files.current()
    with pytest.raises(SettingsError, match="a root needs 2 of its 3 offline keys, 0 are here"):
        store.rotate(OFFERS, utc_now())
    store.renew(
        OFFERS, utc_now() + LIFETIME["root"] * 0.9, Offline(offline.roots[1:], offline.release)
    )
    after = store.files.current()
    assert all(after[role].signed.version > before[role].signed.version for role in after)
    assert client.look() == b"one"
    with pytest.raises(SettingsError, match="1 are here"):
        store.renew(OFFERS, utc_now(), Offline(offline.roots[:1], offline.release))
    with pytest.raises(SettingsError, match="release key is not the one"):
        store.renew(OFFERS, utc_now(), Offline(offline.roots, offline.roots[0]))
    old, new = store.rotate(OFFERS, utc_now(), offline)
    assert old != new
    store.sign(lambda: {"canary": b"five"}, utc_now())
    assert (client.look(), client.look("canary")) == (b"one", b"five")


# ------------------------------------------------------------------------------- the way back


@pytest.mark.parametrize("has_release", [True, False])
def test_clients_follow_back_to_one_key_and_away_again(store, keys, client, tmp_path, has_release):
    offline = take_offline(store, keys)
    seen = Client(tmp_path / "store", tmp_path / "seen")
    away = Client(tmp_path / "store", tmp_path / "away")  # looks never in between
    assert seen.look() == b"one"
    release = offline.release if has_release else None
    store.take_online(OFFERS, utc_now(), offline.roots[:2], release)
    assert store.protected() == {}
    assert set(store.files.current()) == {"root", "targets", "online", "snapshot", "timestamp"}
    for one in (client, seen, away):
        assert (one.look(), one.look("canary")) == (b"one", b"two")
    now = {"stable": b"five", "canary": b"two"}
    store.sign(lambda: now, utc_now())  # the server alone, from now on
    for one in (client, seen, away):
        assert one.look() == b"five"
    with pytest.raises(SettingsError, match="no offline keys sign here"):
        store.take_online(OFFERS, utc_now(), offline.roots, release)
    other = OfflineKeys(tmp_path / "other", lambda _: "another word of some length")
    take_offline(store, other, {"stable": b"five", "canary": b"two"})  # other keys, for lost ones
    store.change(OFFERS, utc_now(), {"stable": b"six"}, other.load("release"))
    for one in (client, seen, away):
        assert one.look() == b"six"


def test_the_way_back_needs_enough_of_the_right_keys(store, keys, client, tmp_path):
    offline = take_offline(store, keys)
    with pytest.raises(SettingsError, match="a root needs 2 of its 3 offline keys, 1 are here"):
        store.take_online(OFFERS, utc_now(), offline.roots[:1], offline.release)
    stranger = CryptoSigner.generate_ed25519()
    with pytest.raises(SettingsError, match="the release key is not the one"):
        store.take_online(OFFERS, utc_now(), offline.roots, stranger)
    with pytest.raises(SettingsError, match="a root needs 2"):
        store.take_online(OFFERS, utc_now(), [stranger, stranger], offline.release)
    assert client.look() == b"one"
    assert set(store.protected()) == {"stable"}


def test_whoever_finds_the_old_keys_afterwards_changes_nothing(store, keys, client, tmp_path):
    offline = take_offline(store, keys)
    assert client.look() == b"one"
    store.take_online(OFFERS, utc_now(), offline.roots, offline.release)
    assert client.look() == b"one"
    (online,) = OnlineKeys(tmp_path / "secrets").load().values()
    forged = newest(store, "targets")
    forged.signed.version += 1
    forged.sign(offline.release)
    folder = tmp_path / "store/metadata"
    forged.to_file(str(folder / f"{forged.signed.version}.targets.json"))
    snapshot, timestamp = newest(store, "snapshot"), newest(store, "timestamp")
    snapshot.signed.meta["targets.json"] = MetaFile(forged.signed.version)
    snapshot.signed.version += 1
    snapshot.sign(online)
    snapshot.to_file(str(folder / f"{snapshot.signed.version}.snapshot.json"))
    timestamp.signed.snapshot_meta.version = snapshot.signed.version
    timestamp.signed.version += 1
    timestamp.sign(online)
    timestamp.to_file(str(folder / "timestamp.json"))
    with pytest.raises(UnsignedMetadataError):
        client.look()


def test_a_way_back_that_was_cut_is_ended_by_the_same_call(store, keys, client, monkeypatch):
    offline = take_offline(store, keys)
    written, write, most = [], type(store.files).write, 0

    def cut(self, role, payload, signers):
        if len(written) == most:
            raise KeyboardInterrupt
        written.append(role)
        return write(self, role, payload, signers)

    monkeypatch.setattr(type(store.files), "write", cut)
    while True:
        written.clear()
        try:
            store.take_online(OFFERS, utc_now(), offline.roots, offline.release)
            break
        except KeyboardInterrupt:
            assert client.look() == b"one"
            most += 1
        except SettingsError:  # the root was written: the next signing does what is left
            store.sign(lambda: OFFERS, utc_now())
            break
    assert most >= 1
    monkeypatch.undo()
    assert client.look() == b"one"
    store.sign(lambda: {"stable": b"five"}, utc_now())
    assert client.look() == b"five"
