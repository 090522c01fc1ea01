"""A version for one site: signed by whoever signs the channel, and nothing else changes."""

import pytest
from securesystemslib.signer import CryptoSigner
from stock_client import Client

from cloud_server.rollout.changes import Wish, begin
from cloud_server.signing import roles
from cloud_server.signing.assignments import assign, require_keys, unassign
from cloud_server.signing.keys import OfflineKeys
from cloud_server.signing.repository import Offline
from cloud_server.signing.signing import offered, promote, sign, signed_store, take_offline
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import parse_manifest
from fleet_model.errors import BundleError, SettingsError
from fleet_model.protocol.proof import utc_now
from fleet_model.protocol.routes import site_offer

HALL = site_offer("stable", "hall-1")


@pytest.fixture
def store(server_dir):
    """The store of a server that offers version 1, and has others up to 5."""
    store = DirectoryStore(server_dir.store)
    for version in range(2, 6):
        store.reissue(1, version, "2026-01-01T00:00:00")
    sign(server_dir)
    return store


@pytest.fixture
def look(server_dir, store, tmp_path):
    """What a stock client of TUF finds under an offer's name."""
    client = Client(server_dir.store, tmp_path / "client")

    def version(offer):
        content = client.look(offer)
        return None if content is None else parse_manifest(content).version

    return version


@pytest.fixture
def release(server_dir, store, tmp_path):
    """The key of channel stable, which offline keys sign now."""
    keys = OfflineKeys(tmp_path / "usb", lambda name: "a word of some length")
    made = keys.make("release")
    take_offline(server_dir, Offline([keys.make("root-1")], made), 1, "stable", "canary")
    return made


def test_a_site_gets_its_own_version_and_the_channel_stays(server_dir, store, look):
    assign(server_dir, "stable", "hall-1", 3)
    assert (look(HALL), look("stable"), look(site_offer("stable", "yard"))) == (3, 1, None)
    store.offer("stable", 5)
    sign(server_dir)
    assert (look(HALL), look("stable")) == (3, 5)
    assert store.channels() == {"stable": 5}
    unassign(server_dir, "stable", "hall-1")
    assert (look(HALL), look("stable")) == (None, 5)


def test_what_a_site_has_is_not_pruned(server_dir, store):
    assign(server_dir, "stable", "hall-1", 2)
    assert store.prune(keep=1) == [3, 4]
    assert store.published() == [1, 2, 5]


def test_what_cannot_be_is_refused(server_dir, store):
    assign(server_dir, "stable", "hall-1", 3)
    with pytest.raises(BundleError, match="site hall-1 is offered version 3, and numbers never"):
        assign(server_dir, "stable", "hall-1", 2)
    with pytest.raises(BundleError, match="version 9 is not published"):
        assign(server_dir, "stable", "hall-1", 9)
    for site in ("", "a b", "../x", ".", "*", "a/b", "x" * 64):
        with pytest.raises(SettingsError, match="expected the name of a site"):
            assign(server_dir, "stable", site, 3)
    with pytest.raises(SettingsError, match="--channel canary: nothing is published on it"):
        assign(server_dir, "canary", "hall-1", 3)
    with pytest.raises(SettingsError, match="site yard has no version of its own"):
        unassign(server_dir, "stable", "yard")
    assert set(store.offers()) == {"stable", HALL}


def test_offline_keys_assign_where_they_sign(server_dir, store, look, release):
    assign(server_dir, "stable", "hall-1", 3, release)
    assert (look(HALL), look("stable")) == (3, 1)
    promote(server_dir, "stable", 5, release)
    assert (look(HALL), look("stable")) == (3, 5)
    unassign(server_dir, "stable", "hall-1", release)
    assert (look(HALL), look("stable")) == (None, 5)
    with pytest.raises(SettingsError, match="does not sign for channel stable"):
        assign(server_dir, "stable", "hall-1", 5, CryptoSigner.generate_ed25519())


def test_who_has_the_server_assigns_nothing_where_offline_keys_sign(
    server_dir, store, look, release
):
    """By the store's files, as a thief with the online key would have it signed."""
    for site in ("hall-1", "yard"):
        store.offer(site_offer("stable", site), 3)
        sign(server_dir)
        assert look(site_offer("stable", site)) is None
    assert set(store.offers()) == {"stable", "canary"}  # corrected


def test_what_was_cut_short_is_ended_by_the_next_signing(server_dir, store, look, release):
    put = {HALL: store.require(3)}
    signed_store(server_dir).change(offered(server_dir), utc_now(), put, release)
    assert HALL not in store.offers()
    sign(server_dir)
    assert store.offers()[HALL] == (3, "")
    signed_store(server_dir).change(offered(server_dir), utc_now(), {}, release, [HALL])
    sign(server_dir)
    assert HALL not in store.offers()
    assert look(HALL) is None


def test_keys_are_asked_for_where_they_sign_and_only_there(server_dir, store, release):
    require_keys(server_dir, "stable", given=True)
    require_keys(server_dir, "canary", given=False)
    with pytest.raises(SettingsError, match="name their folder, --keys KEYS"):
        require_keys(server_dir, "stable", given=False)
    with pytest.raises(SettingsError, match="leave --keys away"):
        require_keys(server_dir, "canary", given=True)


def test_a_store_from_before_sites_goes_on_and_the_release_key_adds_them(
    server_dir, store, look, tmp_path, monkeypatch
):
    """The release key alone may say which names a channel has; it is not here."""
    with monkeypatch.context() as before:
        before.setattr(roles, "_paths", lambda channel: [f"{channel}/manifest.json"])
        keys = OfflineKeys(tmp_path / "usb", lambda name: "a word of some length")
        release = keys.make("release")
        take_offline(server_dir, Offline([keys.make("root-1")], release), 1, "stable", "canary")
        number = signed_store(server_dir).files.current()["targets"].signed.version
    store.offer("canary", 4)
    sign(server_dir)  # as by a server of this version, without the release key
    assert signed_store(server_dir).files.current()["targets"].signed.version == number
    assert (look("stable"), look("canary")) == (1, 4)
    told = r"robots would not find canary/sites/yard: the offline keys .* `cloud-server keys renew"
    with pytest.raises(SettingsError, match=told):
        assign(server_dir, "canary", "yard", 4)
    with pytest.raises(SettingsError, match=r"robots would not find canary/plan\.json: "):
        begin(server_dir, "canary", 5, Wish(("100%",), 0.2, 0.0))
    assert set(store.offers()) == {"stable", "canary"}
    assign(server_dir, "stable", "hall-1", 3, release)
    assert (look("stable"), look(HALL)) == (1, 3)
    assign(server_dir, "canary", "yard", 4)
    assert look(site_offer("canary", "yard")) == 4
